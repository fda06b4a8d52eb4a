package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// addressOf returns the address that a name has in the sandbox.
func (g *guest) addressOf(name string) string {
	g.t.Helper()
	done := g.start(shell("getent ahostsv4 " + name + " | head -1")).finish()
	fields := strings.Fields(done.stdout)
	if len(fields) == 0 {
		g.t.Fatalf("%s has no address", name)
	}
	return fields[0]
}

func TestAConnectionToANameIsAskedForByName(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.allow("api.example.test")
	way.hosts["api.example.test:4443"] = echoes
	address := g.addressOf("api.example.test")
	way.requests()
	conn := g.dial(address + ":4443")
	data := strings.Repeat("to and fro\x00", 300_000)
	go func() {
		io.WriteString(conn, data)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	check(t, err)
	equal(t, "same bytes", string(got) == data, true)
	expectAsked(t, way, "CONNECT api.example.test:4443 transparent")
}

func TestAProgramThatKnowsNoProxyReachesANameWithoutAnySetUp(t *testing.T) {
	g, way := startNetworked(t, "transparent", asAlice)
	way.allow("web.example.test")
	way.hosts["web.example.test:80"] = func(conn *net.UnixConn, from io.Reader) {
		request, err := http.ReadRequest(bufio.NewReader(from))
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s %s", request.Host, request.URL)
		}
	}
	done := g.start(shell("curl -sS http://web.example.test/path")).finish()
	equal(t, "output", done.stdout, "web.example.test /path")
}

func TestARawAddressIsAskedForAsItIs(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["203.0.113.10:8443"] = echoes
	conn := g.dial("203.0.113.10:8443")
	io.WriteString(conn, "raw\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	check(t, err)
	equal(t, "line", line, "raw\n")
	expectAsked(t, way, "CONNECT 203.0.113.10:8443 transparent")
}

func TestAServerThatSpeaksFirstIsHeard(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["198.51.100.5:5432"] = func(conn *net.UnixConn, from io.Reader) {
		io.WriteString(conn, "ready for you\n")
		io.Copy(io.Discard, from)
	}
	line, err := bufio.NewReader(g.dial("198.51.100.5:5432")).ReadString('\n')
	check(t, err)
	equal(t, "line", line, "ready for you\n")
}

func TestARefusedConnectionIsReset(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for _, address := range []string{"169.254.169.254:80", "8.8.8.8:443", "10.0.0.5:22", "255.255.255.254:1"} {
		g.expectReset(address)
		expectAsked(t, way, "CONNECT "+address+" transparent")
	}
}

func TestASyntheticAddressThatNobodyGotIsARawAddress(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	g.expectReset("198.18.77.7:443")
	expectAsked(t, way, "CONNECT 198.18.77.7:443 transparent")
}

func TestTheProxysAliasIsTheProxy(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["api.example.test:443"] = echoes
	_, _, response := g.connect("198.18.0.1:8080", "api.example.test:443")
	equal(t, "status", response.StatusCode, 200)
	expectAsked(t, way, "CONNECT api.example.test:443")
	done := g.start(shell("curl -sS -o /dev/null -w '%{http_code}' -x http://proxy.internal:8080 http://evil.test/")).finish()
	equal(t, "status", done.stdout, "403")
}

func TestOtherPortsOfTheProxysNameAreAskedForLikeAnyOther(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	g.expectReset("198.18.0.1:443")
	expectAsked(t, way, "CONNECT proxy.internal:443 transparent")
}

func TestTheBrokersNameLeadsToTheBroker(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["broker.gatehouse.internal:80"] = echoes
	conn := g.dial("198.18.0.2:80")
	conn.CloseWrite()
	_, err := io.ReadAll(conn)
	check(t, err)
	expectAsked(t, way, "CONNECT broker.gatehouse.internal:80 transparent")
}

func TestAConnectionToTheListenerItselfIsReset(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	g.expectReset("127.0.0.1:15001")
	expectAsked(t, way)
}

func TestConnectionsWithinTheSandboxAreItsOwn(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	var listener net.Listener
	g.inside(func() {
		var err error
		listener, err = net.Listen("tcp4", "127.0.0.1:8000")
		check(t, err)
	})
	defer listener.Close()
	g.dial("127.0.0.1:8000")
	_, err := listener.Accept()
	check(t, err)
	expectAsked(t, way)
}

func TestWithoutAWayOutConnectionsAreResetAndComeBackByThemselves(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["203.0.113.10:443"] = echoes
	way.stop()
	g.expectReset("203.0.113.10:443")
	way.listen()
	conn := g.dial("203.0.113.10:443")
	conn.CloseWrite()
	_, err := io.ReadAll(conn)
	check(t, err)
}

func TestTooManyConnectionsToAnywhereAreResetAtOnce(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["203.0.113.10:443"] = echoes
	before := g.anonymous()
	var silent []net.Conn
	g.inside(func() {
		for range 512 {
			conn, err := net.Dial("tcp4", "203.0.113.10:443")
			check(t, err)
			silent = append(silent, conn)
		}
	})
	eventually(t, "all hold a place", func() bool { way.mu.Lock(); defer way.mu.Unlock(); return len(way.asked) == 512 })
	g.expectReset("203.0.113.10:443")
	if kb := g.anonymous() - before; kb > 16_000 {
		t.Fatalf("512 silent connections hold %d kB", kb)
	}
	status, _, _ := g.request("GET", "/health", nil)
	equal(t, "health", status, 204)
	for _, conn := range silent {
		conn.Close()
	}
	way.requests()
	eventually(t, "the places are free", func() bool {
		conn := g.dial("203.0.113.10:443")
		conn.CloseWrite()
		_, err := io.ReadAll(conn)
		return err == nil
	})
}

func TestMemoryGoesBackAfterManyConnections(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	way.hosts["203.0.113.10:443"] = echoes
	var all []net.Conn
	g.inside(func() {
		for range 500 {
			conn, err := net.Dial("tcp4", "203.0.113.10:443")
			check(t, err)
			all = append(all, conn)
		}
	})
	for _, conn := range all {
		go conn.Write(make([]byte, 100_000))
	}
	data := make([]byte, 100_000)
	for _, conn := range all {
		_, err := io.ReadFull(conn, data)
		check(t, err)
	}
	for _, conn := range all {
		conn.Close()
	}
	eventually(t, "memory went back", func() bool { return g.anonymous() < 7000 })
}

func TestAWayOutThatSpeaksNoHTTPConnectsNobody(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	for _, answer := range []string{"", "nonsense", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000)} {
		way.stop()
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: way.path})
		check(t, err)
		conn := g.dial("203.0.113.10:443")
		listener.SetDeadline(time.Now().Add(5 * time.Second))
		out, err := listener.AcceptUnix()
		check(t, err)
		io.WriteString(out, answer)
		out.CloseWrite()
		expectReset(t, conn)
		out.Close()
		listener.Close()
	}
}

func TestOtherProtocolsFindNothing(t *testing.T) {
	g, way := startNetworked(t, "transparent")
	conn, err := g.tryDial("udp4", "127.0.0.1:15001")
	check(t, err)
	conn.Write([]byte("quic"))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		equal(t, "error", strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()), true)
	}
	if _, err := g.tryDial("tcp6", "[2001:db8::1]:443"); err == nil {
		t.Fatal("there is a network of IPv6")
	}
	expectAsked(t, way)
}
