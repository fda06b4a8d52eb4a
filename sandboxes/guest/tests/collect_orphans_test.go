package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// zombies counts ended processes of the guest's sandbox that nobody has collected.
func (g *guest) zombies() int {
	g.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", g.command.Process.Pid))
	check(g.t, err)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	check(g.t, err)
	count := 0
	for _, path := range stats {
		// An ended process has no namespace link any more, so its parent's is looked at.
		stat, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(stat), ") ")
		field := strings.Fields(rest)
		if len(field) < 2 || field[0] != "Z" {
			continue
		}
		if namespace, _ := os.Readlink("/proc/" + field[1] + "/ns/pid"); namespace == own {
			count++
		}
	}
	return count
}

func TestOrphansAreCollected(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("for i in $(seq 50); do (true &) ; (sleep 0.2 &) ; done"))
	s.finish()
	eventually(t, "no zombie is left", func() bool { return g.zombies() == 0 })
	equal(t, "guest", g.start(shell("echo ok")).finish().stdout, "ok\n")
}

func TestStatusesSurviveAFloodOfOrphans(t *testing.T) {
	g := startGuest(t)
	flood := g.start(shell("while :; do (true &); done"))
	for code := range 100 {
		got := g.start(shell(fmt.Sprintf("exit %d", code))).finish()
		equal(t, "exit code", got.end.ExitCode, code)
	}
	g.must("/process.Process/SendSignal", signal(flood.pid, 9))
	flood.finish()
	eventually(t, "no zombie is left", func() bool { return g.zombies() == 0 })
}

func TestTheGuestOutlivesSignalsOfItsOwnRoot(t *testing.T) {
	g := startGuest(t)
	script := "for s in HUP INT QUIT TERM USR1 USR2 PIPE ALRM XFSZ XCPU TRAP SYS IO TSTP; do kill -$s 1; done; kill -9 1; echo sent"
	got := g.start(shell(script), "Authorization: Basic cm9vdDo=").finish()
	equal(t, "stdout", got.stdout, "sent\n")
	equal(t, "guest", g.start(shell("echo ok")).finish().stdout, "ok\n")
}
