package tests

import (
	"encoding/base64"
	"strings"
	"testing"
)

func terminal(rows, cols int, args ...string) object {
	return object{
		"process": object{"cmd": "/bin/bash", "args": args, "envs": object{"TERM": "xterm", "PS1": "> "}},
		"pty":     object{"size": object{"rows": rows, "cols": cols}},
	}
}

func typed(pid int, text string) object {
	data := base64.StdEncoding.EncodeToString([]byte(text))
	return object{"process": object{"pid": pid}, "input": object{"pty": data}}
}

func TestATerminalEchoesAndEnds(t *testing.T) {
	g := startGuest(t)
	s := g.start(terminal(30, 100, "--norc", "-i"))
	g.must("/process.Process/SendInput", typed(s.pid, "stty size; test -t 0 && tty | cut -c1-9; id -u\n"))
	seen := s.until("1000\r\n")
	equal(t, "size", strings.Contains(seen, "30 100\r\n"), true)
	equal(t, "name", strings.Contains(seen, "/dev/pts/\r\n"), true)
	g.must("/process.Process/SendInput", typed(s.pid, "exit 5\n"))
	equal(t, "exit code", s.finish().end.ExitCode, 5)
}

func TestATerminalBelongsToItsUser(t *testing.T) {
	g := startGuest(t)
	got := g.start(terminal(24, 80, "-c", "stat -c '%u %g %a' $(tty); echo to it > $(tty)")).finish()
	equal(t, "terminal", got.terminal, "1000 5 620\r\nto it\r\n")
}

func TestATerminalIsResized(t *testing.T) {
	g := startGuest(t)
	s := g.start(terminal(24, 80, "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"))
	s.until("ready")
	g.must("/process.Process/Update", object{"process": object{"pid": s.pid}, "pty": object{"size": object{"rows": 50, "cols": 132}}})
	equal(t, "terminal", strings.Contains(s.finish().terminal, "50 132\r\n"), true)
}

func TestCtrlCInterrupts(t *testing.T) {
	g := startGuest(t)
	s := g.start(terminal(24, 80, "-c", "echo ready; sleep 60"))
	s.until("ready")
	g.must("/process.Process/SendInput", typed(s.pid, "\x03"))
	equal(t, "end", s.finish().end.Exited, false)
}

func TestATerminalsLastBytesComeBeforeItsEnd(t *testing.T) {
	g := startGuest(t)
	for range 50 {
		got := g.start(terminal(24, 80, "-c", "head -c 20000 /dev/zero | tr '\\0' x; printf last"))
		text := got.finish().terminal
		equal(t, "length", len(text), 20_004)
		equal(t, "tail", text[20_000:], "last")
	}
}

func TestADaemonKeepsNoTerminalOpen(t *testing.T) {
	g := startGuest(t)
	s := g.start(terminal(24, 80, "-c", "trap '' HUP; (sleep 60; echo never) & echo started"))
	equal(t, "terminal", s.finish().terminal, "started\r\n")
}

func TestTerminalCallsAreRefused(t *testing.T) {
	g := startGuest(t)
	g.refusesStart(terminal(70_000, 80), "invalid_argument", "pty.size")
	s := g.start(terminal(24, 80, "-c", "sleep 60"))
	g.refuses("/process.Process/SendInput", stdin(s.pid, "x"), 500, "internal", "send pty")
	g.refuses("/process.Process/CloseStdin", process(s.pid), 400, "failed_precondition", "cannot be closed")
	plain := g.start(shell("sleep 60"))
	size := object{"process": object{"pid": plain.pid}, "pty": object{"size": object{"rows": 1, "cols": 1}}}
	g.refuses("/process.Process/Update", size, 400, "failed_precondition", "has no terminal")
}
