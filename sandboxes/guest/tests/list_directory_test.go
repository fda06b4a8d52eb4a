package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (g *guest) listed(request object) string {
	g.t.Helper()
	var names []string
	for _, entry := range g.must("/filesystem.Filesystem/ListDir", request)["entries"].([]any) {
		names = append(names, strings.TrimPrefix(entry.(object)["path"].(string), g.home+"/"))
	}
	return strings.Join(names, " ")
}

func tree(t *testing.T) *guest {
	g := startGuest(t)
	for _, name := range []string{"b/inner/deep", "b/a", "a", "c"} {
		g.write(name, "")
	}
	check(t, os.Symlink("b", filepath.Join(g.home, "link")))
	return g
}

func TestADirectoryIsListedInOrder(t *testing.T) {
	g := tree(t)
	equal(t, "depth 0", g.listed(path("~")), "a b c link")
	equal(t, "depth 1", g.listed(object{"path": "", "depth": 1}), "a b c link")
	equal(t, "depth 2", g.listed(object{"path": g.home, "depth": 2}), "a b b/a b/inner c link")
	equal(t, "depth 9", g.listed(object{"path": g.home, "depth": "9"}), "a b b/a b/inner b/inner/deep c link")
}

func TestALinkedRootIsFollowedUnderItsOwnName(t *testing.T) {
	g := tree(t)
	equal(t, "entries", g.listed(path("link")), "link/a link/inner")
}

func TestAnEmptyDirectoryHasNoEntries(t *testing.T) {
	g := startGuest(t)
	status, _, body := g.request("POST", "/filesystem.Filesystem/ListDir", strings.NewReader("{}"), "Content-Type: application/json")
	equal(t, "status", status, 200)
	equal(t, "body", body, `{"entries":[]}`)
}

func TestAListingIsRefused(t *testing.T) {
	g := tree(t)
	const list = "/filesystem.Filesystem/ListDir"
	g.refuses(list, path("missing"), 404, "not_found", "missing' not found")
	g.refuses(list, path("a"), 400, "invalid_argument", "path is not a directory")
	g.refuses(list, object{"path": "b", "depth": -1}, 400, "invalid_argument", "whole number")
}

func TestAListingIsBounded(t *testing.T) {
	g := startGuest(t)
	for i := range 60_000 {
		file, err := os.Create(filepath.Join(g.home, fmt.Sprint(i)))
		check(t, err)
		file.Close()
	}
	g.refuses("/filesystem.Filesystem/ListDir", path(""), 429, "resource_exhausted", "more than 50000 entries")
}
