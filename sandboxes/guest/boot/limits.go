package boot

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

const (
	setDumpable       = 4  // PR_SET_DUMPABLE
	setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	rlimitProcesses   = 6  // RLIMIT_NPROC
	closeRange        = 436
	lastDescriptor    = 1<<32 - 1
	closeOnExec       = 4 // CLOSE_RANGE_CLOEXEC
	// headroom is how many of the sandbox's processes are kept from each of its users, for the guest's own threads.
	headroom = 32
)

// adoptOrphans makes the guest the parent of orphans also where it is not the first process.
func adoptOrphans() {
	syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
}

// hideFromUser keeps processes with the guest's own uid out of its memory and its descriptors. What the guest needs of
// /proc/self it has opened; what it starts is not affected.
func hideFromUser() {
	syscall.Syscall(syscall.SYS_PRCTL, setDumpable, 0, 0)
}

// limitProcesses sets the number of processes that each user may have. It counts for the guest too, which has all its
// threads already, and is inherited by all that it starts.
func limitProcesses(sandbox int) error {
	if sandbox == 0 {
		return nil
	}
	limit := uint64(sandbox - min(headroom, sandbox/4))
	var given syscall.Rlimit
	if syscall.Getrlimit(rlimitProcesses, &given) == nil {
		// A guest without privileges cannot raise what it was started with.
		limit = min(limit, given.Max)
	}
	err := syscall.Setrlimit(rlimitProcesses, &syscall.Rlimit{Cur: limit, Max: limit})
	if err != nil {
		return fmt.Errorf("limit processes to %d: %w", limit, err)
	}
	return nil
}

// keepDescriptors lets no process that the guest starts inherit the listener or whatever else the guest was given.
func keepDescriptors() {
	_, _, errno := syscall.RawSyscall(closeRange, listenerFD, lastDescriptor, closeOnExec)
	if errno == 0 {
		return
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= listenerFD {
			syscall.CloseOnExec(fd)
		}
	}
}
