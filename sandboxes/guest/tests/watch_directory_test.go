package tests

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

const (
	create = "/filesystem.Filesystem/CreateWatcher"
	ask    = "/filesystem.Filesystem/GetWatcherEvents"
	forget = "/filesystem.Filesystem/RemoveWatcher"
	follow = "/filesystem.Filesystem/WatchDir"
)

// watching is a watcher that is asked for its events.
type watching struct {
	g  *guest
	id object
}

func (g *guest) watch(request object) watching {
	g.t.Helper()
	return watching{g, object{"watcherId": g.must(create, request)["watcherId"]}}
}

// told returns the events until now, each as KIND name.
func (w watching) told() []string {
	w.g.t.Helper()
	var all []string
	for _, each := range w.g.must(ask, w.id)["events"].([]any) {
		e := each.(object)
		all = append(all, strings.TrimPrefix(e["type"].(string), "EVENT_TYPE_")+" "+e["name"].(string))
	}
	return all
}

func (w watching) tells(want ...string) {
	w.g.t.Helper()
	equal(w.g.t, "events", strings.Join(w.told(), ", "), strings.Join(want, ", "))
}

func recursive(name string) object { return object{"path": name, "recursive": true} }

func (g *guest) at(name string) string { return filepath.Join(g.home, name) }

func TestChangesAreTold(t *testing.T) {
	g := startGuest(t)
	w := g.watch(path("~"))
	g.write("file", "text")
	w.tells("CREATE file", "WRITE file", "CHMOD file")
	check(t, os.Rename(g.at("file"), g.at("other")))
	check(t, os.Chmod(g.at("other"), 0o600))
	check(t, os.Remove(g.at("other")))
	w.tells("RENAME file", "CREATE other", "CHMOD other", "REMOVE other")
	w.tells()
	check(t, os.Mkdir(g.at("sub"), 0o755))
	w.tells("CREATE sub")
	g.write("sub/inner", "")
	w.tells()
	equal(t, "removal", len(g.must(forget, w.id)), 0)
	id := w.id["watcherId"].(string)
	g.refuses(ask, w.id, 404, "not_found", "watcher with id "+id+" not found")
	g.refuses(forget, w.id, 404, "not_found", "watcher with id "+id+" not found")
}

func TestDirectoriesThatComeLaterAreFollowed(t *testing.T) {
	g := startGuest(t)
	check(t, os.MkdirAll(g.at("old/deep"), 0o755))
	w := g.watch(recursive("~"))
	check(t, os.WriteFile(g.at("old/deep/file"), nil, 0o644))
	w.tells("CREATE old/deep/file")
	check(t, os.MkdirAll(g.at("new/deep"), 0o755))
	check(t, os.WriteFile(g.at("new/deep/file"), nil, 0o644))
	w.tells("CREATE new", "CREATE new/deep", "CREATE new/deep/file")
	check(t, os.RemoveAll(g.at("new")))
	w.tells("REMOVE new/deep/file", "REMOVE new/deep", "REMOVE new")
	check(t, os.Mkdir(g.at("new"), 0o755))
	w.tells("CREATE new")
	check(t, os.WriteFile(g.at("new/again"), nil, 0o644))
	w.tells("CREATE new/again")
}

func TestNothingIsLostOrToldTwiceWhileDirectoriesAreMade(t *testing.T) {
	g := startGuest(t)
	w := g.watch(recursive("~"))
	script := "for i in 1 2 3 4 5 6 7 8; do mkdir -p t/$i/a/b/c; : > t/$i/a/x; : > t/$i/a/b/y; : > t/$i/a/b/c/z; done; echo ok"
	equal(t, "stdout", g.start(shell(script)).finish().stdout, "ok\n")
	want := []string{"CREATE t"}
	for i := range 8 {
		for _, name := range []string{"", "/a", "/a/b", "/a/b/c", "/a/x", "/a/b/y", "/a/b/c/z"} {
			want = append(want, fmt.Sprintf("CREATE t/%d%s", i+1, name))
		}
	}
	got := w.told()
	sort.Strings(got)
	sort.Strings(want)
	equal(t, "events", strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func TestWhatIsWrittenAtOnceIntoANewDirectoryIsTold(t *testing.T) {
	g := startGuest(t)
	w := g.watch(recursive("~"))
	for range 20 {
		equal(t, "stdout", g.start(shell("mkdir -p d/e; echo text > d/e/f; echo ok")).finish().stdout, "ok\n")
		w.tells("CREATE d", "CREATE d/e", "CREATE d/e/f", "WRITE d/e/f")
		check(t, os.RemoveAll(g.at("d")))
		w.tells("REMOVE d/e/f", "REMOVE d/e", "REMOVE d")
	}
}

func TestARenamedDirectoryIsFollowed(t *testing.T) {
	g := startGuest(t)
	check(t, os.MkdirAll(g.at("tree/a/deep"), 0o755))
	w := g.watch(recursive("tree"))
	check(t, os.Rename(g.at("tree/a"), g.at("tree/b")))
	check(t, os.WriteFile(g.at("tree/b/deep/file"), nil, 0o644))
	w.tells("RENAME a", "CREATE b", "CREATE b/deep/file")
	check(t, os.Rename(g.at("tree/b"), g.at("outside")))
	check(t, os.WriteFile(g.at("outside/deep/more"), nil, 0o644))
	w.tells("RENAME b")
	time.Sleep(200 * time.Millisecond) // longer than a directory may be on its way
	check(t, os.WriteFile(g.at("outside/deep/most"), nil, 0o644))
	w.tells()
	check(t, os.Rename(g.at("outside"), g.at("tree/back")))
	w.tells("CREATE back", "CREATE back/deep", "CREATE back/deep/file", "CREATE back/deep/more", "CREATE back/deep/most")
}

func TestAWatchedLinkIsFollowed(t *testing.T) {
	g := startGuest(t)
	check(t, os.MkdirAll(g.at("real/sub"), 0o755))
	check(t, os.Symlink("real", g.at("link")))
	w := g.watch(object{"path": "link", "recursive": true, "includeEntry": true})
	check(t, os.WriteFile(g.at("real/sub/file"), []byte("four"), 0o644))
	first := g.must(ask, w.id)["events"].([]any)[0].(object)
	equal(t, "name", first["name"], "sub/file")
	entry := first["entry"].(object)
	equal(t, "path", entry["path"], g.at("link/sub/file"))
	check(t, os.Remove(g.at("real/sub/file")))
	last := g.must(ask, w.id)["events"].([]any)[0].(object)
	equal(t, "type", last["type"], "EVENT_TYPE_REMOVE")
	equal(t, "entry", last["entry"], nil)
}

// message reads the next message of a watch, or the end of the stream.
func (s *stream) message() (message object, closed bool) {
	s.t.Helper()
	var head [5]byte
	_, err := io.ReadFull(s.body, head[:])
	check(s.t, err)
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(s.body, text)
	check(s.t, err)
	check(s.t, json.Unmarshal(text, &message))
	return message, head[0] == 2
}

func (s *stream) expects(want string) {
	s.t.Helper()
	message, _ := s.message()
	text, _ := json.Marshal(message)
	equal(s.t, "message", string(text), want)
}

func TestChangesAreStreamed(t *testing.T) {
	g := startGuest(t)
	s := g.open(follow, path("~"), "Keepalive-Ping-Interval: 1")
	s.expects(`{"start":{}}`)
	check(t, os.WriteFile(g.at("file"), nil, 0o644))
	s.expects(`{"filesystem":{"name":"file","type":"EVENT_TYPE_CREATE"}}`)
	s.expects(`{"keepalive":{}}`)
	check(t, os.RemoveAll(g.home))
	s.expects(`{"filesystem":{"name":"file","type":"EVENT_TYPE_REMOVE"}}`)
	s.expects(`{"filesystem":{"name":".","type":"EVENT_TYPE_REMOVE"}}`)
	message, closed := s.message()
	equal(t, "end", closed && message["error"] == nil, true)
}

func TestAWatchEndsWithItsTime(t *testing.T) {
	g := startGuest(t)
	equal(t, "code", g.open(follow, path("~"), "Connect-Timeout-Ms: 200").failed().Code, "deadline_exceeded")
}

func TestAWatchIsRefused(t *testing.T) {
	g := startGuest(t)
	g.write("file", "")
	g.refuses(create, path("missing"), 404, "not_found", "path "+g.at("missing")+" not found")
	g.refuses(create, path("file"), 400, "invalid_argument", "path is not a directory: "+g.at("file"))
	g.refuses(create, path("~mallory"), 400, "invalid_argument", "~")
	g.refuses(create, path(""), 401, "unauthenticated", "mallory", "Authorization: Basic bWFsbG9yeTo=")
	equal(t, "code", g.open(follow, path("missing")).failed().Code, "not_found")
	equal(t, "code", g.open(follow, path("file")).failed().Code, "invalid_argument")
}

func TestTheNumberOfWatchersIsBounded(t *testing.T) {
	g := startGuest(t)
	var first watching
	for range 31 {
		first = g.watch(path("~"))
	}
	s := g.open(follow, path("~"))
	s.expects(`{"start":{}}`)
	g.refuses(create, path("~"), 429, "resource_exhausted", "32 watchers")
	s.cancel()
	eventually(t, "the stream's place is free", func() bool {
		status, _ := g.call(create, path("~"))
		return status == 200
	})
	g.must(forget, first.id)
	g.watch(path("~"))
}

func TestLostEventsAreTold(t *testing.T) {
	g := startGuest(t)
	w := g.watch(path("~"))
	script := "i=0; while [ $i -lt 9000 ]; do : > " + strings.Repeat("n", 120) + "$i; i=$((i+1)); done; echo ok"
	equal(t, "stdout", g.start(shell(script)).finish().stdout, "ok\n")
	if kept := len(w.told()); kept < 1000 || kept > 9000 {
		t.Fatalf("%d events were kept", kept)
	}
	g.refuses(ask, w.id, 500, "data_loss", "events were lost")
	g.must(forget, w.id)
}

func TestFieldsMayHaveTheirOwnNames(t *testing.T) {
	g := startGuest(t)
	w := g.watch(object{"path": "~", "include_entry": true, "allow_network_mounts": true})
	check(t, os.WriteFile(g.at("file"), nil, 0o644))
	first := g.must(ask, object{"watcher_id": w.id["watcherId"]})["events"].([]any)[0].(object)
	equal(t, "path", first["entry"].(object)["path"], g.at("file"))
	g.must(forget, object{"watcher_id": w.id["watcherId"]})
}
