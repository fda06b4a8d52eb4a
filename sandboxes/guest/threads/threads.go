// Package threads keeps the guest alive when the kernel refuses new threads.
//
// The Go runtime dies when it cannot create a thread that it needs. A tenant at the pids limit makes every clone fail,
// so all threads are made before the first tenant process runs, and calls that may block a thread take a slot first.
package threads

import "runtime"

const (
	// diskSlots is how many calls may sit in blocking system calls (files, directories) at once.
	diskSlots = 6
	// spare covers the running threads (GOMAXPROCS), the monitor, the network poller, signals, process starts and a margin.
	spare = 12
)

var slots = make(chan struct{}, diskSlots)

// Prewarm makes every thread that the guest may need; the runtime keeps idle threads forever.
func Prewarm() {
	runtime.GOMAXPROCS(2)
	ready := make(chan struct{})
	release := make(chan struct{})
	count := diskSlots + spare
	for range count {
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			<-release
			runtime.UnlockOSThread()
			ready <- struct{}{}
		}()
	}
	for range count {
		<-ready
	}
	close(release)
	for range count {
		<-ready
	}
}

// Disk runs call while holding a slot for blocking system calls. It must not be nested.
func Disk(call func()) {
	slots <- struct{}{}
	defer func() { <-slots }()
	call()
}
