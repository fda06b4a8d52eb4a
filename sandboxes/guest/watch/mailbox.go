package watch

import (
	"bytes"

	"gatehouse/guest/connect"
)

// mailbox keeps the events of a watcher until somebody asks for them.
type mailbox struct {
	watcher *watcher
	// events and size belong to whoever holds the watcher's lock.
	events [][]byte
	size   int
}

// put keeps events as long as there is room.
func (m *mailbox) put(events [][]byte) error {
	for _, text := range events {
		if m.size += len(text); m.size > maxReport {
			return errLost
		}
		m.events = append(m.events, text)
	}
	return nil
}

// empty hands out the events of all that has changed until now. When some were lost, and those before are out, every
// further call says so.
func (m *mailbox) empty() (any, error) {
	for queued := m.watcher.tree.queue.waiting(); queued > 0; queued -= readSize {
		if m.watcher.collect(m.put) != nil {
			break
		}
	}
	m.watcher.mu.Lock()
	defer m.watcher.mu.Unlock()
	if failed := m.watcher.tree.failed; failed != nil && len(m.events) == 0 {
		return nil, failed
	}
	answer := append([]byte(`{"events":[`), bytes.Join(m.events, []byte{','})...)
	m.events, m.size = nil, 0
	return connect.Raw(append(answer, "]}"...)), nil
}
