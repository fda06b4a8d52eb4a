// Package landlock narrows what the guest and all that it starts may do with files, by the kernel's Landlock.
package landlock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Verb is the first argument that makes the guest narrow itself and then become the guest proper.
const Verb = "enclose"

// readyFD is where whoever started the guest waits to hear that it is enclosed.
const readyFD = 4

const (
	createRuleset = 444
	addRule       = 445
	restrictSelf  = 446

	versionFlag = 1
	pathBeneath = 1

	closeRange     = 436
	lastDescriptor = 1<<32 - 1
	closeOnExec    = 4        // CLOSE_RANGE_CLOEXEC
	setNoNewPrivs  = 38       // PR_SET_NO_NEW_PRIVS
	openPath       = 0x200000 // O_PATH
)

// Rights over files, by the kernel's bits.
const (
	execute    = 1 << 0
	writeFile  = 1 << 1
	readFile   = 1 << 2
	readDir    = 1 << 3
	removeDir  = 1 << 4
	removeFile = 1 << 5
	makeChar   = 1 << 6
	makeDir    = 1 << 7
	makeReg    = 1 << 8
	makeSock   = 1 << 9
	makeFifo   = 1 << 10
	makeBlock  = 1 << 11
	makeSym    = 1 << 12
	refer      = 1 << 13
	truncate   = 1 << 14
	ioctlDev   = 1 << 15

	reading = readFile | readDir
	writing = writeFile | removeDir | removeFile | makeDir | makeReg | makeSock | makeFifo | makeSym | refer |
		truncate | ioctlDev
)

// handled are the rights that each version of the interface knows, from 1 on.
var handled = []uint64{0, 1<<13 - 1, 1<<14 - 1, 1<<15 - 1, 1<<15 - 1, 1<<16 - 1}

const (
	firstWithNetwork = 4
	firstWithScopes  = 6
	// scopes keep abstract sockets and signals within the enclosure.
	scopes = 1<<0 | 1<<1
)

type rulesetAttr struct{ files, network, scoped uint64 }

// Enclose takes the rights away that no rule gives, says so on descriptor 4, and starts the program anew without
// arguments, so that every thread of it is enclosed. It returns only when something failed.
//
// A rule is `/path=letters`, of r (read), w (write, make and remove) and x (execute). Directories right below / that no
// rule names may be read and executed. Nothing else may be.
func Enclose(rules []string) error {
	// The rights are those of a thread, and the thread that executes is the one that stays.
	runtime.LockOSThread()
	if err := restrict(rules); err != nil {
		return err
	}
	// Whatever else was needed to set the sandbox up stays out of it.
	if _, _, errno := syscall.RawSyscall(closeRange, readyFD, lastDescriptor, closeOnExec); errno != 0 {
		return fmt.Errorf("close descriptors: %w", errno)
	}
	if _, err := syscall.Write(readyFD, []byte{1}); err != nil {
		return fmt.Errorf("report the enclosure: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the own program: %w", err)
	}
	return syscall.Exec(program, []string{program}, []string{"PATH=" + os.Getenv("PATH")})
}

func restrict(rules []string) error {
	version, _, errno := syscall.Syscall(createRuleset, 0, 0, versionFlag)
	if errno != 0 {
		return fmt.Errorf("ask for Landlock: %w", errno)
	}
	all := handled[min(int(version), len(handled)-1)]
	attr, size := rulesetAttr{files: all}, unsafe.Sizeof(rulesetAttr{})
	switch {
	case version < firstWithNetwork:
		size = unsafe.Offsetof(attr.network)
	case version < firstWithScopes:
		size = unsafe.Offsetof(attr.scoped)
	default:
		attr.scoped = scopes
	}
	ruleset, _, errno := syscall.Syscall(createRuleset, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return fmt.Errorf("make a Landlock ruleset: %w", errno)
	}
	defer syscall.Close(int(ruleset))
	if err := allowAll(int(ruleset), all, rules); err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0); errno != 0 {
		return fmt.Errorf("give up new privileges: %w", errno)
	}
	if _, _, errno := syscall.RawSyscall(restrictSelf, ruleset, 0, 0); errno != 0 {
		return fmt.Errorf("enforce Landlock: %w", errno)
	}
	return nil
}

func allowAll(ruleset int, all uint64, rules []string) error {
	named := map[string]bool{}
	for _, rule := range rules {
		path, letters, _ := strings.Cut(rule, "=")
		named[path] = true
		if err := allow(ruleset, path, all&rights(letters)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("list /: %w", err)
	}
	for _, entry := range entries {
		if path := "/" + entry.Name(); entry.IsDir() && !named[path] {
			if err := allow(ruleset, path, all&(reading|execute)); err != nil {
				return err
			}
		}
	}
	return nil
}

func rights(letters string) uint64 {
	var sum uint64
	for letter, mask := range map[string]uint64{"r": reading, "w": writing, "x": execute} {
		if strings.Contains(letters, letter) {
			sum |= mask
		}
	}
	return sum
}

func allow(ruleset int, path string, mask uint64) error {
	fd, err := syscall.Open(path, openPath|syscall.O_CLOEXEC, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EACCES) {
		return nil // what is not there, or not to be opened, needs no rule
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer syscall.Close(fd)
	// struct landlock_path_beneath_attr is packed: 8 bytes of rights, then 4 of the descriptor.
	rule := struct {
		rights uint64
		fd     int32
	}{mask, int32(fd)}
	_, _, errno := syscall.Syscall6(addRule, uintptr(ruleset), pathBeneath, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}
