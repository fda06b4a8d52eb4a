package tests

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

const asRoot = "Authorization: Basic cm9vdDo="

// bomb forks until nothing more can be forked, and goes on trying.
const bomb = "python3 -c 'import os,time\nwhile True:\n try:\n  os.fork()\n except OSError:\n  time.sleep(0.001)'"

// serves makes the guest use all that it has without starting a process.
func (g *guest) serves() {
	g.t.Helper()
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			path := fmt.Sprintf("/files?path=file%d", i)
			status, _, _ := g.request("GET", "/health", nil)
			equal(g.t, "health", status, 204)
			g.must("/filesystem.Filesystem/ListDir", object{"path": "/etc"})
			status, _, _ = g.request("POST", path, strings.NewReader(strings.Repeat("x", 300_000)),
				"Content-Type: application/octet-stream")
			equal(g.t, "upload", status, 200)
			status, _, _ = g.request("GET", path, nil)
			equal(g.t, "download", status, 200)
			g.must("/process.Process/List", object{})
		})
	}
	all.Wait()
}

func TestAForkBombOfTheUserLeavesRootAndTheGuestWorking(t *testing.T) {
	g := startGuest(t, unprivileged(200_000), setting("max_processes", 100))
	s := g.start(shell(bomb))
	time.Sleep(time.Second)
	g.serves()
	// The kernel lets one process of another user become the user's beyond the limit, not two.
	over := g.start(shell("exec sleep 60"))
	g.refusesStart(shell("true"), "resource_exhausted", "the sandbox is at a limit")
	g.must("/process.Process/SendSignal", signal(over.pid, 9))
	equal(t, "root", g.start(object{"process": object{"cmd": "echo", "args": []string{"ok"}, "cwd": "/"}}, asRoot).finish().stdout, "ok\n")
	g.must("/process.Process/SendSignal", signal(s.pid, 9))
	equal(t, "end", s.finish().end.Status, "signal: killed")
	eventually(t, "all are dead", func() bool { return g.alive("os.fork") == 0 })
	equal(t, "user", g.start(shell("echo ok")).finish().stdout, "ok\n")
}

func TestAForkBombOfRootLeavesTheGuestServing(t *testing.T) {
	g := startGuest(t, unprivileged(300_000), setting("max_processes", 100))
	request := shell(bomb)
	request["process"].(object)["cwd"] = "/tmp"
	s := g.start(request, asRoot)
	time.Sleep(time.Second)
	for range 5 {
		g.serves()
		g.refusesStart(shell("true"), "resource_exhausted", "the sandbox is at a limit")
	}
	g.must("/process.Process/SendSignal", signal(s.pid, 9))
	equal(t, "end", s.finish().end.Status, "signal: killed")
	eventually(t, "all are dead", func() bool { return g.alive("os.fork") == 0 })
	equal(t, "user", g.start(shell("echo ok")).finish().stdout, "ok\n")
}

func TestTheLimitOfProcessesLeavesRoomForTheGuest(t *testing.T) {
	g := startGuest(t, setting("max_processes", 256))
	equal(t, "limit", g.start(object{"process": object{"cmd": "bash", "args": []string{"-c", "ulimit -Su; ulimit -Hu"}}}).finish().stdout, "224\n224\n")
}
