package filesystem

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

// copyBatch is how many names of a directory are held at once while it is copied.
const copyBatch = 1024

// rename moves a path as rename(2) does. Where that cannot be (another file system, or a directory that still lies in
// the template's layer) it copies beside the destination, renames the copy and removes the source.
func rename(source, destination string) error {
	err := os.Rename(source, destination)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	staged := filepath.Join(filepath.Dir(destination), fmt.Sprintf(".moving-%016x", rand.Uint64()))
	if err = copyTree(source, staged); err == nil {
		err = os.Rename(staged, destination)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(staged))
	}
	return os.RemoveAll(source)
}

func copyTree(source, target string) error {
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		err = copyDirectory(source, target)
	case info.Mode().IsRegular():
		err = copyFile(source, target)
	case info.Mode()&fs.ModeSymlink != 0:
		var leads string
		if leads, err = os.Readlink(source); err == nil {
			err = os.Symlink(leads, target)
		}
	default:
		err = connect.Errorf(connect.FailedPrecondition,
			"'%s' is neither a file, a directory nor a link and cannot be moved to another file system", paths.Shown(source))
	}
	if err != nil {
		return err
	}
	return copyProperties(target, info)
}

func copyDirectory(source, target string) error {
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	directory, err := os.OpenFile(source, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer directory.Close()
	for {
		names, err := directory.Readdirnames(copyBatch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := copyTree(filepath.Join(source, name), filepath.Join(target, name)); err != nil {
				return err
			}
		}
	}
}

func copyFile(source, target string) error {
	from, err := os.OpenFile(source, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	WriteMetadata(target, ReadMetadata(source))
	return nil
}

// copyProperties gives a copy the owner, mode and time of its original; for a link only the owner.
func copyProperties(target string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := paths.Own(target, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if err := os.Chmod(target, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(target, info.ModTime(), info.ModTime())
}
