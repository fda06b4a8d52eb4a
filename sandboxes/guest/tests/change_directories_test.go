package tests

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func owner(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestADirectoryIsMadeWithItsParents(t *testing.T) {
	g := startGuest(t)
	entry := g.must("/filesystem.Filesystem/MakeDir", path("one/two/three"))["entry"].(object)
	equal(t, "path", entry["path"], g.home+"/one/two/three")
	equal(t, "owner", entry["owner"], "alice")
	equal(t, "permissions", entry["permissions"], "drwxr-xr-x")
	equal(t, "parent's owner", owner(t, g.home+"/one"), userID)
	g.must("/filesystem.Filesystem/MakeDir", path(g.home+"/roots"), asRoot)
	equal(t, "root's owner", owner(t, g.home+"/roots"), 0)
}

func TestMakingADirectoryIsRefused(t *testing.T) {
	g := startGuest(t)
	g.write("file", "")
	const mkdir = "/filesystem.Filesystem/MakeDir"
	g.refuses(mkdir, path("~"), 409, "already_exists", "directory already exists")
	g.refuses(mkdir, path("file"), 400, "invalid_argument", "it is not a directory")
	g.refuses(mkdir, path("file/below"), 400, "invalid_argument", "a parent of")
	equal(t, "file", owner(t, g.home+"/file"), userID)
}

func TestAPathIsMoved(t *testing.T) {
	g := startGuest(t)
	g.write("old", "text")
	entry := g.must("/filesystem.Filesystem/Move", object{"source": "old", "destination": "new/place"})["entry"].(object)
	equal(t, "path", entry["path"], g.home+"/new/place")
	equal(t, "old exists", exists(g.home+"/old"), false)
	equal(t, "parent's owner", owner(t, g.home+"/new"), userID)
	g.write("other", "other text")
	g.must("/filesystem.Filesystem/Move", object{"source": "other", "destination": "new/place"})
	text, err := os.ReadFile(g.home + "/new/place")
	check(t, err)
	equal(t, "overwritten", string(text), "other text")
}

func TestAPathIsMovedToAnotherFileSystem(t *testing.T) {
	g := startGuest(t)
	g.write("tree/sub/file", "text")
	check(t, os.Symlink("sub/file", filepath.Join(g.home, "tree/link")))
	script := "cd " + g.home + " && mkdir disk && mount -t tmpfs disk disk && echo ok"
	equal(t, "mount", g.start(shell(script), asRoot).finish().stdout, "ok\n")
	g.must("/filesystem.Filesystem/Move", object{"source": "tree", "destination": "disk/tree"})
	equal(t, "source exists", exists(g.home+"/tree"), false)
	got := g.start(shell("cat disk/tree/link; stat -c '%U %a' disk/tree/sub/file")).finish()
	equal(t, "what arrived", got.stdout, "textalice 640\n")
}

func TestAMoveIsRefused(t *testing.T) {
	g := startGuest(t)
	g.write("full/file", "")
	g.write("file", "text")
	const move = "/filesystem.Filesystem/Move"
	g.refuses(move, object{"source": "missing", "destination": "x"}, 404, "not_found", "source path")
	g.refuses(move, object{"source": "file", "destination": "file/below"}, 400, "invalid_argument", "a parent of")
	g.refuses(move, object{"source": "full", "destination": "full/inner"}, 400, "invalid_argument", "invalid argument")
	g.refuses(move, object{"source": "file", "destination": "full"}, 409, "already_exists", "file exists")
	equal(t, "file exists", exists(g.home+"/file"), true)
	equal(t, "x exists", exists(g.home+"/x"), false)
}

func TestAPathIsRemoved(t *testing.T) {
	g := startGuest(t)
	g.write("tree/sub/file", "")
	g.write("kept", "")
	check(t, os.Symlink("../kept", filepath.Join(g.home, "tree/link")))
	g.must("/filesystem.Filesystem/Remove", path("tree"))
	equal(t, "tree exists", exists(g.home+"/tree"), false)
	equal(t, "kept exists", exists(g.home+"/kept"), true)
	g.must("/filesystem.Filesystem/Remove", path("tree"))
	g.must("/filesystem.Filesystem/Remove", path("kept/below"))
}

func TestTheRootIsNotRemoved(t *testing.T) {
	g := startGuest(t)
	g.refuses("/filesystem.Filesystem/Remove", path("/tmp/.."), 400, "invalid_argument", "root directory")
}
