package server

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const refusalBody = `{"code":503,"message":"too many open connections"}`

var refusal = []byte("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n" +
	"X-Gatehouse-Reason: too_many_connections\r\nConnection: close\r\n" +
	"Content-Length: " + strconv.Itoa(len(refusalBody)) + "\r\n\r\n" + refusalBody)

// bounded refuses connections beyond a number, at once, so that nobody waits in the dark.
type bounded struct {
	net.Listener
	free chan struct{}
}

// Accept returns the next connection that there is a place for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.free <- struct{}{}:
			return &counted{UnixConn: conn.(*net.UnixConn), leave: sync.OnceFunc(func() { <-b.free })}, nil
		default:
			conn.Write(refusal)
			conn.Close()
		}
	}
}

// counted gives its place back when it is closed.
type counted struct {
	*net.UnixConn
	leave func()
	over  atomic.Bool
}

// EndReading makes this and all further reads find the end of the connection.
func (c *counted) EndReading() {
	c.over.Store(true)
	c.SetReadDeadline(time.Unix(1, 0))
}

// Read reads as the connection does, until EndReading.
func (c *counted) Read(b []byte) (int, error) {
	if c.over.Load() {
		return 0, io.EOF
	}
	n, err := c.UnixConn.Read(b)
	if n == 0 && c.over.Load() {
		return 0, io.EOF
	}
	return n, err
}

// Close closes the connection.
func (c *counted) Close() error {
	defer c.leave()
	return c.UnixConn.Close()
}
