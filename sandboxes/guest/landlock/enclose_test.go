package landlock

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const rulesFrom = "GUEST_TEST_ENCLOSE"

// TestMain is what is to be enclosed when a test has started this binary again, and what is when Enclose has.
func TestMain(m *testing.M) {
	if rules := os.Getenv(rulesFrom); rules != "" {
		fmt.Fprintln(os.Stderr, Enclose(strings.Fields(rules)))
		os.Exit(1)
	}
	if len(os.Args) == 1 {
		json.NewEncoder(os.Stdout).Encode(report())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// report tries what the rules of enclosed allow and what they do not, and tells how each went.
func report() map[string]string {
	found := map[string]string{}
	tell := func(what string, err error) {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			found[what] = errno.Error()
		} else {
			found[what] = fmt.Sprint(err)
		}
	}
	write := func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755) }
	_, err := os.ReadFile("closed/kept")
	tell("read outside", err)
	tell("write outside", write("closed/new"))
	tell("change outside", write("closed/kept"))
	tell("truncate outside", os.Truncate("closed/kept", 0))
	tell("remove outside", os.Remove("closed/kept"))
	tell("write inside", write("open/new"))
	tell("make a directory inside", os.Mkdir("open/directory", 0o755))
	tell("move inside", os.Rename("open/new", "open/directory/moved"))
	tell("move out", os.Rename("open/directory/moved", "closed/moved"))
	tell("execute inside", exec.Command("open/directory/moved").Run())
	tell("execute a program of the system", exec.Command("true").Run())
	tell("make a device inside", syscall.Mknod("open/device", syscall.S_IFCHR|0o666, 1<<8|3))
	_, err = net.Dial("unix", "@"+filepath.Base(must(os.Getwd())))
	tell("reach an abstract socket outside", err)
	tell("signal a process outside", syscall.Kill(os.Getppid(), 0))
	found["descriptors that were left open"] = fmt.Sprint(descriptorsOf("closed/kept"))
	found["environment"] = strings.Join(os.Environ(), " ")
	found["threads that are not enclosed"] = fmt.Sprint(unenclosedThreads())
	return found
}

// unenclosedThreads writes outside from many threads at once and counts those that succeed.
func unenclosedThreads() int {
	var all sync.WaitGroup
	made := make(chan bool, 16)
	for range cap(made) {
		all.Go(func() {
			made <- os.WriteFile("closed/new", nil, 0o600) == nil
		})
	}
	all.Wait()
	close(made)
	count := 0
	for success := range made {
		if success {
			count++
		}
	}
	return count
}

func descriptorsOf(name string) int {
	count := 0
	for _, entry := range must(os.ReadDir("/proc/self/fd")) {
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		if strings.HasSuffix(target, name) {
			count++
		}
	}
	return count
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// enclosed starts this binary under rules, in a directory with `open` and `closed`, and returns what it tells.
func enclosed(t *testing.T, rules string) (reported map[string]string, said string) {
	t.Helper()
	directory := t.TempDir()
	for _, name := range []string{"open", "closed"} {
		must(0, os.Mkdir(filepath.Join(directory, name), 0o755))
	}
	must(0, os.WriteFile(filepath.Join(directory, "closed/kept"), []byte("kept"), 0o600))
	kept := must(os.Open(filepath.Join(directory, "closed/kept")))
	defer kept.Close()
	listener := must(net.Listen("unix", "@"+filepath.Base(directory)))
	defer listener.Close()
	ready, write, err := os.Pipe()
	must(0, err)
	defer ready.Close()
	program := must(os.Executable())
	rules = strings.NewReplacer("OPEN", directory+"/open", "PROGRAM", filepath.Dir(program)).Replace(rules)
	command := exec.Command(program)
	command.Dir = directory
	command.Env = []string{rulesFrom + "=" + rules, "PATH=" + os.Getenv("PATH"), "SECRET=x"}
	command.ExtraFiles = []*os.File{os.Stdin, write, kept, kept}
	var errors strings.Builder
	command.Stderr = &errors
	output, _ := command.Output()
	write.Close()
	if word := must(io.ReadAll(ready)); len(output) > 0 && len(word) != 1 {
		t.Errorf("descriptor 4 got %q, and the output is %q", word, output)
	}
	if len(output) > 0 {
		must(0, json.Unmarshal(output, &reported))
	}
	return reported, errors.String()
}

func TestEncloseTakesAllThatNoRuleGives(t *testing.T) {
	reported, said := enclosed(t, "/=r /tmp=r /dev=rw /proc=rw OPEN=rw PROGRAM=rx")
	expected := map[string]string{
		"read outside":                     "<nil>",
		"write outside":                    "permission denied",
		"change outside":                   "permission denied",
		"truncate outside":                 "permission denied",
		"remove outside":                   "permission denied",
		"write inside":                     "<nil>",
		"make a directory inside":          "<nil>",
		"move inside":                      "<nil>",
		"move out":                         "permission denied",
		"execute inside":                   "permission denied",
		"execute a program of the system":  "<nil>",
		"make a device inside":             "permission denied",
		"reach an abstract socket outside": "operation not permitted",
		"signal a process outside":         "operation not permitted",
		"descriptors that were left open":  "0",
		"environment":                      "PATH=" + os.Getenv("PATH"),
		"threads that are not enclosed":    "0",
	}
	for what, result := range expected {
		if reported[what] != result {
			t.Errorf("%s: %q, expected %q", what, reported[what], result)
		}
	}
	if said != "" {
		t.Error(said)
	}
}

func TestEncloseGivesWhatARuleSays(t *testing.T) {
	reported, _ := enclosed(t, "/=r /tmp=r /dev=rw /proc=rw OPEN=rwx PROGRAM=rx /not/there=rwx")
	if reported["execute inside"] != "<nil>" {
		t.Errorf("execute inside: %q", reported["execute inside"])
	}
}

func TestEncloseSaysWhyItFailed(t *testing.T) {
	reported, said := enclosed(t, "/=r /tmp=r /dev=rw /proc=rw PROGRAM=r")
	if reported != nil || !strings.Contains(said, "permission denied") {
		t.Errorf("reported %v, said %q", reported, said)
	}
}
