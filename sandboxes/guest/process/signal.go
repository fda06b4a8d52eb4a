package process

import (
	"bytes"
	"net/http"
	"os"
	"strconv"
	"syscall"

	"gatehouse/guest/connect"
	"gatehouse/guest/threads"
)

// killRounds bounds how often a session is searched for processes that were forked while it was being killed.
const killRounds = 16

func (s *Service) sendSignal(_ *http.Request, request *signalRequest) (any, error) {
	signal, err := request.signal()
	if err != nil {
		return nil, err
	}
	p, err := s.table.find(request.Process, false)
	if err != nil {
		return nil, err
	}
	var there bool
	if signal == syscall.SIGKILL {
		there = s.kill(p)
	} else {
		there = s.reaper.WhileUncollected(p.child, func() { err = syscall.Kill(p.pid, signal) })
	}
	if !there {
		return nil, connect.Errorf(connect.NotFound, "process with pid %d not found", p.pid)
	}
	return connect.Empty, err
}

// kill ends a process and everything in its session; false when it had ended before.
func (s *Service) kill(p *process) (there bool) {
	threads.Disk(func() {
		there = s.reaper.WhileUncollected(p.child, func() {
			// The leader stays uncollected meanwhile, so its number still names this session.
			syscall.Kill(-p.pid, syscall.SIGKILL)
			syscall.Kill(p.pid, syscall.SIGKILL)
			killSession(p.pid)
		})
	})
	return there
}

func killSession(session int) {
	for range killRounds {
		groups := make(map[int]bool)
		for _, pid := range pids() {
			if group := groupInSession(pid, session); group > 0 {
				groups[group] = true
			}
		}
		if len(groups) == 0 {
			return
		}
		for group := range groups {
			// A whole group at once: while single members are killed, the others fork new ones.
			syscall.Kill(-group, syscall.SIGKILL)
		}
	}
}

func pids() []int {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// groupInSession returns the process group of a process that is alive in the session, else 0.
func groupInSession(pid, session int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; the fields after it are state, parent, group, session.
	_, rest, found := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	field := bytes.Fields(rest)
	if !found || len(field) < 4 || string(field[0]) == "Z" || string(field[3]) != strconv.Itoa(session) {
		return 0
	}
	group, _ := strconv.Atoi(string(field[2]))
	return group
}
