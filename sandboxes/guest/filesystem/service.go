// Package filesystem answers questions about files and changes them for callers.
package filesystem

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/config"
	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
	"gatehouse/guest/threads"
)

// Service answers the calls of filesystem.Filesystem.
type Service struct{ config *config.Config }

// New makes the service of a sandbox.
func New(c *config.Config) *Service { return &Service{config: c} }

// Handlers returns a handler for each call by its URL path, except those that watch.
func (s *Service) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"/filesystem.Filesystem/Stat":    unary(s, stat),
		"/filesystem.Filesystem/MakeDir": unary(s, makeDir),
		"/filesystem.Filesystem/Move":    unary(s, move),
		"/filesystem.Filesystem/ListDir": unary(s, listDir),
		"/filesystem.Filesystem/Remove":  unary(s, remove),
	}
}

type pathRequest struct {
	Path string `json:"path"`
}

type moveRequest struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

type entryResponse struct {
	Entry *Entry `json:"entry"`
}

// unary makes a handler of a function that works on the disk for a user.
func unary[Request any](s *Service, act func(*accounts.User, *Request) (any, error)) http.Handler {
	return connect.Unary(func(r *http.Request, request *Request) (response any, err error) {
		threads.Disk(func() {
			var user *accounts.User
			if user, err = accounts.OfCall(r, s.config); err == nil {
				response, err = act(user, request)
			}
		})
		return response, Coded(err)
	})
}

// Resolve makes the path in a field of a request absolute.
func Resolve(field, path string, user *accounts.User) (string, error) {
	absolute, err := paths.Resolve(path, user.Home)
	if err != nil {
		return "", connect.Errorf(connect.InvalidArgument, "%s: %s", field, err)
	}
	return absolute, nil
}

func stat(user *accounts.User, request *pathRequest) (any, error) {
	path, err := Resolve("path", request.Path, user)
	if err != nil {
		return nil, err
	}
	return described(path)
}

func described(path string) (any, error) {
	entry, err := Describe(path, accounts.LoadNames())
	if errors.Is(err, os.ErrNotExist) {
		return nil, notFound(path)
	}
	if err != nil {
		return nil, err
	}
	return entryResponse{entry}, nil
}

func makeDir(user *accounts.User, request *pathRequest) (any, error) {
	path, err := Resolve("path", request.Path, user)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil, connect.Errorf(connect.AlreadyExists, "directory already exists: %s", paths.Shown(path))
	}
	if err == nil {
		return nil, connect.Errorf(connect.InvalidArgument, "path already exists but it is not a directory: %s", paths.Shown(path))
	}
	if err := ensure(path, user); err != nil {
		return nil, err
	}
	return described(path)
}

func ensure(path string, user *accounts.User) error {
	err := paths.MakeDirs(path, user.UID, user.GID)
	if errors.Is(err, syscall.ENOTDIR) {
		return connect.Errorf(connect.InvalidArgument, "a parent of '%s' is not a directory", paths.Shown(path))
	}
	return err
}

func move(user *accounts.User, request *moveRequest) (any, error) {
	source, err := Resolve("source", request.Source, user)
	if err != nil {
		return nil, err
	}
	destination, err := Resolve("destination", request.Destination, user)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(source); errors.Is(err, os.ErrNotExist) {
		return nil, connect.Errorf(connect.NotFound, "source path '%s' not found", paths.Shown(source))
	}
	if err := ensure(filepath.Dir(destination), user); err != nil {
		return nil, err
	}
	if err := rename(source, destination); err != nil {
		return nil, err
	}
	return described(destination)
}

func remove(user *accounts.User, request *pathRequest) (any, error) {
	path, err := Resolve("path", request.Path, user)
	if err != nil {
		return nil, err
	}
	if path == "/" {
		return nil, connect.Errorf(connect.InvalidArgument, "path: the root directory cannot be removed")
	}
	if err := os.RemoveAll(path); err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return nil, err
	}
	return connect.Empty, nil
}
