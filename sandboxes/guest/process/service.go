// Package process starts programs for callers and carries their input, output and end.
package process

import (
	"net/http"
	"os"
	"time"

	"gatehouse/guest/accounts"
	"gatehouse/guest/config"
	"gatehouse/guest/connect"
	"gatehouse/guest/reaper"
	"gatehouse/guest/threads"
)

const maxTag = 256

// Service answers the calls of process.Process.
type Service struct {
	config   *config.Config
	reaper   *reaper.Reaper
	table    *table
	badness  *badness
	defaults map[string]string
	// network is closed when programs find what the sandbox has of a network.
	network <-chan struct{}
}

// New makes the service of a sandbox. No program is started before network is closed.
func New(c *config.Config, r *reaper.Reaper, network <-chan struct{}) *Service {
	return &Service{config: c, reaper: r, table: newTable(), badness: openBadness(), defaults: c.Defaults(), network: network}
}

// Handlers returns a handler for each call by its URL path.
func (s *Service) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"/process.Process/Start":       connect.ServerStream(s.start),
		"/process.Process/Connect":     connect.ServerStream(s.connect),
		"/process.Process/List":        connect.Unary(s.list),
		"/process.Process/Update":      connect.Unary(s.update),
		"/process.Process/SendInput":   connect.Unary(s.sendInput),
		"/process.Process/CloseStdin":  connect.Unary(s.closeStdin),
		"/process.Process/SendSignal":  connect.Unary(s.sendSignal),
		"/process.Process/StreamInput": connect.ClientStream(s.streamInput),
	}
}

func (s *Service) start(r *http.Request, request *startRequest, stream *connect.Stream) error {
	timeout, err := connect.Timeout(r)
	if err != nil {
		return err
	}
	p, place, err := s.launch(r, request, stream, timeout)
	if err != nil {
		return err
	}
	defer p.output.detach(place)
	follower := follower{process: p, place: place, stream: stream, timeout: timeout, owns: true}
	return follower.run(r)
}

func (s *Service) connect(r *http.Request, request *connectRequest, stream *connect.Stream) error {
	timeout, err := connect.Timeout(r)
	if err != nil {
		return err
	}
	p, err := s.table.find(request.Process, true)
	if err != nil {
		return err
	}
	place, err := p.output.attach(cutter(stream))
	if err != nil {
		return err
	}
	defer p.output.detach(place)
	follower := follower{process: p, place: place, stream: stream, timeout: timeout}
	return follower.run(r)
}

func (s *Service) list(*http.Request, *listRequest) (any, error) {
	all := []listed{}
	for _, p := range s.table.list() {
		all = append(all, listed{Config: p.config, PID: p.pid, Tag: p.tag})
	}
	return map[string]any{"processes": all}, nil
}

func (s *Service) update(_ *http.Request, request *updateRequest) (any, error) {
	p, err := s.table.find(request.Process, false)
	if err != nil {
		return nil, err
	}
	screen, err := request.PTY.size()
	if err != nil {
		return nil, err
	}
	if request.PTY == nil {
		return connect.Empty, nil
	}
	if p.master == nil {
		return nil, connect.Errorf(connect.FailedPrecondition, "process with pid %d has no terminal", p.pid)
	}
	return connect.Empty, resize(p.master, screen)
}

// launch starts the process of a request with a reader attached, so that not a byte of its output is missed.
func (s *Service) launch(
	r *http.Request, request *startRequest, stream *connect.Stream, timeout time.Duration,
) (*process, *reader, error) {
	if request.Tag != nil && len(*request.Tag) > maxTag {
		return nil, nil, connect.Errorf(connect.InvalidArgument, "tag is longer than %d bytes", maxTag)
	}
	screen, err := request.PTY.size()
	if err != nil {
		return nil, nil, err
	}
	threads.Warm()
	<-s.network
	var plan *plan
	threads.Disk(func() {
		var user *accounts.User
		if user, err = accounts.OfCall(r, s.config); err == nil {
			plan, err = prepare(request.Process, user, s.defaults)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	p := &process{
		tag: request.Tag, config: *request.Process, weight: request.Process.weight(),
		output: newOutput(), typing: make(chan struct{}, 1),
	}
	place, err := p.output.attach(cutter(stream))
	if err != nil {
		return nil, nil, err
	}
	if err := s.table.reserve(p.weight); err != nil {
		return nil, nil, err
	}
	if err := s.execute(p, plan, request, screen); err != nil {
		s.table.unreserve(p.weight)
		return nil, nil, err
	}
	s.run(p, timeout)
	return p, place, nil
}

func (s *Service) execute(p *process, plan *plan, request *startRequest, screen size) (err error) {
	var ends *endpoints
	if request.PTY != nil {
		ends, err = openTerminalEnds(screen, plan.user.UID)
	} else {
		ends, err = openPipes(request.Stdin == nil || *request.Stdin)
	}
	if err != nil {
		return err
	}
	p.stdin, p.master, p.pumps = ends.stdin, ends.master, ends.pumps
	p.child, err = s.reaper.Fork(func() (int, error) { return s.badness.fork(plan, ends.theirs, p.master != nil) })
	if err != nil {
		ends.close()
		return plan.startError(err)
	}
	ends.closeTheirs()
	p.pid = p.child.PID
	return nil
}

// run lets a process live until it ends by itself or for timeout (0: without a limit); pauses do not count.
func (s *Service) run(p *process, timeout time.Duration) {
	s.table.add(p)
	stop := func() {}
	if timeout > 0 {
		stop = after(timeout, func() {
			p.expired.Store(true)
			s.kill(p)
		}).stop
	}
	go p.watch(func() {
		stop()
		s.table.end(p)
	})
}

// cutter ends a stream whose caller takes nothing, within the time that a notice needs.
func cutter(stream *connect.Stream) func() {
	return func() { stream.Cut(time.Now()) }
}

func resize(master *os.File, screen size) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = setSize(int(fd), screen) }); err != nil {
		return connect.Errorf(connect.NotFound, "the terminal is closed")
	}
	return failed
}
