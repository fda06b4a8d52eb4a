package files

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"

	"gatehouse/guest/accounts"
	"gatehouse/guest/filesystem"
	"gatehouse/guest/plain"
	"gatehouse/guest/threads"
)

const (
	maxComposeBody = 4 << 20
	maxSources     = 1000
)

type composition struct {
	Sources     []string `json:"source_paths"`
	Destination string   `json:"destination"`
	Username    string   `json:"username"`
}

// Compose joins uploaded files into one and removes them.
func (s *Service) Compose(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		plain.Error(w, http.StatusMethodNotAllowed, "only POST is possible here")
		return
	}
	entry, err := s.compose(r)
	if err != nil {
		writeError(w, err)
		return
	}
	plain.JSON(w, http.StatusOK, entry)
}

func (s *Service) compose(r *http.Request) (entry *filesystem.Entry, err error) {
	var wanted composition
	if json.NewDecoder(io.LimitReader(r.Body, maxComposeBody)).Decode(&wanted) != nil {
		return nil, fail(http.StatusBadRequest, "the body is not valid JSON")
	}
	if len(wanted.Sources) == 0 || len(wanted.Sources) > maxSources || wanted.Destination == "" {
		return nil, fail(http.StatusBadRequest, "source_paths (1 to 1000) and destination are required")
	}
	user, err := s.user(r, wanted.Username)
	if err != nil {
		return nil, err
	}
	destination, err := resolve(wanted.Destination, user)
	if err != nil {
		return nil, err
	}
	sources := &chain{user: user, paths: wanted.Sources}
	defer sources.close()
	if err := sources.check(destination); err != nil {
		return nil, err
	}
	if err := write(destination, user, sources, -1, nil); err != nil {
		return nil, errors.Join(sources.failed, err)
	}
	threads.Disk(func() {
		for _, path := range sources.done {
			os.Remove(path)
		}
		entry, err = filesystem.Describe(destination, accounts.LoadNames())
	})
	return entry, err
}

// chain reads files one after the other.
type chain struct {
	user   *accounts.User
	paths  []string
	file   *os.File
	done   []string
	failed error
}

// check refuses sources that are missing, or that writing the destination would destroy, before anything is written.
func (c *chain) check(destination string) error {
	for _, path := range c.paths {
		file, info, err := open(path, c.user)
		if err != nil {
			return err
		}
		file.Close()
		if target, err := os.Stat(destination); err == nil && os.SameFile(target, info) {
			return fail(http.StatusBadRequest, "the destination is also a source")
		}
	}
	return nil
}

// Read reads from the current file, or from the next one.
func (c *chain) Read(b []byte) (int, error) {
	for {
		if c.file == nil && len(c.paths) == 0 {
			return 0, io.EOF
		}
		if c.file == nil {
			if c.file, _, c.failed = open(c.paths[0], c.user); c.failed != nil {
				return 0, c.failed
			}
			c.paths = c.paths[1:]
			c.done = append(c.done, c.file.Name())
		}
		n, err := (&slotted{c.file}).Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		c.close()
	}
}

func (c *chain) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}
