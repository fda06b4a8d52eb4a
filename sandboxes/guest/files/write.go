package files

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/filesystem"
	"gatehouse/guest/paths"
	"gatehouse/guest/threads"
)

var blocks = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

var errSource = fail(http.StatusBadRequest, "the upload ended early or is damaged")

// write stores source at an absolute path: missing parents are made, a new file belongs to the user, an existing one
// is replaced in place and keeps its mode. size is how many bytes will come, or -1.
func write(path string, user *accounts.User, source io.Reader, size int64, metadata map[string]string) (err error) {
	var file *os.File
	threads.Disk(func() { file, err = create(path, user, size) })
	if err != nil {
		return err
	}
	err = fill(file, source)
	threads.Disk(func() {
		if err == nil {
			filesystem.WriteMetadata(path, metadata)
		}
		err = errors.Join(err, file.Close())
	})
	return err
}

func create(path string, user *accounts.User, size int64) (*os.File, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, fail(http.StatusBadRequest, "path is a directory: "+paths.Shown(path))
	case err == nil && !info.Mode().IsRegular():
		return nil, fail(http.StatusBadRequest, "path is not a regular file: "+paths.Shown(path))
	}
	parent := filepath.Dir(path)
	if err := paths.MakeDirs(parent, user.UID, user.GID); err != nil {
		return nil, describeError(err)
	}
	if !fits(parent, size) {
		return nil, errNoSpace
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, describeError(err)
	}
	if os.Geteuid() == 0 {
		err = file.Chown(user.UID, user.GID)
	}
	if err != nil {
		file.Close()
		return nil, describeError(err)
	}
	return file, nil
}

// fits tells before an existing file is emptied whether the disk has room for what comes instead.
func fits(directory string, size int64) bool {
	var disk syscall.Statfs_t
	if size <= 0 || syscall.Statfs(directory, &disk) != nil {
		return true
	}
	return uint64(size)/uint64(disk.Bsize) <= disk.Bavail || disk.Blocks == 0
}

// fill copies with a slot held for each write only, so that a slow sender holds none.
func fill(file *os.File, source io.Reader) error {
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	for {
		n, readErr := readBlock(source, *block)
		var err error
		if n > 0 {
			threads.Disk(func() { _, err = file.Write((*block)[:n]) })
		}
		switch {
		case err != nil:
			return describeError(err)
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return errSource
		}
	}
}

// readBlock fills block as far as source goes. Unlike io.ReadFull it keeps the end of source apart from a source
// that broke off.
func readBlock(source io.Reader, block []byte) (n int, err error) {
	for n < len(block) && err == nil {
		var read int
		read, err = source.Read(block[n:])
		n += read
	}
	return n, err
}
