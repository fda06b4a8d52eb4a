package network

import (
	"io"
	"net"
	"strconv"
	"time"

	"gatehouse/guest/egress"
	"gatehouse/guest/relay"
)

const (
	// Of a refused request so much is read at most, so that the client gets to read why.
	drainBytes = 64 << 10
	drainTime  = 2 * time.Second
)

var (
	unavailable = answer("egress_unavailable", "The way out of this sandbox is not available at the moment. Try again.")
	tooMany     = answer("too_many_connections", "This sandbox has too many open connections to its proxy.")
)

// answer looks like the refusals of the host: the reason is in the status line, too, which is what clients show.
func answer(reason, message string) []byte {
	body := `{"reason": "` + reason + `", "message": "` + message + "\"}\n"
	return []byte("HTTP/1.1 503 Service Unavailable (network: " + reason + ")\r\nContent-Type: application/json\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\nGatehouse-Reason: " + reason + "\r\n" +
		"Retry-After: 1\r\nConnection: close\r\n\r\n" + body)
}

// proxy passes connections on to the way out as they are: the host is the proxy.
type proxy struct{ way egress.Way }

func (p *proxy) serve(client *net.TCPConn) {
	defer client.Close()
	out, err := p.way.Dial()
	if err != nil {
		decline(client)
		return
	}
	defer out.Close()
	relay.Both(out, nil, client)
}

// decline answers and then reads on for a while: what is left unread would reset the connection, and the client might
// lose the answer.
func decline(client *net.TCPConn) {
	client.SetDeadline(time.Now().Add(drainTime))
	if _, err := client.Write(unavailable); err != nil {
		return
	}
	client.CloseWrite()
	io.CopyN(io.Discard, client, drainBytes)
}

func (p *proxy) refuse(client *net.TCPConn) {
	client.Write(tooMany)
	client.Close()
}
