package filesystem

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"gatehouse/guest/accounts"
)

// Entry describes a file, directory or link on the wire.
type Entry struct {
	Name          string            `json:"name"`
	Type          string            `json:"type"`
	Path          string            `json:"path"`
	Size          string            `json:"size"`
	Mode          uint32            `json:"mode"`
	Permissions   string            `json:"permissions"`
	Owner         string            `json:"owner"`
	Group         string            `json:"group"`
	ModifiedTime  string            `json:"modifiedTime"`
	SymlinkTarget string            `json:"symlinkTarget,omitempty"`
	Metadata      map[string]string `json:"metadata,omitempty"`
}

// Describe makes the entry of a path. A link has its own size and time, but the type and mode of what it leads to.
// It blocks on the disk.
func Describe(path string, names *accounts.Names) (*Entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return describe(path, info, names), nil
}

func describe(path string, info fs.FileInfo, names *accounts.Names) *Entry {
	entry := &Entry{
		Name:         filepath.Base(path),
		Type:         typeOf(info.Mode()),
		Path:         path,
		Size:         strconv.FormatInt(info.Size(), 10),
		Mode:         uint32(info.Mode().Perm()),
		Permissions:  info.Mode().String(),
		ModifiedTime: info.ModTime().UTC().Format(time.RFC3339Nano),
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		entry.Owner, entry.Group = names.User(stat.Uid), names.Group(stat.Gid)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		entry.followLink()
	} else {
		entry.Metadata = ReadMetadata(path)
	}
	return entry
}

func (e *Entry) followLink() {
	e.SymlinkTarget = e.Path
	if target, err := filepath.EvalSymlinks(e.Path); err == nil {
		e.SymlinkTarget = target
	}
	e.Type, e.Mode = typeUnknown, 0
	if info, err := os.Stat(e.Path); err == nil {
		e.Type, e.Mode = typeOf(info.Mode()), uint32(info.Mode().Perm())
	}
}

const typeUnknown = "FILE_TYPE_UNSPECIFIED"

func typeOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "FILE_TYPE_FILE"
	case mode.IsDir():
		return "FILE_TYPE_DIRECTORY"
	}
	return typeUnknown
}
