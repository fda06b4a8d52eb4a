package watch

import (
	"encoding/json"
	"path/filepath"
	"syscall"

	"gatehouse/guest/accounts"
	"gatehouse/guest/filesystem"
)

// maxReport is how much one report may hold, in bytes of JSON: some ten thousand events.
const maxReport = 1 << 20

// kinds are the kinds of events, in the order in which those of one change are told.
var kinds = []struct {
	mask      uint32
	name      string
	described bool
}{
	{syscall.IN_CREATE | syscall.IN_MOVED_TO, "EVENT_TYPE_CREATE", true},
	{syscall.IN_MOVED_FROM | syscall.IN_MOVE_SELF, "EVENT_TYPE_RENAME", false},
	{syscall.IN_ATTRIB, "EVENT_TYPE_CHMOD", true},
	{syscall.IN_MODIFY, "EVENT_TYPE_WRITE", true},
	{syscall.IN_DELETE | syscall.IN_DELETE_SELF | syscall.IN_UNMOUNT, "EVENT_TYPE_REMOVE", false},
}

type event struct {
	Name  string            `json:"name"`
	Type  string            `json:"type"`
	Entry *filesystem.Entry `json:"entry,omitempty"`
}

// report collects the events of changes as JSON.
type report struct {
	// base is the path of the watched directory as the caller named it, when entries are wanted.
	base   string
	names  *accounts.Names
	events [][]byte
	size   int
}

// add reports what happened to a name. It blocks on the disk when entries are wanted.
func (r *report) add(mask uint32, name string) {
	for _, kind := range kinds {
		if mask&kind.mask == 0 || r.full() {
			continue
		}
		e := event{Name: name, Type: kind.name}
		if kind.described && r.base != "" {
			e.Entry = r.describe(name)
		}
		text, err := json.Marshal(e)
		if err != nil {
			continue
		}
		r.events = append(r.events, text)
		r.size += len(text)
	}
}

// describe returns nothing when the name is gone already.
func (r *report) describe(name string) *filesystem.Entry {
	if r.names == nil {
		r.names = accounts.LoadNames()
	}
	entry, err := filesystem.Describe(filepath.Join(r.base, name), r.names)
	if err != nil {
		return nil
	}
	return entry
}

func (r *report) full() bool { return r.size > maxReport }

// take returns the events so far and begins anew.
func (r *report) take() [][]byte {
	events := r.events
	r.events, r.size, r.names = nil, 0, nil
	return events
}
