// Package ports connects the gateway with servers that listen inside the sandbox.
package ports

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"

	"gatehouse/guest/plain"
	"gatehouse/guest/relay"
)

const (
	dialTimeout = 5 * time.Second
	reason      = "X-Gatehouse-Reason"
)

// Tunnels leads to all ports but these, which are the guest's own and closed to whoever comes from outside: they would
// be a way through the sandbox to wherever it may connect to.
type Tunnels []int

// ServeHTTP answers `CONNECT 127.0.0.1:<port>` with a raw connection to that port on the sandbox's own addresses.
func (own Tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.RequestURI)
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || number == 0 || (host != "127.0.0.1" && host != "::1" && host != "localhost") {
		plain.Error(w, http.StatusBadRequest, "only 127.0.0.1:<port> can be connected to")
		return
	}
	server, err := own.dial(int(number))
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
	relay.Both(client.(relay.Conn), buffered.Reader, server)
}

func (own Tunnels) dial(port int) (*net.TCPConn, error) {
	if slices.Contains(own, port) {
		return nil, syscall.ECONNREFUSED
	}
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	server, err := dialer.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.ECONNREFUSED) {
		server, err = dialer.Dial("tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
	}
	if err != nil {
		return nil, err
	}
	return server.(*net.TCPConn), nil
}

func why(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "port_timeout"
	}
	return "port_closed"
}
