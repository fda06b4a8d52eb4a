package server

import (
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// quietAfter is how long nobody must have asked anything until unused memory goes back to the sandbox.
const quietAfter = 2 * time.Second

// quiet gives memory back once the requests are over; the runtime by itself would keep it for minutes.
type quiet struct {
	next http.Handler

	mu      sync.Mutex
	serving int
	timer   *time.Timer
}

// ServeHTTP passes a request on and counts it, unless it only asks whether the guest is there.
func (q *quiet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == healthPath {
		q.next.ServeHTTP(w, r)
		return
	}
	q.mu.Lock()
	q.serving++
	if q.timer != nil {
		q.timer.Stop()
	}
	q.mu.Unlock()
	defer q.done()
	q.next.ServeHTTP(w, r)
}

func (q *quiet) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.serving--; q.serving > 0 {
		return
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(quietAfter, debug.FreeOSMemory)
		return
	}
	q.timer.Reset(quietAfter)
}
