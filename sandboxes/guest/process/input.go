package process

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"gatehouse/guest/connect"
)

// maxTyping is how many calls may wait to write input to one process.
const maxTyping = 16

func (s *Service) sendInput(r *http.Request, request *inputRequest) (any, error) {
	p, err := s.table.find(request.Process, false)
	if err != nil {
		return nil, err
	}
	return connect.Empty, p.feed(r.Context(), request.Input)
}

func (s *Service) closeStdin(r *http.Request, request *connectRequest) (any, error) {
	p, err := s.table.find(request.Process, false)
	if err != nil {
		return nil, err
	}
	if p.master != nil {
		return nil, connect.Errorf(connect.FailedPrecondition, "a terminal's input cannot be closed, send ctrl-d instead")
	}
	if p.stdin == nil {
		return nil, connect.Errorf(connect.Internal, "process with pid %d has no stdin", p.pid)
	}
	release, err := p.take(r.Context())
	if err != nil {
		return nil, err
	}
	defer release()
	p.stdin.Close()
	return connect.Empty, nil
}

func (s *Service) streamInput(r *http.Request, next func(any) error) error {
	var p *process
	for {
		var request streamInputRequest
		err := next(&request)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if request.Start != nil {
			if p, err = s.table.find(request.Start.Process, false); err != nil {
				return err
			}
		}
		if request.Data == nil {
			continue
		}
		if p == nil {
			return connect.Errorf(connect.InvalidArgument, "the first message must be start")
		}
		if err := p.feed(r.Context(), request.Data.Input); err != nil {
			return err
		}
	}
}

// feed writes input and waits until the process has taken it into its pipe or terminal, at most as long as ctx lasts.
func (p *process) feed(ctx context.Context, given *input) error {
	target, data, err := p.route(given)
	if err != nil {
		return err
	}
	release, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	target.SetWriteDeadline(time.Time{})
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		target.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	defer func() {
		// The deadline must not reach the next writer.
		if !stop() {
			<-fired
		}
	}()
	written, err := target.Write(data)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return connect.Errorf(connect.AsError(ctx.Err()).Code, "the process took only %d of %d bytes of input", written, len(data))
	}
	return connect.Errorf(connect.Internal, "error writing to the process: %s", err)
}

func (p *process) route(given *input) (*os.File, []byte, error) {
	switch {
	case given == nil || (given.Stdin == nil) == (given.PTY == nil):
		return nil, nil, connect.Errorf(connect.InvalidArgument, "input: either stdin or pty must be given")
	case given.PTY != nil && p.master == nil:
		return nil, nil, connect.Errorf(connect.Internal, "process with pid %d has no terminal", p.pid)
	case given.PTY != nil:
		return p.master, *given.PTY, nil
	case p.master != nil:
		return nil, nil, connect.Errorf(connect.Internal, "process with pid %d has a terminal: send pty, not stdin", p.pid)
	case p.stdin == nil:
		return nil, nil, connect.Errorf(connect.Internal, "process with pid %d has no stdin", p.pid)
	}
	return p.stdin, *given.Stdin, nil
}

// take waits for the right to write input.
func (p *process) take(ctx context.Context) (release func(), err error) {
	if p.waiting.Add(1) > maxTyping {
		p.waiting.Add(-1)
		return nil, connect.Errorf(connect.ResourceExhausted, "%d calls already wait to write input", maxTyping)
	}
	defer p.waiting.Add(-1)
	select {
	case p.typing <- struct{}{}:
		return func() { <-p.typing }, nil
	case <-ctx.Done():
		return nil, connect.AsError(ctx.Err())
	}
}
