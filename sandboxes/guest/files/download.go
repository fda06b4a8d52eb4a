package files

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"gatehouse/guest/accounts"
	"gatehouse/guest/paths"
	"gatehouse/guest/plain"
	"gatehouse/guest/threads"
)

// unsized is how much of a file without a size (such as those in /proc) is read before its length is given up.
const unsized = 64 << 10

func (s *Service) download(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	user, err := s.user(r, query.Get("username"))
	if err != nil {
		writeError(w, err)
		return
	}
	if refusesPlain(r) {
		plain.Error(w, http.StatusNotAcceptable, "only the identity content coding is available")
		return
	}
	file, info, err := open(query.Get("path"), user)
	if err != nil {
		writeError(w, err)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Vary", "Accept-Encoding")
	w.Header().Set("Content-Disposition", disposition(filepath.Base(file.Name())))
	if info.Size() == 0 {
		sendUnsized(w, r, file)
		return
	}
	http.ServeContent(w, r, "", info.ModTime(), &slotted{file})
}

// disposition names the file for the one who saves it, as RFC 6266 and RFC 5987 want it. A name that is not UTF-8 is taken
// for Latin-1, which gives every byte a character.
func disposition(name string) string {
	if !utf8.ValidString(name) {
		characters := make([]rune, len(name))
		for i := range len(name) {
			characters[i] = rune(name[i])
		}
		name = string(characters)
	}
	return mime.FormatMediaType("inline", map[string]string{"filename": name})
}

// open opens a regular file for reading, as root does: the user only matters for relative paths.
func open(given string, user *accounts.User) (file *os.File, info os.FileInfo, err error) {
	path, err := resolve(given, user)
	if err != nil {
		return nil, nil, err
	}
	threads.Disk(func() {
		if file, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			info, err = file.Stat()
		}
	})
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil, fail(http.StatusNotFound, "path '"+paths.Shown(path)+"' does not exist")
	case err != nil:
		return nil, nil, describeError(err)
	case info.IsDir():
		err = fail(http.StatusBadRequest, "path '"+paths.Shown(path)+"' is a directory")
	case !info.Mode().IsRegular():
		err = fail(http.StatusBadRequest, "path '"+paths.Shown(path)+"' is not a regular file")
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// sendUnsized sends a file whose size says nothing, to its end.
func sendUnsized(w http.ResponseWriter, r *http.Request, file *os.File) {
	content := &slotted{file}
	start, err := io.ReadAll(io.LimitReader(content, unsized))
	if err != nil {
		writeError(w, describeError(err))
		return
	}
	if len(start) < unsized {
		info, _ := file.Stat()
		http.ServeContent(w, r, "", info.ModTime(), bytes.NewReader(start))
		return
	}
	w.Write(start)
	if r.Method != http.MethodHead {
		io.Copy(w, content)
	}
}

// slotted reads a file while holding a slot for blocking calls.
type slotted struct{ file *os.File }

// Read reads as the file does, but fails where that would wait: some of the kernel's files never end.
func (s *slotted) Read(b []byte) (n int, err error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	threads.Disk(func() {
		controlErr := raw.Control(func(fd uintptr) {
			for n, err = syscall.Read(int(fd), b); err == syscall.EINTR; {
				n, err = syscall.Read(int(fd), b)
			}
		})
		err = errors.Join(err, controlErr)
	})
	switch {
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: s.file.Name(), Err: err}
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Seek moves as the file does.
func (s *slotted) Seek(offset int64, whence int) (int64, error) { return s.file.Seek(offset, whence) }

func refusesPlain(r *http.Request) bool {
	accepted := strings.ReplaceAll(r.Header.Get("Accept-Encoding"), " ", "")
	for coding := range strings.SplitSeq(accepted, ",") {
		name, weight, _ := strings.Cut(coding, ";q=")
		if name == "identity" {
			return strings.Trim(weight, "0.") == "" && weight != ""
		}
	}
	return false
}
