package process

import (
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/guest/connect"
)

const (
	// keptOutput is how many bytes of its latest output each process keeps for readers.
	keptOutput = 128 << 10
	// keptByAll bounds the kept output of all processes together; beyond it a process keeps only firstOutput.
	keptByAll   = 16 << 20
	firstOutput = 4 << 10
	// maxSegments bounds the changes between stdout and stderr within the kept output.
	maxSegments = 4096
	// maxReaders is how many streams may follow one process.
	maxReaders = 16
	// stallLimit is how long one reader may hold up the others of the same process without taking a byte.
	stallLimit = 10 * time.Second
)

var kept atomic.Int64

// kind says which stream a piece of output belongs to.
type kind uint8

const (
	stdout kind = iota
	stderr
	terminal
)

// segment is a run of output of one kind that ends before offset end.
type segment struct {
	end  uint64
	kind kind
}

// output is the latest output of one process, in the order in which it was read: a byte ring with offsets that never
// wrap. Attached readers are never skipped: the writer waits for the slowest of them. Without a reader it waits for
// nobody and the oldest bytes go.
type output struct {
	mu        sync.Mutex
	ring      []byte
	base      uint64
	tip       uint64
	segments  []segment
	readers   map[*reader]struct{}
	room      chan struct{}
	ended     bool
	forgotten bool
}

// reader is one stream's place in the output.
type reader struct {
	at    uint64
	moved time.Time
	lost  bool
	wake  chan struct{}
	cut   func()
}

// progress says what a reader found.
type progress int

const (
	took progress = iota
	nothingYet
	finished
	leftBehind
)

func newOutput() *output { return &output{readers: make(map[*reader]struct{})} }

// attach adds a reader that begins with the oldest byte still kept. cut is called if the reader must be dropped.
func (o *output) attach(cut func()) (*reader, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.readers) >= maxReaders {
		return nil, connect.Errorf(connect.ResourceExhausted, "the process already has %d readers", maxReaders)
	}
	r := &reader{at: o.base, moved: time.Now(), wake: make(chan struct{}, 1), cut: cut}
	o.readers[r] = struct{}{}
	return r, nil
}

func (o *output) detach(r *reader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.readers, r)
	o.freed()
	o.release()
}

// next copies the bytes at the reader's place into buffer: at most one run of one kind.
func (o *output) next(r *reader, buffer []byte) (kind, int, progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case r.lost:
		return 0, 0, leftBehind
	case r.at == o.tip && o.ended:
		return 0, 0, finished
	case r.at == o.tip:
		return 0, 0, nothingYet
	}
	i := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].end > r.at })
	run := o.segments[i]
	n := min(int(run.end-r.at), len(buffer))
	from := int(r.at % uint64(len(o.ring)))
	first := copy(buffer[:n], o.ring[from:])
	copy(buffer[first:n], o.ring)
	r.at += uint64(n)
	r.moved = time.Now()
	o.freed()
	return run.kind, n, took
}

// write adds output and waits while a reader has not yet taken what it would overwrite.
func (o *output) write(k kind, data []byte) {
	for len(data) > 0 {
		n, wait := o.put(k, data)
		data = data[n:]
		if wait != nil {
			o.await(wait)
		}
	}
}

// put stores what fits now; with no room at all it returns a channel that closes when there may be some.
func (o *output) put(k kind, data []byte) (int, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return len(data), nil
	}
	oldest := o.slowest()
	n := min(len(data), o.space(k, oldest, len(data)))
	if n == 0 {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return 0, o.room
	}
	o.store(k, data[:n])
	for r := range o.readers {
		r.notify()
	}
	return n, nil
}

// slowest returns the offset that must be kept for the readers.
func (o *output) slowest() uint64 {
	oldest := o.tip
	for r := range o.readers {
		oldest = min(oldest, r.at)
	}
	return oldest
}

func (o *output) space(k kind, oldest uint64, want int) int {
	full := len(o.segments) >= maxSegments && o.segments[len(o.segments)-1].kind != k
	if full && o.segments[0].end > oldest && oldest < o.tip {
		return 0
	}
	o.grow(int(o.tip-o.base) + want)
	return len(o.ring) - int(o.tip-oldest)
}

// grow enlarges the ring until need bytes fit, as far as its own limit and that of all processes allow.
func (o *output) grow(need int) {
	size := max(len(o.ring), firstOutput)
	for size < need && size < keptOutput {
		size *= 2
	}
	more := int64(size - len(o.ring))
	if more == 0 {
		return
	}
	if kept.Add(more) > keptByAll {
		kept.Add(-more)
		if len(o.ring) > 0 {
			return
		}
		size = firstOutput
		kept.Add(firstOutput)
	}
	ring := make([]byte, size)
	for at := o.base; at < o.tip; {
		from := o.ring[at%uint64(len(o.ring)):]
		from = from[:min(len(from), int(o.tip-at))]
		at += uint64(copy(ring[at%uint64(size):], from))
	}
	o.ring = ring
}

func (o *output) store(k kind, data []byte) {
	for rest := data; len(rest) > 0; {
		n := copy(o.ring[o.tip%uint64(len(o.ring)):], rest)
		o.tip += uint64(n)
		rest = rest[n:]
	}
	if last := len(o.segments) - 1; last >= 0 && o.segments[last].kind == k {
		o.segments[last].end = o.tip
	} else {
		o.segments = append(o.segments, segment{o.tip, k})
	}
	if o.tip-o.base > uint64(len(o.ring)) {
		o.base = o.tip - uint64(len(o.ring))
	}
	if len(o.segments) > maxSegments {
		o.base = max(o.base, o.segments[0].end)
	}
	gone := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].end > o.base })
	o.segments = o.segments[gone:]
}

// await waits for room and drops readers that hold up others for too long.
func (o *output) await(room <-chan struct{}) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-room:
	case <-timer.C:
		o.dropStalled()
	}
}

func (o *output) dropStalled() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var last *reader
	waiting := false
	for r := range o.readers {
		waiting = waiting || r.at == o.tip
		if last == nil || r.at < last.at {
			last = r
		}
	}
	if !waiting || time.Since(last.moved) < stallLimit {
		return
	}
	last.lost = true
	delete(o.readers, last)
	last.notify()
	last.cut()
	o.freed()
}

// finish says that no output follows.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for r := range o.readers {
		r.notify()
	}
	o.freed()
}

// forget gives the memory back once the last reader is gone.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgotten = true
	o.release()
}

func (o *output) release() {
	if !o.forgotten || len(o.readers) > 0 {
		return
	}
	kept.Add(-int64(len(o.ring)))
	o.base = o.tip
	o.ring, o.segments = nil, nil
}

func (o *output) freed() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
