package tests

import (
	"strconv"
	"strings"
	"testing"
)

func TestACommandRunsAndEnds(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("echo out; echo err >&2; exit 3"))
	got := s.finish()
	equal(t, "stdout", got.stdout, "out\n")
	equal(t, "stderr", got.stderr, "err\n")
	equal(t, "end", got.end, ending{ExitCode: 3, Exited: true, Status: "exit status 3", Error: "exit status 3"})
	good := g.start(shell("true")).finish()
	equal(t, "good end", good.end, ending{Exited: true, Status: "exit status 0"})
}

func TestACommandRunsAsTheUserInItsHome(t *testing.T) {
	g := startGuest(t)
	got := g.start(shell("id -u; id -g; id -G; pwd; umask; stat -c %a:%u /proc/$$")).finish()
	want := "1000\n1000\n1000 2000\n" + g.home + "\n0022\n555:1000\n"
	equal(t, "stdout", got.stdout, want)
}

func TestACommandRunsAsTheNamedUser(t *testing.T) {
	g := startGuest(t)
	got := g.start(shell("id -u; pwd"), "Authorization: Basic cm9vdDo=").finish()
	equal(t, "stdout", got.stdout, "0\n/root\n")
}

func TestACommandHasItsVariablesAndNoOthers(t *testing.T) {
	g := startGuest(t, setting("env", object{"COLOR": "green", "SHAPE": "round", "E2B_SANDBOX": "no"}))
	request := object{"process": object{"cmd": "env", "envs": object{"SHAPE": "square", "MINE": "a=b"}}, "stdin": false}
	want := strings.Join([]string{"COLOR=green", "E2B_SANDBOX=true", "E2B_SANDBOX_ID=i1", "E2B_TEMPLATE_ID=base",
		"HOME=" + g.home, "LOGNAME=alice", "MINE=a=b", "PATH=/usr/local/bin:/usr/bin:/bin", "SHAPE=square",
		"SHELL=/bin/sh", "USER=alice", ""}, "\n")
	equal(t, "environment", g.start(request).finish().stdout, want)
}

func TestACommandRunsWhereItIsTold(t *testing.T) {
	g := startGuest(t)
	for given, want := range map[string]string{"/tmp": "/tmp", "": g.home, "~": g.home, "/usr/../tmp/.": "/tmp"} {
		request := object{"process": object{"cmd": "pwd", "cwd": given}}
		equal(t, "directory of "+given, g.start(request).finish().stdout, want+"\n")
	}
}

func TestACommandLeadsItsOwnSessionWithABadnessOfItsOwn(t *testing.T) {
	g := startGuest(t)
	s := g.start(shell("cut -d' ' -f5,6 /proc/$$/stat; cat /proc/self/oom_score_adj; ls /proc/self/fd"))
	pid := strconv.Itoa(s.pid)
	equal(t, "group, session, badness, descriptors", s.finish().stdout, pid+" "+pid+"\n500\n0\n1\n2\n3\n")
}

func TestACommandIsListedWhileItRuns(t *testing.T) {
	g := startGuest(t)
	request := shell("read x")
	delete(request, "stdin")
	request["tag"] = "reader"
	s := g.start(request)
	all := g.must("/process.Process/List", object{})["processes"].([]any)
	equal(t, "processes", len(all), 1)
	one := all[0].(object)
	equal(t, "tag", one["tag"], "reader")
	equal(t, "pid", int(one["pid"].(float64)), s.pid)
	equal(t, "cmd", one["config"].(object)["cmd"], "/bin/sh")
	g.must("/process.Process/CloseStdin", object{"process": object{"tag": "reader"}})
	s.finish()
	equal(t, "processes", len(g.must("/process.Process/List", object{})["processes"].([]any)), 0)
}

func TestABadStartIsRefused(t *testing.T) {
	g := startGuest(t)
	with := func(field string, value any) object {
		request := object{"cmd": "/bin/true"}
		request[field] = value
		return object{"process": request}
	}
	g.refusesStart(object{}, "invalid_argument", "process.cmd is missing")
	g.refusesStart(with("cmd", ""), "invalid_argument", "process.cmd is missing")
	g.refusesStart(with("cmd", "/no/such/program"), "invalid_argument", "no such file")
	g.refusesStart(with("cmd", "no-such-program"), "invalid_argument", "was not found in PATH")
	g.refusesStart(with("cmd", "/etc/passwd"), "invalid_argument", "permission denied")
	g.refusesStart(with("cmd", "/tmp"), "invalid_argument", "permission denied")
	g.refusesStart(with("cmd", "a\x00b"), "invalid_argument", "NUL")
	g.refusesStart(with("args", []string{"a\x00b"}), "invalid_argument", "NUL")
	g.refusesStart(with("args", []string{strings.Repeat("a", 200_000)}), "invalid_argument", "too long")
	g.refusesStart(with("args", "text"), "invalid_argument", "not valid JSON")
	g.refusesStart(with("envs", object{"A=B": "c"}), "invalid_argument", "process.envs")
	g.refusesStart(with("envs", object{"A": "\x00"}), "invalid_argument", "process.envs")
	g.refusesStart(with("cwd", "/no/such"), "invalid_argument", "cwd '/no/such' does not exist")
	g.refusesStart(with("cwd", "/etc/passwd"), "invalid_argument", "is not a directory")
	g.refusesStart(with("cwd", "~bob"), "invalid_argument", "process.cwd")
	g.refusesStart(with("cwd", "/\x00"), "invalid_argument", "NUL")
	g.refusesStart(object{"process": object{"cmd": "true"}, "tag": strings.Repeat("t", 300)}, "invalid_argument", "tag")
	equal(t, "processes", len(g.must("/process.Process/List", object{})["processes"].([]any)), 0)
}

func TestAnUnknownUserIsRefused(t *testing.T) {
	g := startGuest(t)
	g.refusesStart(shell("true"), "unauthenticated", "invalid username: 'mallory'", "Authorization: Basic bWFsbG9yeTo=")
	g.refusesStart(shell("true"), "unauthenticated", "not base64", "Authorization: Basic ###")
}
