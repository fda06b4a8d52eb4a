package tests

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"
	"time"
)

func withInput(script string) object {
	request := shell(script)
	request["stdin"] = true
	return request
}

func stdin(pid int, text string) object {
	data := base64.StdEncoding.EncodeToString([]byte(text))
	return object{"process": object{"pid": pid}, "input": object{"stdin": data}}
}

func TestInputReachesTheProcess(t *testing.T) {
	g := startGuest(t)
	s := g.start(withInput("cat"))
	g.must("/process.Process/SendInput", stdin(s.pid, "one\x00\xff"))
	s.until("one\x00\xff")
	g.must("/process.Process/SendInput", stdin(s.pid, "two"))
	g.must("/process.Process/CloseStdin", process(s.pid))
	got := s.finish()
	equal(t, "stdout", got.stdout, "two")
	equal(t, "exit code", got.end.ExitCode, 0)
}

func TestInputMayBeClosedTwice(t *testing.T) {
	g := startGuest(t)
	s := g.start(withInput("exec sleep 60"))
	g.must("/process.Process/CloseStdin", process(s.pid))
	g.must("/process.Process/CloseStdin", process(s.pid))
	g.refuses("/process.Process/SendInput", stdin(s.pid, "x"), 500, "internal", "closed")
}

func TestInputIsStreamed(t *testing.T) {
	g := startGuest(t)
	s := g.start(withInput("head -c 300000 | wc -c"))
	var body bytes.Buffer
	body.Write(envelope(object{"start": process(s.pid)}))
	for range 3 {
		body.Write(envelope(object{"data": stdin(s.pid, strings.Repeat("x", 100_000))}))
		body.Write(envelope(object{"keepalive": object{}}))
	}
	status, _, answer := g.request("POST", "/process.Process/StreamInput", &body, "Content-Type: application/connect+json")
	equal(t, "status", status, 200)
	equal(t, "answer", answer, "\x00\x00\x00\x00\x02{}\x02\x00\x00\x00\x02{}")
	equal(t, "stdout", s.finish().stdout, "300000\n")
}

func TestStreamedInputIsProcessedAsItComes(t *testing.T) {
	g := startGuest(t)
	s := g.start(withInput("cat"))
	reading, writing := io.Pipe()
	done := make(chan struct{})
	go func() {
		g.request("POST", "/process.Process/StreamInput", reading, "Content-Type: application/connect+json")
		close(done)
	}()
	writing.Write(envelope(object{"start": process(s.pid)}))
	writing.Write(envelope(object{"data": stdin(s.pid, "now")}))
	s.until("now")
	writing.Close()
	<-done
}

func TestInputThatNobodyTakesWaitsAsLongAsTheCall(t *testing.T) {
	g := startGuest(t)
	s := g.start(withInput("sleep 60"))
	begun := time.Now()
	g.refuses("/process.Process/SendInput", stdin(s.pid, strings.Repeat("x", 200_000)), 504, "deadline_exceeded",
		"of 200000 bytes", "Connect-Timeout-Ms: 300")
	if took := time.Since(begun); took > 3*time.Second {
		t.Fatalf("it waited %s", took)
	}
}

func TestInputIsRefused(t *testing.T) {
	g := startGuest(t)
	none := g.start(shell("sleep 60"))
	pty := object{"process": object{"pid": none.pid}, "input": object{"pty": "eA=="}}
	g.refuses("/process.Process/SendInput", stdin(none.pid, "x"), 500, "internal", "has no stdin")
	g.refuses("/process.Process/SendInput", pty, 500, "internal", "has no terminal")
	g.refuses("/process.Process/CloseStdin", process(none.pid), 500, "internal", "has no stdin")
	g.refuses("/process.Process/SendInput", stdin(99999, "x"), 404, "not_found", "process with pid 99999 not found")
	g.refuses("/process.Process/SendInput", process(none.pid), 400, "invalid_argument", "input")
	bad := object{"process": object{"pid": none.pid}, "input": object{"stdin": "%%%"}}
	g.refuses("/process.Process/SendInput", bad, 400, "invalid_argument", "not base64")
	g.refuses("/process.Process/SendInput", stdin(none.pid, strings.Repeat("x", 4<<20)), 429, "resource_exhausted", "larger than 4194304")
}
