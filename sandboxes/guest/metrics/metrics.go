// Package metrics reports what the sandbox uses, as far as it can be seen from inside.
package metrics

import (
	"bytes"
	"cmp"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gatehouse/guest/plain"
	"gatehouse/guest/threads"
)

// ticks is the kernel's unit of processor time, per second; it is the same on every Linux.
const ticks = 100

// Report is the answer of GET /metrics. Sizes are bytes unless the name says MiB.
type Report struct {
	Time        int64   `json:"ts"`
	CPUCount    int     `json:"cpu_count"`
	CPUUsed     float64 `json:"cpu_used_pct"`
	MemTotal    uint64  `json:"mem_total"`
	MemUsed     uint64  `json:"mem_used"`
	MemCache    uint64  `json:"mem_cache"`
	MemTotalMiB uint64  `json:"mem_total_mib"`
	MemUsedMiB  uint64  `json:"mem_used_mib"`
	DiskUsed    uint64  `json:"disk_used"`
	DiskTotal   uint64  `json:"disk_total"`
}

// Meter remembers the last look, because processor use is a difference.
type Meter struct {
	// CPUs and Memory, in bytes, are the sandbox's limits; 0 stands for those of the machine.
	CPUs   int
	Memory uint64

	mu      sync.Mutex
	at      time.Time
	cpu     float64
	percent float64
}

// ServeHTTP answers with a Report.
func (m *Meter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var report Report
	threads.Disk(func() { report = m.look() })
	plain.JSON(w, http.StatusOK, report)
}

func (m *Meter) look() Report {
	cpu, memory := processes()
	total, cache := visibleMemory()
	if m.Memory > 0 {
		total = min(total, m.Memory)
	}
	report := Report{
		Time: time.Now().Unix(), CPUCount: cmp.Or(m.CPUs, runtime.NumCPU()), CPUUsed: m.use(cpu),
		MemTotal: total, MemUsed: memory, MemCache: cache, MemTotalMiB: total >> 20, MemUsedMiB: memory >> 20,
	}
	var disk syscall.Statfs_t
	if syscall.Statfs("/", &disk) == nil {
		report.DiskTotal = disk.Blocks * uint64(disk.Bsize)
		report.DiskUsed = (disk.Blocks - disk.Bfree) * uint64(disk.Bsize)
	}
	return report
}

// use returns the processor use since the last look, in percent of one processor.
func (m *Meter) use(cpu float64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	passed := now.Sub(m.at).Seconds()
	if m.at.IsZero() {
		m.at, m.cpu = now, cpu
		return 0
	}
	// Two looks within a moment would divide by next to nothing.
	if passed > 0.1 {
		m.percent = max(0, (cpu-m.cpu)/passed*100)
		m.at, m.cpu = now, cpu
	}
	return m.percent
}

// processes sums up all processes that can be seen: processor seconds, and resident bytes that belong to no file.
func processes() (cpu float64, memory uint64) {
	proc, err := os.Open("/proc")
	if err != nil {
		return 0, 0
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + name + "/stat")
		if field := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(field) > 14 {
			for _, spent := range field[11:15] {
				value, _ := strconv.ParseFloat(string(spent), 64)
				cpu += value / ticks
			}
		}
		statm, _ := os.ReadFile("/proc/" + name + "/statm")
		if field := bytes.Fields(statm); len(field) > 2 {
			resident, _ := strconv.ParseUint(string(field[1]), 10, 64)
			shared, _ := strconv.ParseUint(string(field[2]), 10, 64)
			memory += (resident - min(resident, shared)) * uint64(os.Getpagesize())
		}
	}
	return cpu, memory
}

// visibleMemory returns the control group's limit if it can be seen, else the machine's memory; and the file cache.
func visibleMemory() (total, cache uint64) {
	info, _ := os.ReadFile("/proc/meminfo")
	total = field(string(info), "MemTotal:") << 10
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, _ := os.ReadFile(path)
		limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && limit > 0 && limit < total {
			total = limit
		}
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"} {
		if text, err := os.ReadFile(path); err == nil {
			return total, max(field(string(text), "file "), field(string(text), "cache "))
		}
	}
	return total, 0
}

func field(text, name string) uint64 {
	for line := range strings.SplitSeq(text, "\n") {
		if rest, found := strings.CutPrefix(line, name); found {
			value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			number, _ := strconv.ParseUint(value, 10, 64)
			return number
		}
	}
	return 0
}
