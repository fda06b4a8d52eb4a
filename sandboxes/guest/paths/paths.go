// Package paths turns the paths of requests into absolute ones.
package paths

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// MaxLength is the longest path in bytes, as the kernel has it.
const MaxLength = 4095

// Errors of Resolve; each is the caller's fault.
var (
	ErrNUL     = errors.New("the path contains a NUL byte")
	ErrTooLong = fmt.Errorf("the path is longer than %d bytes", MaxLength)
	ErrTilde   = errors.New("only '~' and '~/...' are expanded, not the home of another user")
)

// Resolve makes path absolute and clean: empty is home, "~" and "~/x" start at home, relative paths too.
func Resolve(path, home string) (string, error) {
	if strings.IndexByte(path, 0) >= 0 {
		return "", ErrNUL
	}
	switch {
	case path == "" || path == "~":
		path = home
	case strings.HasPrefix(path, "~/"):
		path = filepath.Join(home, path[2:])
	case strings.HasPrefix(path, "~"):
		return "", ErrTilde
	case !filepath.IsAbs(path):
		path = filepath.Join(home, path)
	}
	path = filepath.Clean("/" + path)
	if len(path) > MaxLength {
		return "", ErrTooLong
	}
	return path, nil
}

// Shown shortens a path that came from outside for use in a message.
func Shown(path string) string {
	const shown = 300
	if len(path) > shown {
		path = path[:shown] + "..."
	}
	return strings.ToValidUTF8(path, "?")
}
