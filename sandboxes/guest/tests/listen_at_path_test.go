package tests

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// listening lets the guest make its listener itself, as under a runtime that passes no descriptors on.
func listening(path string) option {
	return func(_ object, command *exec.Cmd) {
		command.Args = append(command.Args, "listen", path)
		command.ExtraFiles = nil
	}
}

func TestAListenerOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "guest.sock")
	g := startGuest(t, listening(path))
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no listener")
		}
	}
	g.socket = path
	if status, _, _ := g.request(http.MethodGet, "/health", nil); status != http.StatusNoContent {
		t.Fatalf("answered %d", status)
	}
}
