package tests

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOutputArrivesByteForByte(t *testing.T) {
	g := startGuest(t)
	every := make([]byte, 0, 256*40)
	for i := range cap(every) {
		every = append(every, byte(i*i>>3))
	}
	path := filepath.Join(g.home, "bytes")
	check(t, os.WriteFile(path, every, 0o644))
	got := g.start(shell("cat bytes; cat bytes >&2")).finish()
	equal(t, "stdout", got.stdout, string(every))
	equal(t, "stderr", got.stderr, string(every))
}

func TestLargeOutputArrivesWhole(t *testing.T) {
	g := startGuest(t)
	const script = "head -c 30000000 /dev/urandom | tee sum | cat; sha256sum < sum | cut -c1-64 >&2"
	got := g.start(shell(script)).finish()
	equal(t, "length", len(got.stdout), 30_000_000)
	equal(t, "sum", fmt.Sprintf("%x\n", sha256.Sum256([]byte(got.stdout))), got.stderr)
}

func TestTheLastBytesComeBeforeTheEnd(t *testing.T) {
	g := startGuest(t)
	for range 100 {
		got := g.start(shell("head -c 70000 /dev/zero; printf last")).finish()
		equal(t, "length", len(got.stdout), 70_004)
		equal(t, "tail", got.stdout[70_000:], "last")
	}
}

func TestPiecesAreAtMost32KiB(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("head -c 1000000 /dev/zero"))
	for {
		e := s.next()
		if e.End != nil {
			break
		}
		if len(e.Data.Stdout) > 32<<10 {
			t.Fatalf("a piece has %d bytes", len(e.Data.Stdout))
		}
	}
}

func TestADescendantThatKeepsTheOutputOpenHoldsTheEndOnlyShortly(t *testing.T) {
	g := startGuest(t)
	begun := time.Now()
	got := g.start(shell("(sleep 0.2; echo late; sleep 60; echo never) & echo early")).finish()
	equal(t, "stdout", got.stdout, "early\nlate\n")
	if took := time.Since(begun); took > 5*time.Second {
		t.Fatalf("the end took %s", took)
	}
}

func TestADescendantMayWriteOnAfterTheEnd(t *testing.T) {
	g := startGuest(t)
	g.start(shell("(sleep 1.5; head -c 500000 /dev/zero; echo done > alive) & true")).finish()
	eventually(t, "the descendant wrote everything and lived on", func() bool {
		text, _ := os.ReadFile(filepath.Join(g.home, "alive"))
		return string(text) == "done\n"
	})
}

func TestManyCommandsAtOnceKeepTheirOutputApart(t *testing.T) {
	g := startGuest(t)
	streams := make([]*stream, 20)
	for i := range streams {
		streams[i] = g.start(shell(fmt.Sprintf("for n in 1 2 3 4 5 6 7 8 9 10; do echo %d; done", i)))
	}
	for i, s := range streams {
		equal(t, "stdout", s.finish().stdout, strings.Repeat(fmt.Sprintln(i), 10))
	}
}
