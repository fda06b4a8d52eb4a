// Package relay carries bytes both ways between two connections.
package relay

import (
	"bufio"
	"net"
	"sync"
	"syscall"
)

const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// Conn is a connection whose two directions end one by one.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// Both copies both ways until both directions have ended, or one has failed; then both connections are reset. What has
// been read ahead from left goes first. The caller closes.
func Both(left Conn, ahead *bufio.Reader, right Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if forward(left, nil, right) != nil {
			Reset(left)
			Reset(right)
		}
	}()
	if forward(right, ahead, left) != nil {
		Reset(left)
		Reset(right)
	}
	<-done
}

// Reset closes a connection in a way that its peer cannot take for an orderly end, as far as the kind of connection can
// tell the two apart.
func Reset(conn net.Conn) {
	if tcp, is := conn.(*net.TCPConn); is {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// forward copies ahead and then source to target, and passes the end on.
func forward(target Conn, ahead *bufio.Reader, source Conn) error {
	if ahead != nil && ahead.Buffered() > 0 {
		early, _ := ahead.Peek(ahead.Buffered())
		if _, err := target.Write(early); err != nil {
			return err
		}
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return err
	}
	for {
		buffer, n, err := readWhenReady(raw)
		if err != nil {
			return err
		}
		if n == 0 {
			return target.CloseWrite()
		}
		_, err = target.Write((*buffer)[:n])
		buffers.Put(buffer)
		if err != nil {
			return err
		}
	}
}

// readWhenReady waits without holding a buffer, so that silent connections cost none.
func readWhenReady(raw syscall.RawConn) (buffer *[]byte, n int, err error) {
	rawErr := raw.Read(func(fd uintptr) bool {
		buffer = buffers.Get().(*[]byte)
		n, err = syscall.Read(int(fd), *buffer)
		for err == syscall.EINTR {
			n, err = syscall.Read(int(fd), *buffer)
		}
		if n > 0 {
			return true
		}
		buffers.Put(buffer)
		return err != syscall.EAGAIN
	})
	if rawErr != nil {
		return nil, 0, rawErr
	}
	return buffer, max(n, 0), err
}
