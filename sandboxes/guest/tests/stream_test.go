package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// event is one message of a process stream, or the end of the stream.
type event struct {
	Start     *struct{ PID int }
	Data      *struct{ Stdout, Stderr, PTY []byte }
	End       *ending
	Keepalive *struct{}
	closed    bool
	err       *failure
}

type ending struct {
	ExitCode int
	Exited   bool
	Status   string
	Error    string
}

type failure struct{ Code, Message string }

// stream is a caller that follows a process.
type stream struct {
	t      *testing.T
	body   *bufio.Reader
	cancel func()
	pid    int
}

func envelope(message any) []byte {
	text, _ := json.Marshal(message)
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))
	return append(head, text...)
}

func shell(script string) object {
	return object{"process": object{"cmd": "/bin/sh", "args": []string{"-c", script}}, "stdin": false}
}

// open starts a streaming call.
func (g *guest) open(method string, message any, headers ...string) *stream {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://guest"+method, bytes.NewReader(envelope(message)))
	check(g.t, err)
	request.Header.Set("Content-Type", "application/connect+json")
	setHeaders(request, headers)
	client := *g.client
	client.Timeout = 0
	response, err := client.Do(request)
	check(g.t, err)
	g.t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/connect+json" {
		g.t.Fatalf("%s answered %d %v", method, response.StatusCode, response.Header)
	}
	return &stream{t: g.t, body: bufio.NewReaderSize(response.Body, 64<<10), cancel: cancel}
}

// start starts a process and reads the start event.
func (g *guest) start(message object, headers ...string) *stream {
	g.t.Helper()
	s := g.open("/process.Process/Start", message, headers...)
	s.begin()
	return s
}

// attach connects to a process that was started before and reads the start event.
func (g *guest) attach(pid int, headers ...string) *stream {
	g.t.Helper()
	s := g.open("/process.Process/Connect", process(pid), headers...)
	s.begin()
	return s
}

func process(pid int) object { return object{"process": object{"pid": pid}} }

func (s *stream) begin() {
	s.t.Helper()
	first := s.next()
	if first.Start == nil {
		s.t.Fatalf("the first event is %+v (%+v), not start", first, first.err)
	}
	s.pid = first.Start.PID
}

func (s *stream) next() event {
	s.t.Helper()
	var head [5]byte
	_, err := io.ReadFull(s.body, head[:])
	check(s.t, err)
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(s.body, text)
	check(s.t, err)
	if head[0] == 2 {
		var trailer struct{ Error *failure }
		check(s.t, json.Unmarshal(text, &trailer))
		return event{closed: true, err: trailer.Error}
	}
	var message struct{ Event event }
	check(s.t, json.Unmarshal(text, &message))
	return message.Event
}

// result is what a finished process left.
type result struct {
	stdout, stderr, terminal string
	end                      ending
}

// finish reads to the end of the stream, which has to be a good one.
func (s *stream) finish() result {
	s.t.Helper()
	var stdout, stderr, terminal strings.Builder
	for {
		e := s.next()
		switch {
		case e.Data != nil:
			stdout.Write(e.Data.Stdout)
			stderr.Write(e.Data.Stderr)
			terminal.Write(e.Data.PTY)
		case e.End != nil:
			if last := s.next(); !last.closed || last.err != nil {
				s.t.Fatalf("after the end event came %+v", last)
			}
			return result{stdout.String(), stderr.String(), terminal.String(), *e.End}
		case e.closed:
			s.t.Fatalf("the stream ended without an end event: %+v", e.err)
		}
	}
}

// failed reads to the end of a stream that has to end with an error.
func (s *stream) failed() failure {
	s.t.Helper()
	for {
		if e := s.next(); e.closed && e.err != nil {
			return *e.err
		} else if e.closed {
			s.t.Fatal("the stream ended without an error")
		}
	}
}

// until reads output until it contains text.
func (s *stream) until(text string) string {
	s.t.Helper()
	var seen strings.Builder
	for !strings.Contains(seen.String(), text) {
		e := s.next()
		if e.Data == nil && e.Keepalive == nil {
			s.t.Fatalf("%+v came before %q, after %q", e, text, seen.String())
		}
		if e.Data != nil {
			seen.Write(e.Data.Stdout)
			seen.Write(e.Data.Stderr)
			seen.Write(e.Data.PTY)
		}
	}
	return seen.String()
}

// refusesStart expects that a start fails with the code and words, and that nothing runs.
func (g *guest) refusesStart(message object, code, words string, headers ...string) {
	g.t.Helper()
	got := g.open("/process.Process/Start", message, headers...).failed()
	if got.Code != code || !strings.Contains(got.Message, words) {
		g.t.Fatalf("the start failed with %+v, not %s ...%s...", got, code, words)
	}
}
