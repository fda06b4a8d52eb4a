package process

import (
	"os"
	"sync"
	"syscall"
)

const (
	pipeChunk     = 32 << 10
	terminalChunk = 16 << 10
)

var chunks = sync.Pool{New: func() any { b := make([]byte, pipeChunk); return &b }}

// pump moves what a process writes into its output until the last writer is gone.
type pump struct {
	file *os.File
	kind kind
	done chan struct{}

	mu     sync.Mutex
	taken  uint64
	stored uint64
	// goal is the position at which reached is closed, if somebody waits for it.
	goal    uint64
	reached chan struct{}
}

func newPump(file *os.File, k kind) *pump {
	return &pump{file: file, kind: k, done: make(chan struct{})}
}

func (p *pump) run(into *output) {
	defer close(p.done)
	defer p.file.Close()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		chunk, n := p.read(raw)
		if n <= 0 {
			return
		}
		into.write(p.kind, (*chunk)[:n])
		chunks.Put(chunk)
		p.advance(n)
	}
}

func (p *pump) advance(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored += uint64(n)
	if p.reached != nil && p.stored >= p.goal {
		close(p.reached)
		p.reached = nil
	}
}

// read waits for bytes without holding a buffer, so that a silent process costs none.
func (p *pump) read(raw syscall.RawConn) (chunk *[]byte, n int) {
	err := raw.Read(func(fd uintptr) bool {
		chunk = chunks.Get().(*[]byte)
		var err error
		n, err = p.readNow(int(fd), *chunk)
		if n > 0 {
			return true
		}
		chunks.Put(chunk)
		return err != syscall.EAGAIN
	})
	if err != nil {
		return nil, 0
	}
	return chunk, n
}

func (p *pump) readNow(fd int, chunk []byte) (int, error) {
	if p.kind == terminal {
		chunk = chunk[:terminalChunk]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		n, err := syscall.Read(fd, chunk)
		if err == syscall.EINTR {
			continue
		}
		if n > 0 {
			p.taken += uint64(n)
		}
		return n, err
	}
}

// backlog returns the position up to which bytes had been written when it was called.
func (p *pump) backlog() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := 0
	if raw, err := p.file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { waiting = unread(int(fd)) })
	}
	return p.taken + uint64(waiting)
}

// wait returns when everything up to the position is in the output, or nothing more will come.
func (p *pump) wait(position uint64) {
	p.mu.Lock()
	if p.stored >= position {
		p.mu.Unlock()
		return
	}
	reached := make(chan struct{})
	p.goal, p.reached = position, reached
	p.mu.Unlock()
	select {
	case <-reached:
	case <-p.done:
	}
}
