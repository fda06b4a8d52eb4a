package network

import (
	"errors"
	"net"
	"time"

	"gatehouse/guest/idle"
	"gatehouse/guest/relay"
)

// acceptPause is how long nothing is accepted after a failure, such as having no descriptor left.
const acceptPause = 50 * time.Millisecond

// open serves connections to a port, each in a goroutine of its own, and refuses those beyond a number at once.
// Either function closes the connection.
func open(port, places int, serve, refuse func(*net.TCPConn)) error {
	listener, err := listenTCP(port)
	if err != nil {
		return err
	}
	go accept(listener, make(chan struct{}, places), serve, refuse)
	return nil
}

func accept(listener *net.TCPListener, taken chan struct{}, serve, refuse func(*net.TCPConn)) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		select {
		case taken <- struct{}{}:
			go func() {
				defer func() { <-taken }()
				defer idle.Ended()
				serve(conn)
			}()
		default:
			refuse(conn)
		}
	}
}

// reset is how a port that speaks no protocol of its own says no.
func reset(conn *net.TCPConn) { relay.Reset(conn) }
