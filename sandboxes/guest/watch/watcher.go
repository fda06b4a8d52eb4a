package watch

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
	"gatehouse/guest/threads"
)

// readSize is how much of the kernel's changes is read at once, in bytes.
const readSize = 8 << 10

type request struct {
	Path         string `json:"path"`
	Recursive    bool   `json:"recursive"`
	IncludeEntry bool   `json:"includeEntry"`
	AllowNetwork bool   `json:"allowNetworkMounts"`
	// The protocol's JSON may use a field's own name as well.
	IncludeEntryToo bool `json:"include_entry"`
	AllowNetworkToo bool `json:"allow_network_mounts"`
}

func (r *request) networkToo() bool { return r.AllowNetwork || r.AllowNetworkToo }

// watcher watches one directory until it is closed, the directory goes away or events are lost.
type watcher struct {
	mu     sync.Mutex
	tree   *tree
	buffer []byte
}

// open begins to watch: whatever changes after it has returned is reported. It blocks on the disk.
func open(path string, wanted *request) (*watcher, error) {
	place, err := check(path, wanted)
	if err != nil {
		return nil, err
	}
	changes, err := openQueue()
	if err != nil {
		return nil, err
	}
	t := &tree{
		queue: changes, report: &report{}, place: place, recursive: wanted.Recursive, network: wanted.networkToo(),
		byWatch: make(map[int]*directory),
	}
	if wanted.IncludeEntry || wanted.IncludeEntryToo {
		t.report.base = path
	}
	w := &watcher{tree: t, buffer: make([]byte, readSize)}
	if err := t.begin(); err != nil {
		w.end()
		return nil, err
	}
	return w, nil
}

func check(path string, wanted *request) (place string, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "", notFound(path)
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", connect.Errorf(connect.InvalidArgument, "path is not a directory: %s", paths.Shown(path))
	case !wanted.networkToo() && onNetwork(path):
		return "", connect.Errorf(connect.InvalidArgument,
			"path is on a network mount, where changes by others are not seen: %s (allowNetworkMounts watches it nevertheless)",
			paths.Shown(path))
	}
	return filepath.EvalSymlinks(path)
}

// run hands events to deliver until there are no more. It returns nil when the directory is gone, or the watcher closed.
func (w *watcher) run(deliver func(events [][]byte) error) error {
	defer w.end()
	for {
		if err := w.tree.queue.wait(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err := w.collect(deliver); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// collect deals with what is queued, as far as one read brings it, and hands the events to deliver before anybody else
// can collect. It returns io.EOF when there is nothing more to come.
func (w *watcher) collect(deliver func(events [][]byte) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tree.failed != nil || w.tree.over {
		return cmp.Or(w.tree.failed, io.EOF)
	}
	threads.Disk(func() { w.tree.follow(w.buffer[:w.tree.queue.read(w.buffer)]) })
	if events := w.tree.report.take(); len(events) > 0 {
		if err := deliver(events); err != nil {
			w.tree.fail(err)
		}
	}
	if w.tree.failed != nil || w.tree.over {
		return cmp.Or(w.tree.failed, io.EOF)
	}
	w.wakeUp()
	return nil
}

// wakeUp ends the wait for changes while directories are on their way, so that those which left are let go.
func (w *watcher) wakeUp() {
	var at time.Time
	if len(w.tree.away) > 0 {
		at = time.Now().Add(patience)
	}
	w.tree.queue.file.SetReadDeadline(at)
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tree.end()
	w.close()
}

func (w *watcher) close() { w.tree.queue.file.Close() }
