package tests

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asAlice starts the guest as Alice, without any right, in a sandbox that has no other user.
func asAlice(settings object, command *exec.Cmd) {
	settings["only_user"] = "alice"
	command.Env = append(command.Env, dropTo+"=1000")
}

func TestOneUserNeedsNoRights(t *testing.T) {
	g := startGuest(t, asAlice)
	done := g.start(shell("id -un; grep -c '^CapEff:.0000000000000000$' /proc/self/status; echo $HOME; pwd")).finish()
	equal(t, "output", done.stdout, "alice\n1\n"+g.home+"\n"+g.home+"\n")
	g.must("/filesystem.Filesystem/MakeDir", path("a/b"))
	status, _, body := g.request(http.MethodPost, "/files?path=a/b/c/d.txt", strings.NewReader("hello"),
		"Content-Type: application/octet-stream")
	equal(t, "status", status, http.StatusOK)
	if !strings.Contains(body, g.home+"/a/b/c/d.txt") {
		t.Fatalf("the upload answered %s", body)
	}
	entry := g.must("/filesystem.Filesystem/Stat", path("a/b/c"))["entry"].(object)
	equal(t, "owner", entry["owner"], "alice")
	equal(t, "permissions", entry["permissions"], "drwxr-xr-x")
	terminal := g.start(object{"process": object{"cmd": "/bin/sh", "args": []string{"-c", "stty size; id -u"}},
		"pty": object{"size": object{"cols": 91, "rows": 17}}}).finish()
	equal(t, "terminal", terminal.terminal, "17 91\r\n1000\r\n")
}

func TestOneUserMayBeNamed(t *testing.T) {
	g := startGuest(t, asAlice)
	done := g.start(shell("id -un"), "Authorization: Basic YWxpY2U6").finish()
	equal(t, "output", done.stdout, "alice\n")
}

func TestOtherUsersAreRefused(t *testing.T) {
	g := startGuest(t, asAlice)
	words := "invalid username: 'root': this sandbox runs everything as 'alice'"
	g.refusesStart(shell("touch "+g.home+"/made"), "unauthenticated", words, "Authorization: Basic cm9vdDo=")
	g.refuses("/filesystem.Filesystem/Stat", path("/"), http.StatusUnauthorized, "unauthenticated", words,
		"Authorization: Basic cm9vdDo=")
	status, _, body := g.request(http.MethodGet, "/files?path=/etc/passwd&username=root", nil)
	equal(t, "status", status, http.StatusUnauthorized)
	if want := "error looking up user 'root': this sandbox runs everything as 'alice'"; !strings.Contains(body, want) {
		t.Fatalf("the download answered %s", body)
	}
	g.refuses("/filesystem.Filesystem/Stat", path("made"), http.StatusNotFound, "not_found", "not found")
}

func TestOneUserHasNoMoreThanItsOwnRights(t *testing.T) {
	g := startGuest(t, asAlice, setting("max_processes", 64))
	secret := g.write("secret", "text")
	check(t, os.Chown(secret, 0, 0))
	check(t, os.Chmod(secret, 0o600))
	g.refusesFiles("GET", "?path=secret", nil, 403, "permission denied")
	g.refusesFiles("POST", "?path=secret", strings.NewReader("x"), 403, "permission denied", binaryType)
	g.refusesFiles("POST", "?path=/new", strings.NewReader("x"), 403, "read-only", binaryType)
	g.refuses("/filesystem.Filesystem/MakeDir", path("/new"), 403, "permission_denied", "read-only")
	done := g.start(shell("grep NoNewPrivs /proc/self/status; awk '/Max processes/{print $3}' /proc/self/limits")).finish()
	equal(t, "output", done.stdout, "NoNewPrivs:\t1\n48\n")
}

func TestOneUserWatches(t *testing.T) {
	g := startGuest(t, asAlice)
	check(t, os.MkdirAll(g.at("closed/inner"), 0o755))
	check(t, os.Chmod(g.at("closed"), 0o700))
	w := g.watch(recursive("~"))
	g.must("/filesystem.Filesystem/MakeDir", path("a/b"))
	w.tells("CREATE a", "CREATE a/b")
	g.refuses(create, path("closed"), 403, "permission_denied", "permission denied")
}
