package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/connect"
	"gatehouse/guest/paths"
)

// defaultPath is the PATH when the guest itself was started without one.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan is a checked request: what to execute, as whom, where and with which variables.
type plan struct {
	program string
	args    []string
	env     []string
	cwd     string
	user    *accounts.User
}

// prepare checks a request against the sandbox's files. It blocks on the disk.
func prepare(wanted *settings, user *accounts.User, defaults map[string]string) (*plan, error) {
	if wanted == nil || wanted.Cmd == "" {
		return nil, connect.Errorf(connect.InvalidArgument, "process.cmd is missing")
	}
	args := append([]string{wanted.Cmd}, wanted.Args...)
	for _, arg := range args {
		if strings.IndexByte(arg, 0) >= 0 {
			return nil, connect.Errorf(connect.InvalidArgument, "process.cmd or process.args contains a NUL byte")
		}
	}
	env, err := environment(user, defaults, wanted.Envs)
	if err != nil {
		return nil, err
	}
	cwd, err := directory(wanted.Cwd, user)
	if err != nil {
		return nil, err
	}
	program, err := find(wanted.Cmd, env["PATH"], cwd)
	if err != nil {
		return nil, err
	}
	return &plan{program: program, args: args, env: flat(env), cwd: cwd, user: user}, nil
}

func environment(user *accounts.User, defaults, wanted map[string]string) (map[string]string, error) {
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": user.Home, "USER": user.Name, "LOGNAME": user.Name, "SHELL": user.Shell,
	}
	if env["PATH"] == "" {
		env["PATH"] = defaultPath
	}
	if user.Shell == "" {
		env["SHELL"] = "/bin/sh"
	}
	for name, value := range defaults {
		env[name] = value
	}
	for name, value := range wanted {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.IndexByte(value, 0) >= 0 {
			return nil, connect.Errorf(connect.InvalidArgument,
				"process.envs: %q is not a valid variable (no '=' in names, no NUL)", paths.Shown(name))
		}
		env[name] = value
	}
	return env, nil
}

func flat(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	sort.Strings(list)
	return list
}

func directory(wanted *string, user *accounts.User) (string, error) {
	given := ""
	if wanted != nil {
		given = *wanted
	}
	cwd, err := paths.Resolve(given, user.Home)
	if err != nil {
		return "", connect.Errorf(connect.InvalidArgument, "process.cwd: %s", err)
	}
	info, err := os.Stat(cwd)
	switch {
	case err != nil:
		return "", connect.Errorf(connect.InvalidArgument, "cwd '%s' does not exist", paths.Shown(cwd))
	case !info.IsDir():
		return "", connect.Errorf(connect.InvalidArgument, "cwd '%s' is not a directory", paths.Shown(cwd))
	}
	return cwd, nil
}

// find looks a program up as a shell would; a name with a slash is left to the kernel.
func find(name, path, cwd string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		candidate := filepath.Join(dir, name)
		info, err := os.Stat(candidate)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", connect.Errorf(connect.InvalidArgument, "'%s' was not found in PATH", paths.Shown(name))
}

// attributes makes the process the leader of a new session, as the user, with files as its 0, 1 and 2.
func (p *plan) attributes(files [3]*os.File, terminal bool) *syscall.ProcAttr {
	system := &syscall.SysProcAttr{Setsid: true, Setctty: terminal}
	if os.Geteuid() == 0 || os.Geteuid() != p.user.UID {
		system.Credential = &syscall.Credential{
			Uid: uint32(p.user.UID), Gid: uint32(p.user.GID), Groups: p.user.Groups,
		}
	}
	return &syscall.ProcAttr{
		Dir: p.cwd, Env: p.env, Sys: system,
		Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
	}
}

// startError tells the caller's mistakes from the sandbox's limits.
func (p *plan) startError(err error) error {
	message := fmt.Sprintf("cannot start '%s' in '%s': %s", paths.Shown(p.args[0]), paths.Shown(p.cwd), err)
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return connect.Errorf(connect.Internal, "%s", message)
	}
	switch errno {
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC:
		return connect.Errorf(connect.ResourceExhausted, "%s (the sandbox is at a limit)", message)
	case syscall.E2BIG, syscall.ENOEXEC, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EISDIR:
		return connect.Errorf(connect.InvalidArgument, "%s", message)
	}
	if errors.Is(errno, fs.ErrNotExist) || errors.Is(errno, fs.ErrPermission) {
		return connect.Errorf(connect.InvalidArgument, "%s", message)
	}
	return connect.Errorf(connect.Internal, "%s", message)
}
