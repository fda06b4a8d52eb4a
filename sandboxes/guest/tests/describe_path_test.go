package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func path(name string) object { return object{"path": name} }

// write makes a file of the user in her home.
func (g *guest) write(name, text string) string {
	g.t.Helper()
	full := filepath.Join(g.home, name)
	check(g.t, os.MkdirAll(filepath.Dir(full), 0o755))
	check(g.t, os.WriteFile(full, []byte(text), 0o640))
	check(g.t, os.Chown(full, userID, staffID))
	return full
}

func TestAFileIsDescribed(t *testing.T) {
	g := startGuest(t)
	full := g.write("notes.txt", "twelve bytes")
	check(t, os.Chtimes(full, time.Time{}, time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)))
	entry := g.must("/filesystem.Filesystem/Stat", path("notes.txt"))["entry"].(object)
	want := object{"name": "notes.txt", "type": "FILE_TYPE_FILE", "path": full, "size": "12", "mode": 0o640 + 0.0,
		"permissions": "-rw-r-----", "owner": "alice", "group": "staff", "modifiedTime": "2026-01-02T03:04:05.678Z"}
	equal(t, "fields", len(entry), len(want))
	for name, value := range want {
		equal(t, name, entry[name], value)
	}
}

func TestADirectoryIsDescribed(t *testing.T) {
	g := startGuest(t)
	entry := g.must("/filesystem.Filesystem/Stat", path("~"))["entry"].(object)
	equal(t, "type", entry["type"], "FILE_TYPE_DIRECTORY")
	equal(t, "permissions", entry["permissions"], "drwxr-xr-x")
	equal(t, "path", entry["path"], g.home)
}

func TestALinkIsDescribedByItsTarget(t *testing.T) {
	g := startGuest(t)
	full := g.write("target", "text")
	check(t, os.Symlink("target", filepath.Join(g.home, "link")))
	check(t, os.Symlink("nowhere", filepath.Join(g.home, "dangling")))
	entry := g.must("/filesystem.Filesystem/Stat", path("link"))["entry"].(object)
	equal(t, "type", entry["type"], "FILE_TYPE_FILE")
	equal(t, "target", entry["symlinkTarget"], full)
	equal(t, "permissions", entry["permissions"], "Lrwxrwxrwx")
	equal(t, "mode", entry["mode"], 0o640+0.0)
	entry = g.must("/filesystem.Filesystem/Stat", path("dangling"))["entry"].(object)
	equal(t, "type", entry["type"], "FILE_TYPE_UNSPECIFIED")
	equal(t, "target", entry["symlinkTarget"], filepath.Join(g.home, "dangling"))
}

func TestSpecialBitsAreDescribed(t *testing.T) {
	g := startGuest(t)
	check(t, os.Chmod(g.write("program", ""), 0o755|os.ModeSetuid|os.ModeSetgid))
	entry := g.must("/filesystem.Filesystem/Stat", path("program"))["entry"].(object)
	equal(t, "permissions", entry["permissions"], "ugrwxr-xr-x")
	equal(t, "mode", entry["mode"], 0o755+0.0)
}

func TestMetadataMovesAlong(t *testing.T) {
	g := startGuest(t)
	g.request("POST", "/files?path=file", strings.NewReader("x"), binaryType, "X-Metadata-Origin: a robot")
	moved := g.must("/filesystem.Filesystem/Move", object{"source": "file", "destination": "new/place"})["entry"].(object)
	equal(t, "after the move", moved["metadata"].(object)["origin"], "a robot")
	listed := g.must("/filesystem.Filesystem/ListDir", path("new"))["entries"].([]any)[0].(object)
	equal(t, "in the listing", listed["metadata"].(object)["origin"], "a robot")
}

func TestAnUnknownOwnerIsANumber(t *testing.T) {
	g := startGuest(t)
	check(t, os.Chown(g.write("odd", ""), 54321, 54322))
	entry := g.must("/filesystem.Filesystem/Stat", path("odd"))["entry"].(object)
	equal(t, "owner", entry["owner"], "54321")
	equal(t, "group", entry["group"], "54322")
}

func TestADescriptionIsRefused(t *testing.T) {
	g := startGuest(t)
	g.write("file", "")
	const stat = "/filesystem.Filesystem/Stat"
	g.refuses(stat, path("missing"), 404, "not_found", "missing' not found")
	g.refuses(stat, path("file/below"), 404, "not_found", "not a directory")
	g.refuses(stat, path("a\x00b"), 400, "invalid_argument", "NUL")
	g.refuses(stat, path("~mallory"), 400, "invalid_argument", "~")
	g.refuses(stat, path(strings.Repeat("d/", 3000)), 400, "invalid_argument", "longer than 4095")
	g.refuses(stat, path(strings.Repeat("n", 300)), 400, "invalid_argument", "too long")
	g.refuses(stat, path(""), 401, "unauthenticated", "invalid username: 'mallory'", "Authorization: Basic bWFsbG9yeTo=")
	g.refuses(stat, object{"path": 7}, 400, "invalid_argument", "not valid JSON")
}

func TestAccountFilesThatAreNoFilesDoNotHang(t *testing.T) {
	g := startGuest(t)
	pipe := filepath.Join(g.home, "pipe")
	check(t, syscall.Mkfifo(pipe, 0o644))
	script := "mount --bind " + pipe + " /etc/group && echo ok"
	equal(t, "stdout", g.start(shell(script), asRoot).finish().stdout, "ok\n")
	entry := g.must("/filesystem.Filesystem/Stat", path(g.home))["entry"].(object)
	equal(t, "group", entry["group"], "1000")
}
