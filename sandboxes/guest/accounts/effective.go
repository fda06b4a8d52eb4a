package accounts

import (
	"cmp"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"strings"

	"gatehouse/guest/config"
	"gatehouse/guest/connect"
)

// FromBasic returns the user name of the request's Basic authorization; "" when it has none.
func FromBasic(r *http.Request) (string, error) {
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", nil
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials))
	if err != nil {
		return "", connect.Errorf(connect.Unauthenticated, "the Basic authorization is not base64")
	}
	name, _, _ := strings.Cut(string(text), ":")
	return name, nil
}

// OtherUserError says that a sandbox with only one user was asked to act for another.
type OtherUserError struct{ only string }

// Error names the one user.
func (e OtherUserError) Error() string { return "this sandbox runs everything as '" + e.only + "'" }

// Effective finds the user that a name means in a sandbox; "" is the default one. It blocks on the disk.
func Effective(name string, c *config.Config) (*User, error) {
	if name == "" {
		name = c.DefaultUser
	}
	if c.OnlyUser != "" && name != c.OnlyUser {
		return nil, OtherUserError{c.OnlyUser}
	}
	user, err := Lookup(name)
	if err == nil && c.OnlyUser != "" {
		// The account file may say anything; who the guest runs as is certain.
		user.UID, user.GID = os.Geteuid(), os.Getegid()
	}
	return user, err
}

// OfCall returns the user that a remote call acts for: the one it names, or the default one. It blocks on the disk.
func OfCall(r *http.Request, c *config.Config) (*User, error) {
	name, err := FromBasic(r)
	if err != nil {
		return nil, err
	}
	user, err := Effective(name, c)
	var other OtherUserError
	switch name = Shown(cmp.Or(name, c.DefaultUser)); {
	case errors.As(err, &other):
		return nil, connect.Errorf(connect.Unauthenticated, "invalid username: '%s': %s", name, other)
	case err != nil:
		return nil, connect.Errorf(connect.Unauthenticated, "invalid username: '%s'", name)
	}
	return user, nil
}
