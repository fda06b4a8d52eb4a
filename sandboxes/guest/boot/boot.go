// Package boot brings the guest up, in the order that keeps it alive later.
package boot

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"gatehouse/guest/config"
	"gatehouse/guest/network"
	"gatehouse/guest/reaper"
	"gatehouse/guest/server"
	"gatehouse/guest/threads"
)

const (
	listenerFD = 3
	// gcPercent keeps the heap small: the guest idles nearly always and a collection of it takes well under a millisecond.
	gcPercent = 40
	// memoryGoal makes the collector work harder when requests have filled the memory, in bytes.
	memoryGoal = 64 << 20
)

// Run serves until the listener fails; it returns the exit status.
func Run() int {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryGoal)
	keepDescriptors()
	syscall.Umask(0o022)
	surviveSignals()
	// A sandbox that is prepared ahead waits for its configuration: the threads are there by then.
	go threads.Prewarm()
	if err := serve(); err != nil {
		nodeLog{}.tell(err)
		return 1
	}
	return 0
}

func serve() error {
	// Before the configuration comes: the node hands a guest out only when it can be reached.
	listener, err := openListener(os.Args[1:])
	if err != nil {
		return err
	}
	settings, err := config.Read(os.Stdin)
	if err != nil {
		return err
	}
	if err := releaseStdin(); err != nil {
		return err
	}
	adoptOrphans()
	if err := limitProcesses(settings.MaxProcesses); err != nil {
		nodeLog{}.tell(err)
	}
	handler := server.New(settings, reaper.Start(), network.Start(settings.Network, nodeLog{}), nodeLog{})
	if settings.OnlyUser != "" {
		hideFromUser()
	}
	return server.Serve(handler, listener)
}

// surviveSignals keeps signals that a tenant's root may send from ending the sandbox, and those that the kernel sends
// for a broken pipe or a file at its size limit from ending the guest. They are caught, not ignored: ignored signals
// would stay ignored in every process that the guest starts.
func surviveSignals() {
	signal.Notify(make(chan os.Signal, 1),
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGTSTP,
		syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGIO, syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTRAP,
		syscall.SIGSTKFLT)
}

// releaseStdin lets go of the pipe that the configuration came through.
func releaseStdin() error {
	null, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer syscall.Close(null)
	return syscall.Dup3(null, 0, 0)
}
