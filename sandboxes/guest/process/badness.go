package process

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// tenantBadness is the out-of-memory score of tenants' processes: they go before the guest.
const tenantBadness = 500

// badness lends children an out-of-memory score: the guest takes it on while it forks, so that no child, however
// fast it forks itself, is without it.
type badness struct {
	file *os.File
	own  string
}

func openBadness() *badness {
	file, err := os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0)
	if err != nil {
		return &badness{}
	}
	text := make([]byte, 16)
	n, _ := file.ReadAt(text, 0)
	own := strings.TrimSpace(string(text[:n]))
	if score, err := strconv.Atoi(own); err != nil || score >= tenantBadness {
		file.Close()
		return &badness{}
	}
	return &badness{file: file, own: own}
}

// fork starts the program of a plan; calls must not overlap.
func (b *badness) fork(plan *plan, files [3]*os.File, terminal bool) (int, error) {
	if b.file != nil {
		b.file.WriteAt([]byte(strconv.Itoa(tenantBadness)), 0)
		defer b.file.WriteAt([]byte(b.own), 0)
	}
	return syscall.ForkExec(plan.program, plan.args, plan.attributes(files, terminal))
}
