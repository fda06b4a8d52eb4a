package tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestHealthIsAnswered(t *testing.T) {
	g := startGuest(t)
	status, _, body := g.request("GET", "/health", nil)
	equal(t, "status", status, 204)
	equal(t, "body", body, "")
}

func TestTheDefaultVariablesAreTold(t *testing.T) {
	g := startGuest(t)
	status, _, body := g.request("GET", "/envs", nil)
	equal(t, "status", status, 200)
	equal(t, "body", body, `{"COLOR":"green","E2B_SANDBOX":"true","E2B_SANDBOX_ID":"i1","E2B_TEMPLATE_ID":"base"}`)
}

func TestMetricsAreTold(t *testing.T) {
	g := startGuest(t)
	_, _, body := g.request("GET", "/metrics", nil)
	var report map[string]float64
	check(t, json.Unmarshal([]byte(body), &report))
	equal(t, "fields", len(report), 10)
	for _, name := range []string{"ts", "cpu_count", "mem_total", "mem_used", "mem_total_mib", "disk_total"} {
		equal(t, name+" is positive", report[name] > 0, true)
	}
	g.start(shell("timeout 0.5 sh -c 'while :; do :; done'")).finish()
	g.start(shell("exec yes > /dev/null"))
	time.Sleep(500 * time.Millisecond)
	_, _, body = g.request("GET", "/metrics", nil)
	check(t, json.Unmarshal([]byte(body), &report))
	equal(t, "cpu is used", report["cpu_used_pct"] > 5, true)
}

func TestMetricsNameTheLimitsOfTheSandbox(t *testing.T) {
	g := startGuest(t, setting("memory_mib", 48), setting("cpus", 1))
	_, _, body := g.request("GET", "/metrics", nil)
	var report map[string]float64
	check(t, json.Unmarshal([]byte(body), &report))
	equal(t, "memory", report["mem_total"], float64(48<<20))
	equal(t, "memory in MiB", report["mem_total_mib"], 48.0)
	equal(t, "processors", report["cpu_count"], 1.0)
}

func TestAConnectionServesManyRequests(t *testing.T) {
	g := startGuest(t)
	conn, err := net.Dial("unix", g.socket)
	check(t, err)
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for range 3 {
		body := envelope(shell("true"))
		fmt.Fprintf(conn, "POST /process.Process/Start HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		response, err := http.ReadResponse(reader, nil)
		check(t, err)
		io.Copy(io.Discard, response.Body)
		equal(t, "kept alive", response.Close, false)
		fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err = http.ReadResponse(reader, nil)
		check(t, err)
		equal(t, "status", response.StatusCode, 204)
	}
}

func TestAStartIsAnsweredWhileTheRequestIsStillOpen(t *testing.T) {
	g := startGuest(t)
	reading, writing := io.Pipe()
	defer writing.Close()
	go writing.Write(envelope(shell("echo ok")))
	request, err := http.NewRequest("POST", "http://guest/process.Process/Start", reading)
	check(t, err)
	request.Header.Set("Content-Type", "application/connect+json")
	response, err := g.client.Do(request)
	check(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(t, err)
	equal(t, "has the output", strings.Contains(string(text), `{"stdout":"b2sK"}`), true)
}

func TestUnknownPathsAreTold(t *testing.T) {
	g := startGuest(t)
	for _, path := range []string{"/", "/init", "/freeze", "/health/", "/files/"} {
		status, _, body := g.request("POST", path, nil)
		equal(t, path, status, 404)
		equal(t, path, body, `{"code":404,"message":"no such path"}`)
	}
	g.refuses("/process.Process/Nothing", object{}, 501, "unimplemented", "no such call")
	g.refuses("/other.Service/Call", object{}, 501, "unimplemented", "no such call")
}

func TestWrongRequestsAreRefused(t *testing.T) {
	g := startGuest(t)
	const list = "/process.Process/List"
	status, header, _ := g.request("GET", list, nil)
	equal(t, "method", status, 405)
	equal(t, "allowed", header.Get("Allow"), "POST")
	status, _, _ = g.request("POST", list, nil, "Content-Type: application/proto")
	equal(t, "content type", status, 415)
	status, _, _ = g.request("POST", "/process.Process/Start", nil, "Content-Type: application/json")
	equal(t, "content type of a stream", status, 415)
	g.refuses(list, object{}, 501, "unimplemented", "content encoding", "Content-Encoding: gzip")
	status, _, body := g.request("POST", list, strings.NewReader("{"), "Content-Type: application/json")
	equal(t, "status", status, 400)
	equal(t, "code", strings.Contains(body, `"code":"invalid_argument"`), true)
	status, _, _ = g.request("POST", list, nil, "Content-Type: application/json")
	equal(t, "empty body", status, 200)
	status, _, _ = g.request("POST", list, nil, "Content-Type: application/json", "X-Large: "+strings.Repeat("x", 100_000))
	equal(t, "headers", status, 431)
}

func TestBadEnvelopesAreRefused(t *testing.T) {
	g := startGuest(t)
	for body, words := range map[string]string{
		"":                             "the request has no message",
		"\x00\x00\x00":                 "ended within an envelope",
		"\x00\x00\x00\x00\x09{}":       "ended within an envelope",
		"\x01\x00\x00\x00\x02{}":       "envelope flags 1",
		"\x00\xff\xff\xff\xff{}":       "larger than",
		"\x00\x00\x00\x00\x04null":     "process.cmd is missing",
		"\x00\x00\x00\x00\x05[1,2]":    "not valid JSON",
		"\x00\x00\x00\x00\x02{}extra!": "process.cmd is missing",
	} {
		status, _, text := g.request("POST", "/process.Process/Start", strings.NewReader(body),
			"Content-Type: application/connect+json")
		equal(t, "status", status, 200)
		if text[0] != 2 || !strings.Contains(text, words) {
			t.Fatalf("%q was answered with %q", body, text)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	g := startGuest(t)
	g.client.CloseIdleConnections()
	var open []net.Conn
	for range 512 {
		conn, err := net.Dial("unix", g.socket)
		check(t, err)
		defer conn.Close()
		open = append(open, conn)
	}
	eventually(t, "one more is refused", func() bool {
		status, header, _ := g.request("GET", "/health", nil)
		return status == 503 && header.Get("X-Gatehouse-Reason") == "too_many_connections"
	})
	for _, conn := range open[:100] {
		conn.Close()
	}
	eventually(t, "there is room again", func() bool {
		status, _, _ := g.request("GET", "/health", nil)
		return status == 204
	})
}
