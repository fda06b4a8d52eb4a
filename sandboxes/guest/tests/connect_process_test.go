package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestALateReaderGetsTheRecentOutputAndTheRest(t *testing.T) {
	g := startGuest(t)
	request := shell("echo before; read x; echo after $x")
	delete(request, "stdin")
	first := g.start(request)
	first.until("before\n")
	first.cancel()
	second := g.attach(first.pid)
	second.until("before\n")
	g.must("/process.Process/SendInput", object{"process": object{"pid": first.pid}, "input": object{"stdin": "eAo="}})
	equal(t, "stdout", second.finish().stdout, "after x\n")
}

func TestTwoReadersGetTheSame(t *testing.T) {
	g := startGuest(t)
	first := g.start(shell("sleep 0.3; head -c 2000000 /dev/urandom"))
	second := g.attach(first.pid)
	got := make(chan result)
	go func() { got <- second.finish() }()
	equal(t, "same output", first.finish() == <-got, true)
}

func TestADisconnectKillsNothing(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("head -c 10000000 /dev/zero; sleep 0.2; head -c 10000000 /dev/zero; echo yes > survived"))
	s.cancel()
	eventually(t, "the process went on without a reader", func() bool {
		_, err := os.Stat(filepath.Join(g.home, "survived"))
		return err == nil
	})
}

func TestAnEndedProcessIsRemembered(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("echo gone; exit 4"))
	s.finish()
	got := g.attach(s.pid).finish()
	equal(t, "stdout", got.stdout, "gone\n")
	equal(t, "exit code", got.end.ExitCode, 4)
}

func TestOnlyTheLatestOutputIsKept(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("head -c 1000000 /dev/zero | tr '\\0' a; echo tail"))
	s.finish()
	got := g.attach(s.pid).finish().stdout
	equal(t, "kept bytes", len(got), 128<<10)
	equal(t, "end of it", strings.HasSuffix(got, "aaatail\n"), true)
}

func TestATimeLimitOfAConnectionEndsOnlyTheConnection(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("sleep 1; echo still here"))
	equal(t, "code", g.attach(s.pid, "Connect-Timeout-Ms: 100").failed().Code, "deadline_exceeded")
	equal(t, "stdout", s.finish().stdout, "still here\n")
}

func TestAnUnknownProcessIsNotFound(t *testing.T) {
	g := startGuest(t)
	got := g.open("/process.Process/Connect", process(99999)).failed()
	equal(t, "error", got, failure{"not_found", "process with pid 99999 not found"})
	got = g.open("/process.Process/Connect", object{"process": object{"tag": "none"}}).failed()
	equal(t, "error", got, failure{"not_found", "process with tag none not found"})
	equal(t, "code", g.open("/process.Process/Connect", object{}).failed().Code, "invalid_argument")
	equal(t, "code", g.open("/process.Process/Connect", process(-1)).failed().Code, "invalid_argument")
}

func TestReadersOfOneProcessAreBounded(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("sleep 60"))
	for range 15 {
		g.attach(s.pid)
	}
	got := g.open("/process.Process/Connect", process(s.pid)).failed()
	equal(t, "error", got, failure{"resource_exhausted", "the process already has 16 readers"})
}

func TestASilentStreamIsKeptAlive(t *testing.T) {
	g := startGuest(t)
	begun := time.Now()
	s := g.start(shell("sleep 60"), "Keepalive-Ping-Interval: 1")
	for range 2 {
		if e := s.next(); e.Keepalive == nil {
			t.Fatalf("%+v came instead of a sign of life", e)
		}
	}
	if took := time.Since(begun); took < 2*time.Second || took > 4*time.Second {
		t.Fatalf("two signs of life took %s", took)
	}
}
