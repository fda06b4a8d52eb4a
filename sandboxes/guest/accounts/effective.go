package accounts

import (
	"encoding/base64"
	"net/http"
	"strings"

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

// OfCall returns the user that a remote call acts for: the one it names, or the default one. It blocks on the disk.
func OfCall(r *http.Request, defaultUser string) (*User, error) {
	name, err := FromBasic(r)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = defaultUser
	}
	user, err := Lookup(name)
	if err != nil {
		return nil, connect.Errorf(connect.Unauthenticated, "invalid username: '%s'", Shown(name))
	}
	return user, nil
}
