// Package tests drives a real guest over its socket: it is the first process of its own pid namespace, as in a sandbox.
package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"gatehouse/guest/boot"
)

const (
	underTest = "GUEST_UNDER_TEST"
	// dropTo names the uid that a guest without rights runs as.
	dropTo        = "GUEST_DROPS_TO"
	setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	userID        = 1000
	staffID       = 2000
)

// TestMain is the guest itself when the harness has started this binary again.
func TestMain(m *testing.M) {
	if os.Getenv(dropTo) == "done" {
		os.Unsetenv(dropTo)
		os.Exit(boot.Run())
	}
	if etc := os.Getenv(underTest); etc != "" {
		must(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
		must(syscall.Mount("proc", "/proc", "proc", 0, ""))
		for _, name := range []string{"passwd", "group"} {
			must(syscall.Mount(filepath.Join(etc, name), filepath.Join("/etc", name), "", syscall.MS_BIND, ""))
		}
		os.Unsetenv(underTest)
		layNetwork(etc)
		dropRights(etc)
		os.Exit(boot.Run())
	}
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		os.Exit(99)
	}
}

// dropRights starts this binary anew as the user to drop to, if there is one: without capabilities and new privileges,
// and with everything read-only but the sandbox's own directory.
func dropRights(writable string) {
	uid, err := strconv.Atoi(os.Getenv(dropTo))
	if err != nil {
		return
	}
	must(os.Setenv(dropTo, "done"))
	must(syscall.Mount(writable, writable, "", syscall.MS_BIND, ""))
	must(syscall.Mount("", "/", "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""))
	must(syscall.Setgroups(nil))
	must(syscall.Setgid(uid))
	must(syscall.Setuid(uid))
	// Privileges belong to a thread until a program is executed.
	runtime.LockOSThread()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0); errno != 0 {
		must(errno)
	}
	must(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

type object = map[string]any

// guest is one running guest with the user Alice (uid 1000, group staff) and her home.
type guest struct {
	t       *testing.T
	home    string
	socket  string
	client  *http.Client
	command *exec.Cmd
}

// option changes how a guest is started.
type option func(settings object, command *exec.Cmd)

func setting(name string, value any) option {
	return func(settings object, _ *exec.Cmd) { settings[name] = value }
}

// unprivileged puts the guest into a user namespace, where its root is nobody on the host.
func unprivileged(base int) option {
	return func(_ object, command *exec.Cmd) {
		mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 65536}}
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings, command.SysProcAttr.GidMappings = mapping, mapping
		command.SysProcAttr.GidMappingsEnableSetgroups = true
		command.SysProcAttr.Credential = &syscall.Credential{}
	}
}

func startGuest(t *testing.T, options ...option) *guest {
	t.Helper()
	root, err := os.MkdirTemp("", "guest")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	check(t, os.Chmod(root, 0o755))
	g := &guest{t: t, home: filepath.Join(root, "home"), socket: filepath.Join(root, "socket")}
	check(t, os.Mkdir(g.home, 0o755))
	writeAccounts(t, root, g.home)
	g.launch(root, options)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", g.socket)
	}
	transport := &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 8}
	g.client = &http.Client{Transport: transport, Timeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return g
}

func writeAccounts(t *testing.T, root, home string) {
	passwd := "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::" + home + ":/bin/sh\n"
	check(t, os.WriteFile(filepath.Join(root, "passwd"), []byte(passwd), 0o644))
	group := "root:x:0:\nalice:x:1000:\nstaff:x:2000:bob,alice\n"
	check(t, os.WriteFile(filepath.Join(root, "group"), []byte(group), 0o644))
}

func (g *guest) launch(root string, options []option) {
	t := g.t
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: g.socket})
	check(t, err)
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	check(t, err)
	listener.Close()
	settings := object{"sandbox_id": "i1", "template_id": "base", "default_user": "alice",
		"env": object{"COLOR": "green"}, "max_processes": 0}
	g.command = exec.Command("/proc/self/exe")
	g.command.Env = []string{underTest + "=" + root, "PATH=/usr/local/bin:/usr/bin:/bin"}
	g.command.ExtraFiles = []*os.File{file}
	g.command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig: syscall.SIGKILL}
	for _, change := range options {
		change(settings, g.command)
	}
	owner := userID
	for _, mapping := range g.command.SysProcAttr.UidMappings {
		owner += mapping.HostID
	}
	check(t, os.Chown(g.home, owner, owner))
	text, err := json.Marshal(settings)
	check(t, err)
	g.command.Stdin = bytes.NewReader(text)
	g.command.Stderr = os.Stderr
	check(t, g.command.Start())
	file.Close()
	t.Cleanup(func() {
		g.command.Process.Kill()
		g.command.Wait()
	})
}

// request sends one plain HTTP request and returns status, headers and body.
func (g *guest) request(method, path string, body io.Reader, headers ...string) (int, http.Header, string) {
	g.t.Helper()
	request, err := http.NewRequest(method, "http://guest"+path, body)
	check(g.t, err)
	setHeaders(request, headers)
	response, err := g.client.Do(request)
	check(g.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(g.t, err)
	return response.StatusCode, response.Header, string(text)
}

func setHeaders(request *http.Request, headers []string) {
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
}

// call makes a unary call and returns the HTTP status and the message.
func (g *guest) call(method string, message any, headers ...string) (int, object) {
	g.t.Helper()
	text, err := json.Marshal(message)
	check(g.t, err)
	headers = append([]string{"Content-Type: application/json"}, headers...)
	status, _, body := g.request(http.MethodPost, method, bytes.NewReader(text), headers...)
	answer := object{}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		g.t.Fatalf("%s answered %d %q", method, status, body)
	}
	return status, answer
}

// must makes a unary call that has to succeed.
func (g *guest) must(method string, message any, headers ...string) object {
	g.t.Helper()
	status, answer := g.call(method, message, headers...)
	if status != http.StatusOK {
		g.t.Fatalf("%s: %d %v", method, status, answer)
	}
	return answer
}

// refuses makes a unary call that has to fail with the status, code and words.
func (g *guest) refuses(method string, message any, status int, code, words string, headers ...string) {
	g.t.Helper()
	got, answer := g.call(method, message, headers...)
	if got != status || answer["code"] != code || !strings.Contains(fmt.Sprint(answer["message"]), words) {
		g.t.Fatalf("%s answered %d %v, not %d %s ...%s...", method, got, answer, status, code, words)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, not %v", what, got, want)
	}
}

// eventually waits up to five seconds for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// limitFileSize sets the size that files of the guest and all that it starts may have from now on.
func (g *guest) limitFileSize(bytes uint64) error {
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(g.command.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
