package boot

import (
	"bytes"
	"syscall"
)

const (
	logFD   = 2
	maxLine = 500
)

// nodeLog writes lines to the node's log pipe: short ones, each at once, and none when the pipe is full.
type nodeLog struct{}

func (l nodeLog) tell(err error) { l.Write([]byte(err.Error())) }

// Write takes the first line of text and never fails.
func (nodeLog) Write(text []byte) (int, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = append([]byte("gatehouse-guest: "), line[:min(len(line), maxLine)]...)
	syscall.SetNonblock(logFD, true)
	syscall.Write(logFD, append(line, '\n'))
	return len(text), nil
}
