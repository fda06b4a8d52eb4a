// Package server puts the guest's services behind one HTTP/1.1 listener.
package server

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"gatehouse/guest/config"
	"gatehouse/guest/connect"
	"gatehouse/guest/files"
	"gatehouse/guest/filesystem"
	"gatehouse/guest/metrics"
	"gatehouse/guest/plain"
	"gatehouse/guest/ports"
	"gatehouse/guest/process"
	"gatehouse/guest/reaper"
	"gatehouse/guest/watch"
)

const (
	maxConnections = 512
	maxHeader      = 64 << 10
	headerTimeout  = 30 * time.Second
	healthPath     = "/health"
)

// routes has the handlers of paths, and that of tunnels, whose requests have no path, by the method.
type routes map[string]http.Handler

// New makes the server of a sandbox, which starts programs once network is closed.
// It tells what goes wrong inside to problems, a line at a time.
func New(c *config.Config, r *reaper.Reaper, network <-chan struct{}, problems io.Writer) *http.Server {
	all := routes{
		http.MethodConnect: ports.Tunnels(c.Network.Ports()),
		healthPath:         http.HandlerFunc(health),
		"/metrics":         &metrics.Meter{CPUs: c.CPUs, Memory: c.MemoryMiB << 20},
		"/envs":            http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain.JSON(w, http.StatusOK, c.Defaults()) }),
	}
	transfer := files.New(c)
	all["/files"] = transfer
	all["/files/compose"] = http.HandlerFunc(transfer.Compose)
	for path, handler := range process.New(c, r, network).Handlers() {
		all[path] = handler
	}
	for path, handler := range filesystem.New(c).Handlers() {
		all[path] = handler
	}
	for path, handler := range watch.New(c).Handlers() {
		all[path] = handler
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           &quiet{next: all},
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return connect.WithConn(ctx, conn.(*counted))
		},
		ErrorLog: log.New(problems, "", 0),
	}
}

// Serve answers on a listener until that is closed.
func Serve(s *http.Server, listener net.Listener) error {
	err := s.Serve(&bounded{Listener: listener, free: make(chan struct{}, maxConnections)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP finds the handler of a path.
func (all routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		all[http.MethodConnect].ServeHTTP(w, r)
		return
	}
	if handler, known := all[r.URL.Path]; known {
		handler.ServeHTTP(w, r)
		return
	}
	if connect.IsCall(r.URL.Path) {
		connect.WriteError(w, connect.Errorf(connect.Unimplemented, "no such call"))
		return
	}
	plain.Error(w, http.StatusNotFound, "no such path")
}

func health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		plain.Error(w, http.StatusMethodNotAllowed, "only GET is possible here")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}
