// Package watch tells callers what changes in directories.
package watch

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"gatehouse/guest/accounts"
	"gatehouse/guest/config"
	"gatehouse/guest/connect"
	"gatehouse/guest/filesystem"
	"gatehouse/guest/paths"
	"gatehouse/guest/threads"
)

const (
	// maxWatchers is how many directories may be watched, by streams and by watchers that are asked.
	maxWatchers = 32
	// cutAfter is how long a caller that takes nothing may still hold its stream when its time is over.
	cutAfter = 2 * time.Second
)

// Service answers the watching calls of filesystem.Filesystem.
type Service struct {
	config *config.Config

	mu    sync.Mutex
	count int
	asked map[string]*mailbox
}

// New makes the service of a sandbox.
func New(c *config.Config) *Service { return &Service{config: c, asked: make(map[string]*mailbox)} }

// Handlers returns a handler for each call by its URL path.
func (s *Service) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"/filesystem.Filesystem/WatchDir":         connect.ServerStream(s.watchDir),
		"/filesystem.Filesystem/CreateWatcher":    connect.Unary(s.create),
		"/filesystem.Filesystem/GetWatcherEvents": connect.Unary(s.events),
		"/filesystem.Filesystem/RemoveWatcher":    connect.Unary(s.remove),
	}
}

type watcherRequest struct {
	ID    string `json:"watcherId"`
	IDToo string `json:"watcher_id"`
}

// id is the watcher's; the protocol's JSON may use the field's own name as well.
func (r *watcherRequest) id() string { return cmp.Or(r.ID, r.IDToo) }

func (s *Service) watchDir(r *http.Request, wanted *request, stream *connect.Stream) error {
	timeout, err := connect.Timeout(r)
	if err != nil {
		return err
	}
	var over <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		over = timer.C
		stream.Cut(time.Now().Add(timeout + cutAfter))
		defer stream.Cut(time.Time{})
	}
	w, err := s.open(r, wanted)
	if err != nil {
		return err
	}
	defer s.leave()
	events, ended := make(chan [][]byte), make(chan error, 1)
	go func() {
		ended <- w.run(func(some [][]byte) error {
			select {
			case events <- some:
				return nil
			case <-r.Context().Done():
				return r.Context().Err()
			}
		})
	}()
	defer w.close()
	return send(r, stream, events, ended, over)
}

// send passes events on until their end, or that of the caller or its time.
func send(r *http.Request, stream *connect.Stream, events <-chan [][]byte, ended <-chan error, over <-chan time.Time) error {
	if err := stream.Send(literal(`{"start":{}}`)); err != nil {
		return err
	}
	silence := connect.Keepalive(r)
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	for {
		var err error
		select {
		case some := <-events:
			err = sendAll(stream, some)
		case <-quiet.C:
			err = stream.Send(literal(`{"keepalive":{}}`))
		case err := <-ended:
			return err
		case <-over:
			return connect.Errorf(connect.DeadlineExceeded, "the time limit of the watch is over")
		case <-r.Context().Done():
			return r.Context().Err()
		}
		if err != nil {
			return err
		}
		quiet.Reset(silence)
	}
}

func sendAll(stream *connect.Stream, events [][]byte) error {
	for _, text := range events {
		err := stream.Queue(func(b []byte) []byte {
			return append(append(append(b, `{"filesystem":`...), text...), '}')
		})
		if err != nil {
			return err
		}
	}
	return stream.Flush()
}

func literal(text string) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, text...) }
}

func (s *Service) create(r *http.Request, wanted *request) (any, error) {
	w, err := s.open(r, wanted)
	if err != nil {
		return nil, err
	}
	box := &mailbox{watcher: w}
	id := fmt.Sprintf("w%016x", rand.Uint64())
	s.mu.Lock()
	s.asked[id] = box
	s.mu.Unlock()
	go w.run(box.put)
	return map[string]string{"watcherId": id}, nil
}

func (s *Service) events(_ *http.Request, wanted *watcherRequest) (any, error) {
	s.mu.Lock()
	box := s.asked[wanted.id()]
	s.mu.Unlock()
	if box == nil {
		return nil, noWatcher(wanted.id())
	}
	return box.empty()
}

func (s *Service) remove(_ *http.Request, wanted *watcherRequest) (any, error) {
	s.mu.Lock()
	box := s.asked[wanted.id()]
	delete(s.asked, wanted.id())
	s.mu.Unlock()
	if box == nil {
		return nil, noWatcher(wanted.id())
	}
	box.watcher.close()
	s.leave()
	return connect.Empty, nil
}

func noWatcher(id string) error {
	return connect.Errorf(connect.NotFound, "watcher with id %s not found", paths.Shown(id))
}

// open takes a place for a watcher, which leave gives back, and begins to watch.
func (s *Service) open(r *http.Request, wanted *request) (w *watcher, err error) {
	s.mu.Lock()
	s.count++
	full := s.count > maxWatchers
	s.mu.Unlock()
	if full {
		s.leave()
		return nil, connect.Errorf(connect.ResourceExhausted, "%d watchers are there already: remove some", maxWatchers)
	}
	threads.Disk(func() {
		var user *accounts.User
		var path string
		if user, err = accounts.OfCall(r, s.config); err != nil {
			return
		}
		if path, err = filesystem.Resolve("path", wanted.Path, user); err == nil {
			w, err = open(path, wanted)
		}
	})
	if err != nil {
		s.leave()
		return nil, filesystem.Coded(err)
	}
	return w, nil
}

func (s *Service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
}
