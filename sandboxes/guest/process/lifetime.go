package process

import (
	"sync"
	"time"
)

// step is how often a running time limit is looked at.
const step = time.Second

// lifetime is a time limit that does not run while the sandbox is paused. The kernel's clocks go on meanwhile, and
// nothing tells the guest: but it wakes up late.
type lifetime struct {
	mu    sync.Mutex
	timer *time.Timer
	left  time.Duration
	over  func()
}

// after calls over once the sandbox has run for the given time, unless the lifetime is stopped before.
func after(limit time.Duration, over func()) *lifetime {
	l := &lifetime{left: limit, over: over}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next()
	return l
}

func (l *lifetime) next() {
	wait, begun := min(step, l.left), time.Now()
	l.timer = time.AfterFunc(wait, func() { l.passed(wait, time.Since(begun)) })
}

// passed counts what went by since the last look; of a longer stop only the step itself.
func (l *lifetime) passed(wait, elapsed time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if elapsed > wait+step {
		elapsed = wait
	}
	if l.left -= elapsed; l.left > 0 {
		l.next()
	} else if l.over != nil {
		go l.over()
	}
}

// stop lets the time limit be forgotten.
func (l *lifetime) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	l.left, l.over = 0, nil
}
