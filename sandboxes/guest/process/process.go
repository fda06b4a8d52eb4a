package process

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"gatehouse/guest/connect"
	"gatehouse/guest/reaper"
)

// drainLimit is how long the end event waits for a descendant that keeps the output open after the process ended.
const drainLimit = time.Second

// process is one that was started for a caller.
type process struct {
	pid    int
	tag    *string
	config settings
	weight int
	child  *reaper.Child
	output *output
	pumps  []*pump

	// stdin is nil for a process without input or with a terminal, master is nil without a terminal.
	stdin  *os.File
	master *os.File
	// typing is held by the one call that writes input.
	typing  chan struct{}
	waiting atomic.Int32

	// status is how it ended; valid once output has ended. expired says that it was killed at its time limit, exited
	// that it has ended although its output may not have.
	status  syscall.WaitStatus
	expired atomic.Bool
	exited  atomic.Bool
	endedAt time.Time
}

// endpoints are the ends of a process's standard streams: three for the process, the others for the guest.
type endpoints struct {
	theirs [3]*os.File
	stdin  *os.File
	master *os.File
	pumps  []*pump
}

func openPipes(withStdin bool) (*endpoints, error) {
	e := &endpoints{}
	var err error
	if withStdin {
		e.theirs[0], e.stdin, err = pipe(false)
	} else {
		e.theirs[0], err = os.Open(os.DevNull)
	}
	for i, k := range []kind{stdout, stderr} {
		if err != nil {
			break
		}
		var ours *os.File
		if ours, e.theirs[i+1], err = pipe(true); err == nil {
			e.pumps = append(e.pumps, newPump(ours, k))
		}
	}
	if err != nil {
		e.close()
		return nil, connect.Errorf(connect.ResourceExhausted, "cannot open pipes: %s", err)
	}
	return e, nil
}

// pipe makes one whose guest's end (reading or writing) waits in the poller and whose other end blocks as usual.
func pipe(guestReads bool) (reading, writing *os.File, err error) {
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	ours := ends[1]
	if guestReads {
		ours = ends[0]
	}
	syscall.SetNonblock(ours, true)
	return os.NewFile(uintptr(ends[0]), "pipe"), os.NewFile(uintptr(ends[1]), "pipe"), nil
}

func openTerminalEnds(screen size, uid int) (*endpoints, error) {
	master, slave, err := openTerminal(screen, uid)
	if err != nil {
		return nil, connect.Errorf(connect.ResourceExhausted, "%s", err)
	}
	return &endpoints{
		theirs: [3]*os.File{slave, slave, slave}, master: master, pumps: []*pump{newPump(master, terminal)},
	}, nil
}

func (e *endpoints) closeTheirs() {
	for _, file := range e.theirs {
		if file != nil {
			file.Close()
		}
	}
}

func (e *endpoints) close() {
	e.closeTheirs()
	if e.stdin != nil {
		e.stdin.Close()
	}
	for _, p := range e.pumps {
		p.file.Close()
	}
}

// watch runs until the process has ended and its output is read, then calls ended.
func (p *process) watch(ended func()) {
	for _, pump := range p.pumps {
		go pump.run(p.output)
	}
	p.status = <-p.child.Status()
	p.exited.Store(true)
	p.drain()
	p.output.finish()
	if p.stdin != nil {
		p.stdin.Close()
	}
	if p.master != nil {
		p.master.Close()
	}
	ended()
}

// drain waits until all writers of the output are gone, but for descendants that keep it open only for drainLimit.
// What the process itself had written is waited for without a limit: it is in the pipe already.
func (p *process) drain() {
	backlogs := make([]uint64, len(p.pumps))
	for i, pump := range p.pumps {
		backlogs[i] = pump.backlog()
	}
	over := time.NewTimer(drainLimit)
	defer over.Stop()
	for _, pump := range p.pumps {
		select {
		case <-pump.done:
		case <-over.C:
			over.Reset(0)
		}
	}
	for i, pump := range p.pumps {
		pump.wait(backlogs[i])
	}
}
