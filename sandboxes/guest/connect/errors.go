// Package connect speaks the Connect protocol (JSON only) over HTTP/1.1:
// unary calls, server streams and client streams, with its error codes.
package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Code is a Connect error code in its wire form.
type Code string

// The codes of the Connect protocol that the guest answers with.
const (
	Canceled           Code = "canceled"
	InvalidArgument    Code = "invalid_argument"
	DeadlineExceeded   Code = "deadline_exceeded"
	NotFound           Code = "not_found"
	AlreadyExists      Code = "already_exists"
	PermissionDenied   Code = "permission_denied"
	ResourceExhausted  Code = "resource_exhausted"
	FailedPrecondition Code = "failed_precondition"
	Unimplemented      Code = "unimplemented"
	Internal           Code = "internal"
	DataLoss           Code = "data_loss"
	Unauthenticated    Code = "unauthenticated"
)

var statuses = map[Code]int{
	Canceled:           499,
	InvalidArgument:    http.StatusBadRequest,
	DeadlineExceeded:   http.StatusGatewayTimeout,
	NotFound:           http.StatusNotFound,
	AlreadyExists:      http.StatusConflict,
	PermissionDenied:   http.StatusForbidden,
	ResourceExhausted:  http.StatusTooManyRequests,
	FailedPrecondition: http.StatusBadRequest,
	Unimplemented:      http.StatusNotImplemented,
	Internal:           http.StatusInternalServerError,
	DataLoss:           http.StatusInternalServerError,
	Unauthenticated:    http.StatusUnauthorized,
}

// Error is a failure that the caller is told about, with its code.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the code and the message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errorf makes an Error from a code and a format.
func Errorf(code Code, format string, arguments ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, arguments...)}
}

// AsError gives any error a code: its own, that of a finished context, or internal.
func AsError(err error) *Error {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(DeadlineExceeded, "the call's time is over")
	case errors.Is(err, context.Canceled):
		return Errorf(Canceled, "the caller went away")
	}
	return Errorf(Internal, "%s", err)
}

// IsCall reports whether a URL path has the shape of a remote call: /package.Service/Method.
func IsCall(path string) bool {
	parts := strings.Split(path, "/")
	return len(parts) == 3 && strings.Contains(parts[1], ".")
}
