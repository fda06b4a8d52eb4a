package tests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

const proxyAddress = "127.0.0.1:3128"

// connect asks the proxy at an address for a tunnel.
func (g *guest) connect(proxy, target string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	g.t.Helper()
	conn := g.dial(proxy)
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	check(g.t, err)
	return conn, reader, response
}

func expectAsked(t *testing.T, way *standIn, want ...string) {
	t.Helper()
	equal(t, "asked", strings.Join(way.requests(), ", "), strings.Join(want, ", "))
}

// expectReset reads until the connection fails as one does that was not ended in good order.
func expectReset(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("ended with %v, not with a reset", err)
	}
}

// expectReset connects to an address and is reset, while it connects or right after.
func (g *guest) expectReset(address string) {
	g.t.Helper()
	conn, err := g.tryDial("tcp4", address)
	if err == nil {
		expectReset(g.t, conn)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		g.t.Fatal(err)
	}
}

func TestTheProxyPassesATunnelOn(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["api.example.test:443"] = echoes
	conn, reader, response := g.connect(proxyAddress, "api.example.test:443")
	equal(t, "status", response.StatusCode, 200)
	data := strings.Repeat("to and fro\x00", 300_000)
	go func() {
		io.WriteString(conn, data)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(reader)
	check(t, err)
	equal(t, "same bytes", string(got) == data, true)
	expectAsked(t, way, "CONNECT api.example.test:443")
}

func TestTheProxyPassesARequestOnAsItIs(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["http://plain.example.test/a"] = func(conn *net.UnixConn, _ io.Reader) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	}
	done := g.start(shell("curl -sS -x http://127.0.0.1:3128 http://plain.example.test/a")).finish()
	equal(t, "output", done.stdout, "hello")
	expectAsked(t, way, "GET http://plain.example.test/a")
}

func TestARefusalReachesTheClientOfTheProxy(t *testing.T) {
	g, _ := startNetworked(t, "proxy")
	_, _, response := g.connect(proxyAddress, "evil.example.test:443")
	equal(t, "status", response.StatusCode, 403)
	body, err := io.ReadAll(response.Body)
	check(t, err)
	equal(t, "body", string(body), `{"reason":"no_rule"}`)
}

func TestTheServersHalfEndLeavesTheOtherHalfOpen(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	heard := make(chan string, 1)
	way.hosts["half.example.test:443"] = func(conn *net.UnixConn, from io.Reader) {
		io.WriteString(conn, "bye")
		conn.CloseWrite()
		rest, _ := io.ReadAll(from)
		heard <- string(rest)
	}
	conn, reader, _ := g.connect(proxyAddress, "half.example.test:443")
	got, err := io.ReadAll(reader)
	check(t, err)
	equal(t, "bytes", string(got), "bye")
	io.WriteString(conn, "still here")
	conn.CloseWrite()
	equal(t, "heard", <-heard, "still here")
}

func TestAFlowThatWasCutIsNotTakenForOneThatEnded(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["cut.example.test:443"] = func(conn *net.UnixConn, from io.Reader) {
		io.WriteString(conn, "half of it")
		io.ReadFull(from, make([]byte, 1))
		// The rest of what the client sent is left unread: that is how a unix socket tells a cut.
	}
	conn, _, response := g.connect(proxyAddress, "cut.example.test:443")
	equal(t, "status", response.StatusCode, 200)
	conn.Write(bytes.Repeat([]byte("x"), 100_000))
	expectReset(t, conn)
}

func TestWithoutAWayOutTheProxySaysSoAndRecoversByItself(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["api.example.test:443"] = echoes
	way.stop()
	_, _, response := g.connect(proxyAddress, "api.example.test:443")
	equal(t, "status", response.StatusCode, 503)
	equal(t, "line", response.Status, "503 Service Unavailable (network: egress_unavailable)")
	equal(t, "reason", response.Header.Get("Gatehouse-Reason"), "egress_unavailable")
	body, err := io.ReadAll(response.Body)
	check(t, err)
	equal(t, "body", string(body), `{"reason": "egress_unavailable", "message": "The way out of this sandbox is not available `+
		`at the moment. Try again."}`+"\n")
	way.listen()
	_, _, response = g.connect(proxyAddress, "api.example.test:443")
	equal(t, "status", response.StatusCode, 200)
}

func TestALargeRequestGetsToReadThatThereIsNoWayOut(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.stop()
	done := g.start(shell("head -c 50000 /dev/zero | curl -sS -o /dev/null -w '%{http_code}' -x http://127.0.0.1:3128 --data-binary @- http://a.test/")).finish()
	equal(t, "status", done.stdout, "503")
}

func TestTooManyConnectionsToTheProxyAreRefusedAndFreeTheirPlaces(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["api.example.test:443"] = echoes
	before := g.anonymous()
	var silent []*net.TCPConn
	g.inside(func() {
		for range 512 {
			conn, err := net.Dial("tcp4", proxyAddress)
			check(t, err)
			silent = append(silent, conn.(*net.TCPConn))
		}
	})
	eventually(t, "all hold a place", func() bool { way.mu.Lock(); defer way.mu.Unlock(); return way.open == 512 })
	if kb := g.anonymous() - before; kb > 12_000 {
		t.Fatalf("512 silent connections hold %d kB", kb)
	}
	_, _, response := g.connect(proxyAddress, "api.example.test:443")
	equal(t, "status", response.StatusCode, 503)
	equal(t, "reason", response.Header.Get("Gatehouse-Reason"), "too_many_connections")
	status, _, _ := g.request("GET", "/health", nil)
	equal(t, "health", status, 204)
	for _, conn := range silent {
		conn.Close()
	}
	eventually(t, "the places are free", func() bool {
		_, _, response := g.connect(proxyAddress, "api.example.test:443")
		return response.StatusCode == 200
	})
}

func TestAReaderWhoStopsHoldsTheSenderBackNotTheMemory(t *testing.T) {
	g, way := startNetworked(t, "proxy")
	way.hosts["big.example.test:443"] = func(conn *net.UnixConn, _ io.Reader) {
		io.CopyN(conn, zeros{}, 50_000_000)
	}
	_, _, response := g.connect(proxyAddress, "big.example.test:443")
	equal(t, "status", response.StatusCode, 200)
	before := g.anonymous()
	for range 20 {
		_, _, response = g.connect(proxyAddress, "big.example.test:443")
		equal(t, "status", response.StatusCode, 200)
	}
	if kb := g.anonymous() - before; kb > 8000 {
		t.Fatalf("20 flows that nobody reads hold %d kB", kb)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestTheProxyModeHasNothingButTheProxy(t *testing.T) {
	g, _ := startNetworked(t, "proxy")
	for _, address := range []string{"127.0.0.1:15001", "127.0.0.1:15053", "8.8.8.8:443"} {
		if _, err := g.tryDial("tcp4", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%s: %v", address, err)
		}
	}
}

func TestWithoutANetworkNothingListens(t *testing.T) {
	g, way := startNetworked(t, "none")
	for _, address := range []string{proxyAddress, "127.0.0.1:15001", "127.0.0.1:15053"} {
		if _, err := g.tryDial("tcp4", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%s: %v", address, err)
		}
	}
	expectAsked(t, way)
}

func TestTheGuestsOwnPortsAreClosedToWhoeverComesFromOutside(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for _, port := range []int{proxyPort, transparentPort, dnsPort} {
		_, _, response := g.tunnel(fmt.Sprintf("127.0.0.1:%d", port))
		equal(t, "status", response.StatusCode, 502)
		equal(t, "reason", response.Header.Get("X-Gatehouse-Reason"), "port_closed")
	}
	expectAsked(t, way)
}

func TestTheProxyWorksWithoutRights(t *testing.T) {
	g, way := startNetworked(t, "proxy", asAlice)
	way.hosts["api.example.test:443"] = echoes
	_, _, response := g.connect(proxyAddress, "api.example.test:443")
	equal(t, "status", response.StatusCode, 200)
}
