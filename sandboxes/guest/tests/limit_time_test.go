package tests

import (
	"syscall"
	"testing"
	"time"
)

func TestACommandIsKilledAtItsTimeLimit(t *testing.T) {
	g := startGuest(t)
	begun := time.Now()
	s := g.start(shell("sleep 7654322 & sleep 7654322"), "Connect-Timeout-Ms: 400")
	equal(t, "error", s.failed(), failure{"deadline_exceeded", "the time limit of 400ms is over"})
	if took := time.Since(begun); took < 400*time.Millisecond || took > 2*time.Second {
		t.Fatalf("it took %s", took)
	}
	eventually(t, "all are dead", func() bool { return g.alive("7654322") == 0 })
}

func TestTheTimeLimitHoldsWithoutAReader(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("exec sleep 7654323"), "Connect-Timeout-Ms: 400")
	s.cancel()
	equal(t, "it lives", g.alive("7654323") > 0, true)
	eventually(t, "it is dead", func() bool { return g.alive("7654323") == 0 })
}

func TestTheTimeLimitHoldsForACommandThatNeverStopsWriting(t *testing.T) {
	g := startGuest(t)
	got := g.start(shell("exec yes"), "Connect-Timeout-Ms: 400").failed()
	equal(t, "code", got.Code, "deadline_exceeded")
}

func TestATimeLimitStandsStillWithTheSandbox(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("exec sleep 7654324"), "Connect-Timeout-Ms: 1600")
	s.cancel()
	check(t, g.command.Process.Signal(syscall.SIGSTOP))
	time.Sleep(3200 * time.Millisecond)
	check(t, g.command.Process.Signal(syscall.SIGCONT))
	time.Sleep(200 * time.Millisecond)
	equal(t, "it lives", g.alive("7654324") > 0, true)
	eventually(t, "it is dead", func() bool { return g.alive("7654324") == 0 })
}

func TestACommandWithinItsTimeLimitEndsNormally(t *testing.T) {
	g := startGuest(t)
	equal(t, "stdout", g.start(shell("echo ok"), "Connect-Timeout-Ms: 5000").finish().stdout, "ok\n")
	equal(t, "stdout", g.start(shell("echo ok"), "Connect-Timeout-Ms: 0").finish().stdout, "ok\n")
}

func TestABadTimeLimitIsRefused(t *testing.T) {
	g := startGuest(t)
	g.refusesStart(shell("true"), "invalid_argument", "Connect-Timeout-Ms", "Connect-Timeout-Ms: soon")
	g.refusesStart(shell("true"), "invalid_argument", "Connect-Timeout-Ms", "Connect-Timeout-Ms: 12345678901")
}
