package filesystem

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

// maxEntries is how many entries one listing may have, and how many names of one directory are read.
const maxEntries = 50_000

type listRequest struct {
	Path  string         `json:"path"`
	Depth connect.Number `json:"depth"`
}

// listing collects the JSON of a walk as it goes, so that a large one holds its text only.
type listing struct {
	names *accounts.Names
	count int
	text  []byte
}

func listDir(user *accounts.User, request *listRequest) (any, error) {
	path, err := Resolve("path", request.Path, user)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, notFound(path)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, connect.Errorf(connect.InvalidArgument, "path is not a directory: %s", paths.Shown(path))
	}
	l := &listing{names: accounts.LoadNames(), text: []byte(`{"entries":[`)}
	if err := l.walk(path, max(1, int(request.Depth))); err != nil {
		return nil, err
	}
	return connect.Raw(append(l.text, "]}"...)), nil
}

func (l *listing) walk(directory string, depth int) error {
	children, err := readDir(directory)
	if err != nil {
		return err
	}
	for _, child := range children {
		path := filepath.Join(directory, child.Name())
		info, err := child.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := l.add(path, info); err != nil {
			return err
		}
		if !info.IsDir() || depth <= 1 {
			continue
		}
		if err := l.walk(path, depth-1); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (l *listing) add(path string, info fs.FileInfo) error {
	if l.count++; l.count > maxEntries {
		return tooMany(path)
	}
	text, err := json.Marshal(describe(path, info, l.names))
	if err != nil {
		return err
	}
	if l.count > 1 {
		l.text = append(l.text, ',')
	}
	l.text = append(l.text, text...)
	return nil
}

// readDir reads a directory in the order of names, as long as it is not larger than a listing may be.
func readDir(path string) ([]fs.DirEntry, error) {
	// Not a plain open: a tenant may put a pipe in the place of a directory meanwhile.
	directory, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	children, err := directory.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(children) > maxEntries {
		return nil, tooMany(path)
	}
	sort.Slice(children, func(i, j int) bool { return children[i].Name() < children[j].Name() })
	return children, nil
}

func tooMany(path string) error {
	return connect.Errorf(connect.ResourceExhausted,
		"the listing has more than %d entries (at '%s'): list smaller parts", maxEntries, paths.Shown(path))
}
