package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// tunnel asks the guest for a connection to a port and returns it with the answer.
func (g *guest) tunnel(target string) (*net.UnixConn, *bufio.Reader, *http.Response) {
	g.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: g.socket})
	check(g.t, err)
	g.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	check(g.t, err)
	return conn, reader, response
}

// serve listens on an address of the machine, whose network the guest under test shares.
func serve(t *testing.T, address string, answer func(*net.TCPConn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	check(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(conn.(*net.TCPConn))
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

func echo(conn *net.TCPConn) {
	io.Copy(conn, conn)
	conn.Close()
}

func TestAPortIsReached(t *testing.T) {
	g := startGuest(t)
	port := serve(t, "127.0.0.1:0", echo)
	conn, reader, response := g.tunnel("127.0.0.1:" + port)
	equal(t, "status", response.StatusCode, 200)
	data := strings.Repeat("to and fro\x00", 100_000)
	go func() {
		io.WriteString(conn, data)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(reader)
	check(t, err)
	equal(t, "same bytes", string(got) == data, true)
}

func TestAPortOnlyOnIPv6IsReached(t *testing.T) {
	g := startGuest(t)
	port := serve(t, "[::1]:0", echo)
	conn, reader, response := g.tunnel("127.0.0.1:" + port)
	equal(t, "status", response.StatusCode, 200)
	io.WriteString(conn, "six\n")
	line, err := reader.ReadString('\n')
	check(t, err)
	equal(t, "line", line, "six\n")
}

func TestTheServersEndIsPassedOn(t *testing.T) {
	g := startGuest(t)
	port := serve(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		io.WriteString(conn, "bye")
		conn.Close()
	})
	_, reader, _ := g.tunnel("127.0.0.1:" + port)
	got, err := io.ReadAll(reader)
	check(t, err)
	equal(t, "bytes", string(got), "bye")
}

func TestTheClientsDisappearanceIsPassedOn(t *testing.T) {
	g := startGuest(t)
	gone := make(chan struct{})
	port := serve(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		io.Copy(io.Discard, conn)
		close(gone)
	})
	conn, _, _ := g.tunnel("127.0.0.1:" + port)
	conn.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the server never noticed")
	}
}

func TestManySilentTunnelsCostLittle(t *testing.T) {
	g := startGuest(t)
	port := serve(t, "127.0.0.1:0", echo)
	for range 200 {
		_, _, response := g.tunnel("127.0.0.1:" + port)
		equal(t, "status", response.StatusCode, 200)
	}
	if kb := g.anonymous(); kb > 24_000 {
		t.Fatalf("200 tunnels hold %d kB", kb)
	}
}

func TestAClosedPortIsTold(t *testing.T) {
	g := startGuest(t)
	_, _, response := g.tunnel("127.0.0.1:1")
	equal(t, "status", response.StatusCode, 502)
	equal(t, "reason", response.Header.Get("X-Gatehouse-Reason"), "port_closed")
}

func TestOtherTargetsAreRefused(t *testing.T) {
	g := startGuest(t)
	for _, target := range []string{"10.0.0.1:80", "example.com:80", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1"} {
		_, _, response := g.tunnel(target)
		equal(t, target, response.StatusCode, 400)
	}
}
