// Package idle gives memory back to the sandbox once the guest has nothing to do; the runtime by itself would keep it
// for minutes.
package idle

import (
	"runtime/debug"
	"sync"
	"time"
)

// quietAfter is how long nothing must have begun or ended until unused memory is given back.
const quietAfter = 2 * time.Second

var (
	mu    sync.Mutex
	doing int
	timer *time.Timer
)

// Begin says that something begins, during which memory is not given back.
func Begin() {
	mu.Lock()
	defer mu.Unlock()
	doing++
	if timer != nil {
		timer.Stop()
	}
}

// End says that what began has ended.
func End() {
	mu.Lock()
	defer mu.Unlock()
	doing--
	rest()
}

// Ended says that something has ended whose end nothing waits for, since it may take any time.
func Ended() {
	mu.Lock()
	defer mu.Unlock()
	rest()
}

func rest() {
	switch {
	case doing > 0:
	case timer == nil:
		timer = time.AfterFunc(quietAfter, debug.FreeOSMemory)
	default:
		timer.Reset(quietAfter)
	}
}
