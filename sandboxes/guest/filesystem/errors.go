package filesystem

import (
	"errors"
	"io/fs"
	"syscall"

	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

var codes = map[syscall.Errno]connect.Code{
	syscall.ENOENT:       connect.NotFound,
	syscall.ENOTDIR:      connect.NotFound,
	syscall.EEXIST:       connect.AlreadyExists,
	syscall.ENOTEMPTY:    connect.FailedPrecondition,
	syscall.EXDEV:        connect.FailedPrecondition,
	syscall.EBUSY:        connect.FailedPrecondition,
	syscall.EACCES:       connect.PermissionDenied,
	syscall.EPERM:        connect.PermissionDenied,
	syscall.EROFS:        connect.PermissionDenied,
	syscall.EISDIR:       connect.InvalidArgument,
	syscall.EINVAL:       connect.InvalidArgument,
	syscall.ELOOP:        connect.InvalidArgument,
	syscall.ENAMETOOLONG: connect.InvalidArgument,
	syscall.ENOSPC:       connect.ResourceExhausted,
	syscall.EDQUOT:       connect.ResourceExhausted,
	syscall.EMFILE:       connect.ResourceExhausted,
	syscall.ENFILE:       connect.ResourceExhausted,
	syscall.ENOMEM:       connect.ResourceExhausted,
}

// Coded gives an error of the file system its code.
func Coded(err error) error {
	var known *connect.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	code := connect.Internal
	var errno syscall.Errno
	if errors.As(err, &errno) && codes[errno] != "" {
		code = codes[errno]
	}
	message := err.Error()
	var onPath *fs.PathError
	if errors.As(err, &onPath) {
		message = onPath.Op + " '" + paths.Shown(onPath.Path) + "': " + onPath.Err.Error()
	}
	return connect.Errorf(code, "%s", message)
}

func notFound(path string) error {
	return connect.Errorf(connect.NotFound, "path '%s' not found", paths.Shown(path))
}
