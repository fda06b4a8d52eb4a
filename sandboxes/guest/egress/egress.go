// Package egress speaks with the one way out of the sandbox: a unix socket, behind which the host decides.
package egress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// connectTimeout is longer than the host takes to resolve a name and try its addresses.
	connectTimeout = 45 * time.Second
	nameTimeout    = 5 * time.Second
	// headBuffer holds an answer's head, and what a server says at once.
	headBuffer = 1 << 10
	maxHead    = 16 << 10
)

// Way is the path of the socket.
type Way string

// Dial connects to the socket.
func (w Way) Dial() (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: string(w), Net: "unix"})
}

// Connect asks for a connection to a target that a program named by its address alone. It returns the connection and
// what has already been read from it, or why there is none.
func (w Way) Connect(target string) (*net.UnixConn, *bufio.Reader, error) {
	conn, err := w.Dial()
	if err != nil {
		return nil, nil, err
	}
	request := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nGatehouse-Via: transparent\r\n\r\n"
	status, ahead, err := ask(conn, http.MethodConnect, request, connectTimeout)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the connection to %s was refused with %d", target, status)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, ahead, nil
}

// MayResolve asks whether programs may know a name. The name may hold any byte.
func (w Way) MayResolve(name string) (bool, error) {
	conn, err := w.Dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	request := "GET /v1/names/" + url.PathEscape(name) + " HTTP/1.1\r\nHost: egress\r\nConnection: close\r\n\r\n"
	status, _, err := ask(conn, http.MethodGet, request, nameTimeout)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusNoContent:
		return true, nil
	case status == http.StatusForbidden, status == http.StatusBadRequest:
		return false, nil
	}
	return false, fmt.Errorf("a question for a name was answered with %d", status)
}

func ask(conn net.Conn, method, request string, patience time.Duration) (int, *bufio.Reader, error) {
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, nil, err
	}
	reader := bufio.NewReaderSize(io.LimitReader(conn, maxHead), headBuffer)
	response, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		return 0, nil, err
	}
	return response.StatusCode, reader, nil
}
