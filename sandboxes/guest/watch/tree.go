package watch

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

const (
	// maxDirectories bounds the directories of one watcher, maxTogether those of all.
	maxDirectories = 8192
	maxTogether    = 32768
	// maxHeld is how many changes of a directory that is on its way are held.
	maxHeld = 1024
	// scanBatch is how many names of a directory are held at once while it is looked through.
	scanBatch = 1024
	// patience is how long a renamed directory may be on its way; the kernel reports both ends in one go.
	patience = 50 * time.Millisecond

	arriving = syscall.IN_CREATE | syscall.IN_MOVED_TO
)

var together atomic.Int64

// tree follows the directories of one watcher through the changes that the kernel reports.
type tree struct {
	queue  *queue
	report *report
	// place is where the watched directory lies, links resolved.
	place     string
	recursive bool
	network   bool

	root    *directory
	byWatch map[int]*directory
	away    []*directory
	// unseen are directories that have a watch but have not been looked through.
	unseen []*directory
	// read and done count the bytes of changes that were read, and dealt with.
	read, done int64
	over       bool
	failed     error
}

// begin watches the directory and, if wanted, all below it, as they are now. It blocks on the disk.
func (t *tree) begin() error {
	number, err := t.queue.add(t.place, 0)
	if err != nil {
		return watchError(err)
	}
	t.root = t.enter(number, deviceOf(t.place))
	if t.failed == nil && t.recursive {
		t.unseen = append(t.unseen, t.root)
		t.scan(false)
	}
	return t.failed
}

// follow deals with changes as they were read. It blocks on the disk.
func (t *tree) follow(text []byte) {
	t.read += int64(len(text))
	for len(text) > 0 && t.failed == nil && !t.over {
		c, size := cutChange(text)
		t.handle(c)
		t.done += int64(size)
		text = text[size:]
	}
	t.giveUp()
}

func (t *tree) handle(c change) {
	if c.mask&syscall.IN_Q_OVERFLOW != 0 {
		t.fail(errLost)
		return
	}
	at := t.byWatch[c.watch]
	switch {
	case at == nil:
	case c.mask&syscall.IN_IGNORED != 0:
		t.forget(at)
	case c.name == "":
		t.handleSelf(at, c.mask)
	case at.lost() != nil:
		t.hold(at.lost(), c)
	default:
		t.handleName(at, c)
	}
}

// handleSelf reports what happens to the watched directory itself; of those below it their parents tell.
func (t *tree) handleSelf(at *directory, mask uint32) {
	if at != t.root {
		return
	}
	t.report.add(mask, ".")
	t.over = mask&(syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF|syscall.IN_UNMOUNT) != 0
	t.check()
}

func (t *tree) handleName(at *directory, c change) {
	arrived := c.mask&arriving != 0
	inner := t.recursive && c.mask&syscall.IN_ISDIR != 0
	if inner && c.mask&(syscall.IN_MOVED_FROM|syscall.IN_DELETE) != 0 {
		t.leave(at.children[c.name], c.mask)
	}
	if !at.alreadyTold(c, t.done) {
		t.report.add(c.mask, at.below(c.name))
		t.check()
	}
	if inner && arrived {
		t.enterBelow(at, c.name)
		t.scan(true)
	}
}

// leave takes a directory out of its place: a removed one will not come back, a renamed one may do so elsewhere.
func (t *tree) leave(child *directory, mask uint32) {
	if child == nil {
		return
	}
	child.detach()
	if mask&syscall.IN_MOVED_FROM != 0 {
		child.away = time.Now()
		t.away = append(t.away, child)
	}
}

func (t *tree) hold(lost *directory, c change) {
	if len(lost.held) >= maxHeld {
		t.fail(errLost)
		return
	}
	lost.held = append(lost.held, c)
}

// enterBelow watches the directory that has a name now. The kernel's number for it tells whether it is one that was
// watched at another place, whatever happened since the change was queued.
func (t *tree) enterBelow(parent *directory, name string) {
	path := filepath.Join(t.place, parent.below(name))
	device := deviceOf(path)
	if device != parent.device && !t.network && onNetwork(path) {
		return
	}
	number, err := t.queue.add(path, syscall.IN_DONT_FOLLOW)
	if isGone(err) {
		return
	}
	if err != nil {
		t.fail(watchError(err))
		return
	}
	known := t.byWatch[number]
	if known == nil {
		known = t.enter(number, device)
		known.attach(parent, name)
		t.unseen = append(t.unseen, known)
		return
	}
	if parent.isWithin(known) {
		// A mount has put a directory into itself.
		return
	}
	known.attach(parent, name)
	if known.unseen {
		t.unseen = append(t.unseen, known)
	}
	held := known.held
	known.held = nil
	for _, c := range held {
		t.handle(c)
	}
}

func (t *tree) enter(number int, device uint64) *directory {
	d := &directory{watch: number, device: device}
	t.byWatch[number] = d
	if together.Add(1) > maxTogether || len(t.byWatch) > maxDirectories {
		t.fail(errTooMany)
	}
	return d
}

// scan looks through the directories that were not seen yet, after they got their watches: nothing is missed, and what
// is found and reported by the kernel as well is told once.
func (t *tree) scan(announce bool) {
	for len(t.unseen) > 0 && t.failed == nil {
		d := t.unseen[0]
		t.unseen = t.unseen[1:]
		if announce {
			d.announced = make(map[string]*announcement)
		}
		t.look(d, announce)
		d.horizon = t.read + t.queue.waiting()
	}
	t.unseen = nil
}

func (t *tree) look(d *directory, announce bool) {
	path := filepath.Join(t.place, d.below(""))
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		// It is gone, which its parent tells, or not to be read by this user.
		return
	}
	defer file.Close()
	if d.unseen = t.isOther(d, file); d.unseen {
		return
	}
	for t.failed == nil {
		children, err := file.ReadDir(scanBatch)
		for _, child := range children {
			if announce {
				t.announce(d, child)
			}
			if child.IsDir() && t.failed == nil {
				t.enterBelow(d, child.Name())
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !isGone(err) {
				t.fail(watchError(err))
			}
			return
		}
	}
}

// announce tells what a scan has found as the kernel would have: that it was made and, if it has content, written.
func (t *tree) announce(d *directory, child os.DirEntry) {
	found := &announcement{arrival: true}
	mask := uint32(syscall.IN_CREATE)
	if info, err := child.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		found.content = true
		mask |= syscall.IN_MODIFY
	}
	d.announced[child.Name()] = found
	t.report.add(mask, d.below(child.Name()))
	t.check()
}

// isOther reports whether a file opened by a directory's path is another directory, which took its place meanwhile.
func (t *tree) isOther(d *directory, file *os.File) bool {
	number := 0
	raw, err := file.SyscallConn()
	if err != nil {
		return true
	}
	controlErr := raw.Control(func(fd uintptr) {
		number, err = t.queue.add("/proc/self/fd/"+strconv.Itoa(int(fd)), 0)
	})
	if err != nil || controlErr != nil || number == d.watch {
		return false
	}
	if t.byWatch[number] == nil {
		t.queue.remove(number)
	}
	return true
}

// forget drops a directory that the kernel no longer watches.
func (t *tree) forget(d *directory) {
	d.detach()
	delete(t.byWatch, d.watch)
	together.Add(-1)
	t.over = t.over || d == t.root
}

// giveUp stops watching directories that were renamed and did not come back: they have left the tree.
func (t *tree) giveUp() {
	waiting := t.away[:0]
	for _, d := range t.away {
		switch {
		case d.away.IsZero():
		case time.Since(d.away) < patience:
			waiting = append(waiting, d)
		default:
			t.drop(d)
		}
	}
	clear(t.away[len(waiting):])
	t.away = waiting
}

func (t *tree) drop(d *directory) {
	for _, child := range d.children {
		t.drop(child)
	}
	if t.byWatch[d.watch] == d {
		t.queue.remove(d.watch)
		t.forget(d)
	}
}

// end gives back what the tree holds.
func (t *tree) end() {
	together.Add(-int64(len(t.byWatch)))
	t.byWatch = nil
}

func (t *tree) check() {
	if t.report.full() {
		t.fail(errLost)
	}
}

func (t *tree) fail(err error) {
	if t.failed == nil {
		t.failed = err
	}
}

var (
	errLost = connect.Errorf(connect.DataLoss,
		"more changed at once than can be kept, so events were lost: look at the directory and watch it anew")
	errTooMany = connect.Errorf(connect.ResourceExhausted,
		"more than %d directories for one watcher, or %d for all: watch a smaller part", maxDirectories, maxTogether)
)

func watchError(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return connect.Errorf(connect.ResourceExhausted, "the kernel watches no more directories for this sandbox")
	}
	return err
}

// isGone says that there is no directory any more, or none that this user may see.
func isGone(err error) bool {
	for _, gone := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.EACCES, syscall.ENAMETOOLONG} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

func deviceOf(path string) uint64 {
	var stat syscall.Stat_t
	if syscall.Lstat(path, &stat) != nil {
		return 0
	}
	return uint64(stat.Dev)
}

// networks are the file system types where other machines make changes that the kernel here never sees.
var networks = map[uint32]bool{
	0x6969: true, 0x517b: true, 0xff534d42: true, 0xfe534d42: true, 0x00c36400: true, 0x5346414f: true,
	0x73757245: true, 0x65735546: true,
}

func onNetwork(path string) bool {
	var stat syscall.Statfs_t
	return syscall.Statfs(path, &stat) == nil && networks[uint32(stat.Type)]
}

func notFound(path string) error {
	return connect.Errorf(connect.NotFound, "path %s not found", paths.Shown(path))
}
