// Package ports connects the gateway with servers that listen inside the sandbox.
package ports

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gatehouse/guest/plain"
)

const (
	dialTimeout = 5 * time.Second
	bufferSize  = 32 << 10
	reason      = "X-Gatehouse-Reason"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// Connect answers `CONNECT 127.0.0.1:<port>` with a raw connection to that port on the sandbox's own addresses.
func Connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.RequestURI)
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || number == 0 || (host != "127.0.0.1" && host != "::1" && host != "localhost") {
		plain.Error(w, http.StatusBadRequest, "only 127.0.0.1:<port> can be connected to")
		return
	}
	server, err := dial(strconv.FormatUint(number, 10))
	if err != nil {
		w.Header().Set(reason, why(err))
		plain.Error(w, http.StatusBadGateway, "the port is not open")
		return
	}
	defer server.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		plain.Error(w, http.StatusInternalServerError, "the connection cannot be taken over")
		return
	}
	defer client.Close()
	client.SetDeadline(time.Time{})
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	relay(client, buffered.Reader, server)
}

func dial(port string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	server, err := dialer.Dial("tcp4", "127.0.0.1:"+port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return dialer.Dial("tcp6", "[::1]:"+port)
	}
	return server, err
}

func why(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "port_timeout"
	}
	return "port_closed"
}

// relay copies both ways until both directions have ended, or one has failed.
func relay(client net.Conn, ahead *bufio.Reader, server net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if forward(client, nil, server) != nil {
			client.Close()
			server.Close()
		}
	}()
	if forward(server, ahead, client) != nil {
		client.Close()
		server.Close()
	}
	<-done
}

// forward copies ahead and then source to target, and passes the end on.
func forward(target net.Conn, ahead *bufio.Reader, source net.Conn) error {
	if ahead != nil && ahead.Buffered() > 0 {
		early, _ := ahead.Peek(ahead.Buffered())
		if _, err := target.Write(early); err != nil {
			return err
		}
	}
	raw, err := source.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	for {
		buffer, n, err := readWhenReady(raw)
		if err != nil {
			return err
		}
		if n == 0 {
			return target.(interface{ CloseWrite() error }).CloseWrite()
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
