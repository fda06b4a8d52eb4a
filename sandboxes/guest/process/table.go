package process

import (
	"sort"
	"sync"
	"time"

	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

const (
	// maxRunning is how many processes may run that were started by callers.
	maxRunning = 256
	// maxEnded is how many ended processes are remembered, each for remember.
	maxEnded = 64
	remember = 30 * time.Second
	// maxWeight bounds the arguments and variables of all running processes together, in bytes.
	maxWeight = 16 << 20
	// maxLeftOpen is how many outputs that descendants keep open after the end are drained.
	maxLeftOpen = 64
)

// table holds the running processes and, for a while, the ended ones.
type table struct {
	mu       sync.Mutex
	reserved int
	weight   int
	running  map[int]*process
	ended    map[int]*process
	order    []*process
	leftOpen []*pump
	sweeping bool
}

func newTable() *table {
	return &table{running: make(map[int]*process), ended: make(map[int]*process)}
}

// reserve takes a place for a process of the given weight, before it is started.
func (t *table) reserve(weight int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reserved >= maxRunning {
		return connect.Errorf(connect.ResourceExhausted, "%d of %d processes are running", t.reserved, maxRunning)
	}
	if t.weight+weight > maxWeight {
		return connect.Errorf(connect.ResourceExhausted,
			"arguments and variables of the running processes are larger than %d bytes", maxWeight)
	}
	t.reserved++
	t.weight += weight
	return nil
}

func (t *table) unreserve(weight int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved--
	t.weight -= weight
}

func (t *table) add(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running[p.pid] = p
}

// end moves a process to the ended ones.
func (t *table) end(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved--
	t.weight -= p.weight
	if t.running[p.pid] == p {
		delete(t.running, p.pid)
	}
	if older := t.ended[p.pid]; older != nil {
		t.forget(older)
	}
	t.ended[p.pid] = p
	t.order = append(t.order, p)
	if len(t.order) > maxEnded {
		t.forget(t.order[0])
	}
	t.leaveOpen(p)
	p.endedAt = time.Now()
	t.sweepLater(remember)
}

func (t *table) sweepLater(wait time.Duration) {
	if t.sweeping {
		return
	}
	t.sweeping = true
	time.AfterFunc(wait, t.sweep)
}

// sweep forgets the processes whose time as ended ones is over.
func (t *table) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweeping = false
	for len(t.order) > 0 {
		if left := remember - time.Since(t.order[0].endedAt); left > 0 {
			t.sweepLater(left)
			return
		}
		t.forget(t.order[0])
	}
}

func (t *table) forget(p *process) {
	for i, known := range t.order {
		if known != p {
			continue
		}
		t.order = append(t.order[:i], t.order[i+1:]...)
		if t.ended[p.pid] == p {
			delete(t.ended, p.pid)
		}
		p.output.forget()
		return
	}
}

// leaveOpen keeps reading, and dropping, what descendants write after the end, so that they do not die of a closed
// pipe. There is a bound: the longest open one is closed first.
func (t *table) leaveOpen(p *process) {
	open := t.leftOpen[:0]
	for _, pump := range append(t.leftOpen, p.pumps...) {
		select {
		case <-pump.done:
		default:
			open = append(open, pump)
		}
	}
	for len(open) > maxLeftOpen {
		open[0].file.Close()
		open = open[1:]
	}
	t.leftOpen = open
}

// find returns the process that the selector names; an ended one only if asked for.
func (t *table) find(s *selector, alsoEnded bool) (*process, error) {
	if s == nil || (s.PID == nil) == (s.Tag == nil) {
		return nil, connect.Errorf(connect.InvalidArgument, "process: either pid or tag must be given")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.PID != nil {
		return t.byPID(int(*s.PID), alsoEnded)
	}
	for _, p := range t.running {
		if p.tag != nil && *p.tag == *s.Tag && (alsoEnded || !p.exited.Load()) {
			return p, nil
		}
	}
	for i := len(t.order) - 1; alsoEnded && i >= 0; i-- {
		if tag := t.order[i].tag; tag != nil && *tag == *s.Tag {
			return t.order[i], nil
		}
	}
	return nil, connect.Errorf(connect.NotFound, "process with tag %s not found", paths.Shown(*s.Tag))
}

func (t *table) byPID(pid int, alsoEnded bool) (*process, error) {
	if p := t.running[pid]; p != nil && (alsoEnded || !p.exited.Load()) {
		return p, nil
	}
	if p := t.ended[pid]; p != nil && alsoEnded {
		return p, nil
	}
	return nil, connect.Errorf(connect.NotFound, "process with pid %d not found", pid)
}

// list returns the running processes by pid.
func (t *table) list() []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*process, 0, len(t.running))
	for _, p := range t.running {
		if !p.exited.Load() {
			all = append(all, p)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].pid < all[j].pid })
	return all
}
