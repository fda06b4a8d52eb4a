package process

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"syscall"

	"gatehouse/guest/connect"
)

type settings struct {
	Cmd  string            `json:"cmd"`
	Args []string          `json:"args,omitempty"`
	Envs map[string]string `json:"envs,omitempty"`
	Cwd  *string           `json:"cwd,omitempty"`
}

type selector struct {
	PID *connect.Number `json:"pid"`
	Tag *string         `json:"tag"`
}

type screen struct {
	Size *struct {
		Cols connect.Number `json:"cols"`
		Rows connect.Number `json:"rows"`
	} `json:"size"`
}

type input struct {
	Stdin *connect.Bytes `json:"stdin"`
	PTY   *connect.Bytes `json:"pty"`
}

type startRequest struct {
	Process *settings `json:"process"`
	PTY     *screen   `json:"pty"`
	Tag     *string   `json:"tag"`
	Stdin   *bool     `json:"stdin"`
}

type connectRequest struct {
	Process *selector `json:"process"`
}

type listRequest struct{}

type updateRequest struct {
	Process *selector `json:"process"`
	PTY     *screen   `json:"pty"`
}

type inputRequest struct {
	Process *selector `json:"process"`
	Input   *input    `json:"input"`
}

type signalRequest struct {
	Process *selector       `json:"process"`
	Signal  json.RawMessage `json:"signal"`
}

type streamInputRequest struct {
	Start *struct {
		Process *selector `json:"process"`
	} `json:"start"`
	Data *struct {
		Input *input `json:"input"`
	} `json:"data"`
}

type listed struct {
	Config settings `json:"config"`
	PID    int      `json:"pid"`
	Tag    *string  `json:"tag,omitempty"`
}

func (r *signalRequest) signal() (syscall.Signal, error) {
	switch strings.Trim(string(r.Signal), `"`) {
	case "SIGNAL_SIGTERM", "15":
		return syscall.SIGTERM, nil
	case "SIGNAL_SIGKILL", "9":
		return syscall.SIGKILL, nil
	}
	return 0, connect.Errorf(connect.Unimplemented, "signal %.40s is not supported, only SIGNAL_SIGTERM and SIGNAL_SIGKILL", r.Signal)
}

var dataHeads = [...]string{
	stdout:   `{"event":{"data":{"stdout":"`,
	stderr:   `{"event":{"data":{"stderr":"`,
	terminal: `{"event":{"data":{"pty":"`,
}

func appendData(b []byte, k kind, data []byte) []byte {
	b = append(b, dataHeads[k]...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, `"}}}`...)
}

func appendStart(b []byte, pid int) []byte {
	b = append(b, `{"event":{"start":{"pid":`...)
	b = strconv.AppendInt(b, int64(pid), 10)
	return append(b, `}}}`...)
}

func appendKeepalive(b []byte) []byte {
	return append(b, `{"event":{"keepalive":{}}}`...)
}

func appendEnd(b []byte, status syscall.WaitStatus) []byte {
	text := "exit status " + strconv.Itoa(status.ExitStatus())
	if status.Signaled() {
		text = "signal: " + status.Signal().String()
		if status.CoreDump() {
			text += " (core dumped)"
		}
	}
	b = append(b, `{"event":{"end":{"exitCode":`...)
	b = strconv.AppendInt(b, int64(status.ExitStatus()), 10)
	b = append(b, `,"exited":`...)
	b = strconv.AppendBool(b, status.Exited())
	b = append(b, `,"status":"`+text+`"`...)
	if status.ExitStatus() != 0 {
		b = append(b, `,"error":"`+text+`"`...)
	}
	return append(b, `}}}`...)
}

const (
	defaultRows = 24
	defaultCols = 80
)

// size returns the wanted screen size, the usual one where it is not given.
func (s *screen) size() (size, error) {
	wanted := size{rows: defaultRows, cols: defaultCols}
	if s == nil || s.Size == nil {
		return wanted, nil
	}
	if s.Size.Rows > math.MaxUint16 || s.Size.Cols > math.MaxUint16 {
		return size{}, connect.Errorf(connect.InvalidArgument, "pty.size: more than %d rows or columns", math.MaxUint16)
	}
	if s.Size.Rows > 0 {
		wanted.rows = uint16(s.Size.Rows)
	}
	if s.Size.Cols > 0 {
		wanted.cols = uint16(s.Size.Cols)
	}
	return wanted, nil
}

// weight is roughly what a process's settings hold in memory, in bytes.
func (s *settings) weight() int {
	const each = 32
	total := len(s.Cmd)
	for _, arg := range s.Args {
		total += len(arg) + each
	}
	for name, value := range s.Envs {
		total += len(name) + len(value) + 2*each
	}
	return total
}
