package connect

import (
	"context"
	"io"
	"net/http"
	"time"
)

// leftover is how long the rest of a request is waited for after its answer.
const leftover = 50 * time.Millisecond

// Conn is a client's connection. EndReading makes all further reads from it find its end.
type Conn interface{ EndReading() }

type connKey struct{}

// WithConn notes the connection that requests come from.
func WithConn(ctx context.Context, conn Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// readRest reads a request to its end beside the answer: only then net/http notices that the caller went away, and only
// then the next request may follow on the connection. The returned request is cancelled when the caller goes away. The
// returned function waits for the end of the request; a connection whose request is still open after the answer takes
// no other request.
func readRest(r *http.Request) (watched *http.Request, wait func()) {
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, MaxMessage)); err != nil {
			cancel()
		}
	}()
	return r.WithContext(ctx), func() {
		defer cancel()
		timer := time.NewTimer(leftover)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			if conn, known := r.Context().Value(connKey{}).(Conn); known {
				conn.EndReading()
				<-done
			}
		}
	}
}
