// Package files carries whole files in and out over plain HTTP.
package files

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/config"
	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
	"gatehouse/guest/plain"
	"gatehouse/guest/threads"
)

// Service answers the calls on /files.
type Service struct{ config *config.Config }

// New makes the service of a sandbox.
func New(c *config.Config) *Service { return &Service{config: c} }

// ServeHTTP downloads on GET and uploads on POST.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.download(w, r)
	case http.MethodPost:
		s.upload(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		plain.Error(w, http.StatusMethodNotAllowed, "only GET and POST are possible here")
	}
}

// failure is an error with the HTTP status that it is answered with.
type failure struct {
	status  int
	message string
}

// Error returns the message.
func (f *failure) Error() string { return f.message }

func fail(status int, message string) error { return &failure{status, message} }

func writeError(w http.ResponseWriter, err error) {
	var known *failure
	if errors.As(err, &known) {
		plain.Error(w, known.status, known.message)
		return
	}
	plain.Error(w, statusOf(err), err.Error())
}

func statusOf(err error) int {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return http.StatusInternalServerError
	}
	switch errno {
	case syscall.ENOENT:
		return http.StatusNotFound
	case syscall.ENOSPC, syscall.EDQUOT:
		return http.StatusInsufficientStorage
	case syscall.EFBIG:
		return http.StatusRequestEntityTooLarge
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return http.StatusForbidden
	case syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EINVAL, syscall.ENXIO:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// user returns the user that a request acts for: of the query, of its Basic authorization, or the default one.
func (s *Service) user(r *http.Request, named string) (user *accounts.User, err error) {
	if named == "" {
		named, err = accounts.FromBasic(r)
	}
	if err != nil {
		return nil, fail(http.StatusUnauthorized, connect.AsError(err).Message)
	}
	threads.Disk(func() { user, err = accounts.Effective(named, s.config) })
	if err != nil {
		shown := accounts.Shown(cmp.Or(named, s.config.DefaultUser))
		return nil, fail(http.StatusUnauthorized, "error looking up user '"+shown+"': "+err.Error())
	}
	return user, nil
}

func resolve(path string, user *accounts.User) (string, error) {
	absolute, err := paths.Resolve(path, user.Home)
	if err != nil {
		return "", fail(http.StatusBadRequest, "path: "+err.Error())
	}
	return absolute, nil
}

// describeError keeps the kernel's words and shortens the path.
func describeError(err error) error {
	var onPath *os.PathError
	if !errors.As(err, &onPath) {
		return err
	}
	status := statusOf(err)
	if status == http.StatusInsufficientStorage {
		return errNoSpace
	}
	return fail(status, strings.Join([]string{onPath.Op, " '", paths.Shown(onPath.Path), "': ", onPath.Err.Error()}, ""))
}

var errNoSpace = fail(http.StatusInsufficientStorage, "not enough disk space available")
