package process

import (
	"net/http"
	"time"

	"gatehouse/guest/connect"
)

const (
	// cutAfter is how long a caller that takes nothing may still hold its stream when its time is over.
	cutAfter = 2 * time.Second
	// startPatience is how long the news of a start waits for company: the whole story of a short command is one write.
	startPatience = 2 * time.Millisecond
)

// follower is one caller's stream of a process.
type follower struct {
	process *process
	place   *reader
	stream  *connect.Stream
	// timeout ends the stream; 0 means never. owns says that the process's life ends with it.
	timeout time.Duration
	owns    bool
}

// run sends start, the output and the end, or stops earlier: when the caller is gone, its time is over, or it was too slow.
func (f *follower) run(r *http.Request) error {
	var over <-chan time.Time
	if f.timeout > 0 {
		timer := time.NewTimer(f.timeout)
		defer timer.Stop()
		over = timer.C
		f.stream.Cut(time.Now().Add(f.timeout + cutAfter))
		defer f.stream.Cut(time.Time{})
	}
	silence := connect.Keepalive(r)
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	if err := f.stream.Queue(func(b []byte) []byte { return appendStart(b, f.process.pid) }); err != nil {
		return err
	}
	started := time.NewTimer(startPatience)
	defer started.Stop()
	for {
		found, err := f.relay()
		if found == finished || err != nil {
			return err
		}
		wake := f.place.wake
		if found == took {
			quiet.Reset(silence)
			wake = alreadyAwake
		}
		select {
		case <-over:
			return f.timeIsOver()
		case <-r.Context().Done():
			return r.Context().Err()
		default:
		}
		select {
		case <-wake:
		case <-started.C:
			if err := f.stream.Flush(); err != nil {
				return err
			}
		case <-quiet.C:
			if err := f.stream.Send(appendKeepalive); err != nil {
				return err
			}
			quiet.Reset(silence)
		case <-over:
			return f.timeIsOver()
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

var alreadyAwake = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// relay sends the next piece, if there is one.
func (f *follower) relay() (progress, error) {
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	k, n, found := f.process.output.next(f.place, *chunk)
	switch found {
	case took:
		return took, f.stream.Send(func(b []byte) []byte { return appendData(b, k, (*chunk)[:n]) })
	case finished:
		if f.owns && f.process.expired.Load() {
			return finished, f.timeIsOver()
		}
		// The end of the stream follows at once and takes it along.
		return finished, f.stream.Queue(func(b []byte) []byte { return appendEnd(b, f.process.status) })
	case leftBehind:
		f.stream.Cut(time.Now().Add(cutAfter))
		return leftBehind, connect.Errorf(connect.DataLoss, "this reader was too slow for the others of the same process")
	}
	return nothingYet, nil
}

func (f *follower) timeIsOver() error {
	return connect.Errorf(connect.DeadlineExceeded, "the time limit of %s is over", f.timeout)
}
