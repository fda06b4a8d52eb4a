package paths

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// MakeDirs makes a directory and its missing parents, each with mode 0755 and the given owner. It blocks on the disk.
func MakeDirs(path string, uid, gid int) error {
	missing := 0
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			return &os.PathError{Op: "mkdir", Path: at, Err: syscall.ENOTDIR}
		}
		if err == nil || at == "/" {
			break
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		missing++
	}
	for depth := missing - 1; depth >= 0; depth-- {
		if err := makeOne(ancestor(path, depth), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func makeOne(path string, uid, gid int) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
			return nil
		}
		return err
	}
	return Own(path, uid, gid)
}

// Own gives a path, not what it links to, to a user. A guest that is not root keeps what it makes.
func Own(path string, uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

func ancestor(path string, levels int) string {
	for range levels {
		path = path[:strings.LastIndexByte(path, '/')]
	}
	return path
}
