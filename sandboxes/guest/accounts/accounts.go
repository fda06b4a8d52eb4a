// Package accounts finds users and groups in the sandbox's own /etc/passwd and /etc/group.
package accounts

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxFile bounds how much of an account file is read; the tenant may have written it.
const maxFile = 1 << 20

const maxNameShown = 64

// User is an account of the sandbox.
type User struct {
	Name   string
	UID    int
	GID    int
	Home   string
	Shell  string
	Groups []uint32
}

// UnknownUserError says that no such account exists.
type UnknownUserError string

// Error names the user, shortened.
func (e UnknownUserError) Error() string {
	return "user: unknown user " + Shown(string(e))
}

// Shown shortens a name that came from outside for use in a message.
func Shown(name string) string {
	if len(name) > maxNameShown {
		name = name[:maxNameShown] + "..."
	}
	return strings.ToValidUTF8(name, "?")
}

// Lookup finds a user by name. It blocks on the disk.
func Lookup(name string) (*User, error) {
	lines, err := readLines("/etc/passwd")
	if err != nil {
		return nil, err
	}
	for line := range lines {
		field := strings.Split(line, ":")
		if len(field) < 7 || field[0] != name || name == "" {
			continue
		}
		uid, uidErr := id(field[2])
		gid, gidErr := id(field[3])
		if uidErr != nil || gidErr != nil {
			return nil, fmt.Errorf("user: the entry of %s is not valid", Shown(name))
		}
		user := &User{Name: name, UID: uid, GID: gid, Home: field[5], Shell: field[6]}
		if user.Home == "" {
			user.Home = "/"
		}
		user.Groups = groupsOf(name, gid)
		return user, nil
	}
	return nil, UnknownUserError(name)
}

func groupsOf(name string, primary int) []uint32 {
	groups := []uint32{uint32(primary)}
	lines, err := readLines("/etc/group")
	if err != nil {
		return groups
	}
	for line := range lines {
		field := strings.Split(line, ":")
		if len(field) < 4 || !slices.Contains(strings.Split(field[3], ","), name) {
			continue
		}
		gid, err := id(field[2])
		if err == nil && !slices.Contains(groups, uint32(gid)) {
			groups = append(groups, uint32(gid))
		}
	}
	return groups
}

// Names turns numeric owners into names. It reads the account files once.
type Names struct {
	users, groups map[int]string
}

// LoadNames reads the account files; a file that cannot be read leaves numbers. It blocks on the disk.
func LoadNames() *Names {
	return &Names{users: namesIn("/etc/passwd"), groups: namesIn("/etc/group")}
}

// User returns the name of a user id, or the number.
func (n *Names) User(uid uint32) string { return nameOr(n.users, uid) }

// Group returns the name of a group id, or the number.
func (n *Names) Group(gid uint32) string { return nameOr(n.groups, gid) }

func nameOr(names map[int]string, number uint32) string {
	if name, known := names[int(number)]; known {
		return name
	}
	return strconv.FormatUint(uint64(number), 10)
}

func namesIn(path string) map[int]string {
	names := make(map[int]string)
	lines, err := readLines(path)
	if err != nil {
		return names
	}
	for line := range lines {
		field := strings.SplitN(line, ":", 4)
		if len(field) < 4 {
			continue
		}
		number, err := id(field[2])
		if _, taken := names[number]; err == nil && !taken {
			names[number] = field[0]
		}
	}
	return names
}

func id(text string) (int, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	return int(number), err
}

func readLines(path string) (func(yield func(string) bool), error) {
	// Not blocking: a tenant may have put a pipe in its place.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, err
	}
	return strings.SplitSeq(string(text), "\n"), nil
}
