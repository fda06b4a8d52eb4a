package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// laysNetwork makes the guest under test find its own network namespace as the node prepares it.
const laysNetwork = "GUEST_LAYS_NETWORK"

const (
	proxyPort       = 3128
	transparentPort = 15001
	dnsPort         = 15053
	setNamespace    = 308 // setns
)

// redirections are those of the node: every connection and every question for a name is led to the guest.
const redirections = `
table ip sandbox {
  chain lead {
    type nat hook output priority -100;
    udp dport 53 redirect to :15053
    tcp dport 53 redirect to :15053
    ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15001
  }
}`

func layNetwork(etc string) {
	if os.Getenv(laysNetwork) == "" {
		return
	}
	os.Unsetenv(laysNetwork)
	path := os.Getenv("PATH")
	must(os.Setenv("PATH", path+":/usr/sbin:/sbin"))
	defer os.Setenv("PATH", path)
	for _, command := range []string{
		"ip link set lo up",
		// Programs that ask for names only when the machine has a network look for an address other than 127.0.0.1.
		"ip address add 198.18.0.1/32 dev lo",
		"ip route add local 0.0.0.0/0 dev lo",
		"nft -f " + filepath.Join(etc, "rules"),
	} {
		words := strings.Fields(command)
		if text, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			must(fmt.Errorf("%s: %w: %s", command, err, text))
		}
	}
	must(syscall.Mount(filepath.Join(etc, "resolv.conf"), "/etc/resolv.conf", "", syscall.MS_BIND, ""))
}

// networked starts the guest in a network namespace of its own, with the stand-in as its way out.
func networked(mode string, way *standIn) option {
	return func(settings object, command *exec.Cmd) {
		settings["network"] = object{"mode": mode, "socket": way.path, "proxy_port": proxyPort,
			"transparent_port": transparentPort, "dns_port": dnsPort}
		_, root, _ := strings.Cut(command.Env[0], "=")
		must(os.WriteFile(filepath.Join(root, "rules"), []byte(redirections), 0o644))
		must(os.WriteFile(filepath.Join(root, "resolv.conf"), []byte("nameserver 198.18.0.1\n"), 0o644))
		command.Env = append(command.Env, laysNetwork+"=1")
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	}
}

// startNetworked returns a guest that answers already, and its way out.
func startNetworked(t *testing.T, mode string, options ...option) (*guest, *standIn) {
	t.Helper()
	way := newStandIn(t)
	g := startGuest(t, append(options, networked(mode, way))...)
	status, _, _ := g.request("GET", "/health", nil)
	equal(t, "health", status, 204)
	// Programs start when the ports are open.
	equal(t, "end", g.start(shell("true")).finish().end.Status, "exit status 0")
	return g, way
}

// inside runs act on a thread that is in the guest's network namespace meanwhile. The thread must not end: the guest
// would, if it was started from there.
func (g *guest) inside(act func()) {
	g.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	check(g.t, err)
	defer home.Close()
	away, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", g.command.Process.Pid))
	check(g.t, err)
	defer away.Close()
	enter(away)
	defer enter(home)
	act()
}

func enter(namespace *os.File) {
	if _, _, errno := syscall.RawSyscall(setNamespace, namespace.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		must(errno)
	}
}

// dial connects to an address as a program in the sandbox does.
func (g *guest) dial(address string) *net.TCPConn {
	g.t.Helper()
	conn, err := g.tryDial("tcp4", address)
	check(g.t, err)
	return conn.(*net.TCPConn)
}

func (g *guest) tryDial(network, address string) (conn net.Conn, err error) {
	g.t.Helper()
	g.inside(func() { conn, err = net.Dial(network, address) })
	if err == nil {
		g.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// standIn is not the egress process: it stands in for it at the socket's end, obeys a fixed list and notes what it was
// asked. What a name resolves to, and whether it may, is no matter of the guest's.
type standIn struct {
	t    *testing.T
	path string
	// hosts serve connections to "host:port"; what is not listed is refused.
	hosts map[string]func(*net.UnixConn, io.Reader)

	mu       sync.Mutex
	listener *net.UnixListener
	names    map[string]bool
	asked    []string
	open     int
	most     int
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	directory, err := os.MkdirTemp("", "way")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	check(t, os.Chmod(directory, 0o755))
	s := &standIn{t: t, path: filepath.Join(directory, "egress.sock"), names: map[string]bool{},
		hosts: map[string]func(*net.UnixConn, io.Reader){}}
	s.listen()
	t.Cleanup(s.stop)
	return s
}

func (s *standIn) listen() {
	s.t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path})
	check(s.t, err)
	check(s.t, os.Chmod(s.path, 0o666))
	s.mu.Lock()
	s.listener = listener
	s.mu.Unlock()
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
}

// stop takes the socket away, as when the egress process is gone.
func (s *standIn) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener.Close()
}

func (s *standIn) allow(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.names[name] = true
	}
}

func (s *standIn) deny(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// requests returns what was asked since the last call.
func (s *standIn) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *standIn) note(request string, by int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if request != "" {
		s.asked = append(s.asked, request)
	}
	s.open += by
	s.most = max(s.most, s.open)
	return true
}

func (s *standIn) serve(conn *net.UnixConn) {
	defer conn.Close()
	s.note("", 1)
	defer s.note("", -1)
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	s.note(strings.TrimSpace(request.Method+" "+request.RequestURI+" "+request.Header.Get("Gatehouse-Via")), 0)
	if name, is := strings.CutPrefix(request.RequestURI, "/v1/names/"); is {
		name, _ = url.PathUnescape(name)
		s.mu.Lock()
		allowed := s.names[name]
		s.mu.Unlock()
		switch {
		case allowed:
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			return
		case strings.ContainsAny(name, "\\%\r\x00"):
			io.WriteString(conn, "HTTP/1.1 400 Bad Request (network policy: bad_host)\r\nContent-Length: 0\r\n\r\n")
			return
		}
	}
	serve, allowed := s.hosts[request.RequestURI]
	if !allowed {
		io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 20\r\n\r\n{\"reason\":\"no_rule\"}")
		return
	}
	if request.Method == http.MethodConnect {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	}
	serve(conn, reader)
}

// echoes returns all that comes, and then ends.
func echoes(conn *net.UnixConn, from io.Reader) { io.Copy(conn, from) }
