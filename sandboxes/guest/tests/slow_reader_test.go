package tests

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// anonymous returns the guest's own memory in kB.
func (g *guest) anonymous() int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(g.command.Process.Pid) + "/status")
	check(g.t, err)
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	check(g.t, err)
	return kb
}

func TestASlowReaderGetsEverything(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("head -c 3000000 /dev/zero; echo written > done"))
	time.Sleep(time.Second)
	if _, err := os.Stat(filepath.Join(g.home, "done")); err == nil {
		t.Fatal("3 MB were taken although nobody read them")
	}
	equal(t, "length", len(s.finish().stdout), 3_000_000)
}

func TestStuckReadersBlockNobodyElseAndMemoryStaysFlat(t *testing.T) {
	g := startGuest(t)
	for range 20 {
		g.start(shell("exec head -c 1000000000 /dev/zero"))
	}
	time.Sleep(time.Second)
	before := g.anonymous()
	for range 20 {
		equal(t, "other output", len(g.start(shell("head -c 1000000 /dev/zero")).finish().stdout), 1_000_000)
	}
	status, _, _ := g.request("GET", "/health", nil)
	equal(t, "health", status, 204)
	if after := g.anonymous(); after > before+8000 || after > 24_000 {
		t.Fatalf("memory grew from %d kB to %d kB", before, after)
	}
}

func TestAVanishedReaderFreesItsProcess(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("head -c 100000000 /dev/zero; echo written > done"))
	time.Sleep(300 * time.Millisecond)
	s.cancel()
	eventually(t, "the process wrote on", func() bool {
		_, err := os.Stat(filepath.Join(g.home, "done"))
		return err == nil
	})
}

func TestAStuckReaderIsDroppedForAnotherOfTheSameProcess(t *testing.T) {
	g := startGuest(t)
	stuck := g.start(shell("head -c 20000000 /dev/zero"))
	begun := time.Now()
	equal(t, "length of the other", len(g.attach(stuck.pid).finish().stdout) > 19_000_000, true)
	if took := time.Since(begun); took < 9*time.Second || took > 20*time.Second {
		t.Fatalf("the other reader waited %s", took)
	}
}
