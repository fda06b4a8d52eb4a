package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func signal(pid int, name any) object {
	return object{"process": object{"pid": pid}, "signal": name}
}

// alive counts the processes in the guest's sandbox whose command line contains text.
func (g *guest) alive(text string) int {
	g.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", g.command.Process.Pid))
	check(g.t, err)
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(g.t, err)
	count := 0
	for _, path := range commands {
		namespace, _ := os.Readlink(filepath.Join(filepath.Dir(path), "ns/pid"))
		command, _ := os.ReadFile(path)
		if namespace == own && strings.Contains(string(command), text) {
			count++
		}
	}
	return count
}

func TestKillEndsTheWholeSession(t *testing.T) {
	g := startGuest(t)
	// The second sleep is in a process group of its own, as in a shell with job control.
	s := g.start(shell("sleep 7654321 & bash -c 'set -m; sleep 7654321 & echo ready; wait'; wait"))
	s.until("ready")
	equal(t, "sleepers", g.alive("7654321") >= 2, true)
	g.must("/process.Process/SendSignal", signal(s.pid, "SIGNAL_SIGKILL"))
	got := s.finish()
	equal(t, "end", got.end, ending{ExitCode: -1, Status: "signal: killed", Error: "signal: killed"})
	eventually(t, "all are dead", func() bool { return g.alive("7654321") == 0 })
	g.refuses("/process.Process/SendSignal", signal(s.pid, 9), 404, "not_found", "not found")
}

func TestTerminateLetsTheProcessEndByItself(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
	s.until("ready")
	g.must("/process.Process/SendSignal", signal(s.pid, 15))
	got := s.finish()
	equal(t, "stdout", got.stdout, "bye\n")
	equal(t, "exit code", got.end.ExitCode, 7)
}

func TestOtherSignalsAreRefused(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("exec sleep 60"))
	g.refuses("/process.Process/SendSignal", signal(s.pid, "SIGNAL_SIGINT"), 501, "unimplemented", "not supported")
	g.refuses("/process.Process/SendSignal", signal(s.pid, 0), 501, "unimplemented", "not supported")
	g.refuses("/process.Process/SendSignal", process(s.pid), 501, "unimplemented", "not supported")
	g.refuses("/process.Process/SendSignal", signal(1, 9), 404, "not_found", "process with pid 1 not found")
	eventually(t, "the sleeper lives", func() bool { return g.alive("sleep\x0060") == 1 })
}
