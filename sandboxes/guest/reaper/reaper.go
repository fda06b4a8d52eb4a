// Package reaper is the only place that waits for processes, so that the first process of a sandbox
// collects every orphan and still hands each exit status to the one who started the process.
package reaper

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper collects ended children and dispatches the statuses of those started through it.
type Reaper struct {
	mu  sync.Mutex
	own map[int]*Child
}

// Child is a process that was started through the reaper.
type Child struct {
	PID    int
	status chan syscall.WaitStatus
}

// Status delivers how the child ended, once.
func (c *Child) Status() <-chan syscall.WaitStatus { return c.status }

// Start begins to collect; there may be one Reaper in a process.
func Start() *Reaper {
	r := &Reaper{own: make(map[int]*Child)}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for {
			for r.collect() {
			}
			<-ended
		}
	}()
	return r
}

// Fork runs fork and registers the child that it returns. No child is collected meanwhile, so that a child which
// ends at once still finds its entry.
func (r *Reaper) Fork(fork func() (pid int, err error)) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	child := &Child{PID: pid, status: make(chan syscall.WaitStatus, 1)}
	r.own[pid] = child
	return child, nil
}

// WhileUncollected runs act only if the child has not been collected: its pid cannot be another process's meanwhile.
func (r *Reaper) WhileUncollected(child *Child, act func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[child.PID] != child {
		return false
	}
	act()
	return true
}

// collect takes one ended child and reports whether there may be another.
func (r *Reaper) collect() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WALL, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if owner, mine := r.own[pid]; mine && (status.Exited() || status.Signaled()) {
		delete(r.own, pid)
		owner.status <- status
	}
	return true
}
