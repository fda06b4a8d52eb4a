// Package threads keeps the guest alive when the kernel refuses new threads.
//
// The Go runtime dies when it cannot create a thread that it needs. A tenant at the pids limit makes every clone fail,
// so all threads are made before the first tenant process runs, and calls that may block a thread take a slot first.
package threads

import "runtime"

const (
	// processors is how many threads run Go code at once.
	processors = 2
	// diskSlots is how many calls may sit in blocking system calls (files, directories) at once.
	diskSlots = 6
	// spare covers the processors, the network poller, signals, process starts, and calls that should not block but
	// that the kernel suspends half-way when the tenant takes all the processor time.
	spare = 12
)

var (
	slots = make(chan struct{}, diskSlots)
	warm  = make(chan struct{})
)

// Prewarm makes every thread that the guest may need; the runtime keeps idle threads forever. It may run beside
// other work, but is called only once.
func Prewarm() {
	runtime.GOMAXPROCS(processors)
	here := make(chan struct{})
	release := make(chan struct{})
	for range diskSlots + spare {
		go func() {
			// A goroutine that is locked to its thread takes the thread along while it waits.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			here <- struct{}{}
			<-release
		}()
	}
	for range diskSlots + spare {
		<-here
	}
	close(release)
	close(warm)
}

// Warm returns when all threads have been made. Whoever starts tenants' processes waits for it.
func Warm() { <-warm }

// Disk runs call while holding a slot for blocking system calls. It must not be nested.
func Disk(call func()) {
	slots <- struct{}{}
	defer func() { <-slots }()
	call()
}
