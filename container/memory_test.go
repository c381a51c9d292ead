package main

import (
	"math"
	"runtime/debug"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
)

func TestAvailableMemory(t *testing.T) {
	const meminfo = "MemTotal:  8000 kB\nMemAvailable:    4000 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		is    int64 // function
		maps  int64 // weights
		want  int64
		bound string // "": an error
	}{
		{name: "nothing to read"},
		{name: "a limit of the address space", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/status": "VmSize:\t    1000 kB\n",
			"proc/self/limits": "Limit                     Soft Limit           Hard Limit           Units\nMax address space         2048000              unlimited            bytes\n",
		}, want: 1000 << 10, bound: "address space (ulimit -v)"},
		{name: "no limit of the address space", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/status": "VmSize:\t    1000 kB\n",
			"proc/self/limits": "Max address space         unlimited            unlimited            bytes\n",
		}, want: 4000 << 10, bound: "machine"},
		{name: "machine alone", files: map[string]string{"proc/meminfo": meminfo}, want: 4000 << 10, bound: "machine"},
		{name: "container, its group is the root", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1000000\n", "sys/fs/cgroup/memory.current": "600000\n",
			"sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 50000\n",
		}, want: 450_000, bound: "control group"},
		{name: "limit of a group above", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "400\n",
		}, want: 600, bound: "control group"},
		{name: "no limit", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, want: 4000 << 10, bound: "machine"},
		{name: "limit above what the machine has", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99000000000\n",
		}, want: 4000 << 10, bound: "machine"},
		{name: "version 1, host's path not mounted", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:cpu:/docker/x\n4:hugetlb,memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000", "sys/fs/cgroup/memory/memory.usage_in_bytes": "900",
			"sys/fs/cgroup/memory/memory.stat": "total_inactive_file 300\n",
		}, want: 400, bound: "control group"},
		{name: "version 1 without limit", files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
		}, want: 4000 << 10, bound: "machine"},
		{name: "function smaller than its machine", is: 3 << 20, files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/status": "Name:\tx\nVmRSS:\t    1024 kB\n",
		}, want: 2 << 20, bound: "function"},
		{name: "function on a machine with less left", is: 1 << 30, files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/status": "VmRSS:\t    1024 kB\n",
		}, want: 4000 << 10, bound: "function"},
		{name: "machine with mapped weights", maps: 1 << 20, files: map[string]string{"proc/meminfo": meminfo}, want: 4000<<10 - 1<<20, bound: "machine"},
		{name: "group with mapped weights that are not active", maps: 200_000, files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1000000\n", "sys/fs/cgroup/memory.current": "600000\n",
			"sys/fs/cgroup/memory.stat": "inactive_file 250000\nactive_file 0\n",
		}, want: 450_000, bound: "control group"},
		{name: "group with mapped weights, some of them active", maps: 200_000, files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1000000\n", "sys/fs/cgroup/memory.current": "600000\n",
			"sys/fs/cgroup/memory.stat": "inactive_file 50000\nactive_file 150000\n",
		}, want: 400_000, bound: "control group"},
		{name: "function with mapped weights, a part of them in memory", is: 3 << 20, maps: 1 << 20, files: map[string]string{
			"proc/meminfo": meminfo, "proc/self/status": "VmRSS:\t    1024 kB\nRssFile:\t   512 kB\n",
		}, want: 3<<20 - 1<<20 - 512<<10, bound: "function"},
		{name: "over its limit", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "2000",
		}, want: 0, bound: "control group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range tt.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got, bound, err := availableMemory(root, tt.is, tt.maps)
			if got != tt.want || bound != tt.bound || (err != nil) != (tt.bound == "") {
				t.Errorf("%d bytes, bound by the %s, %v; want %d, %s", got, bound, err, tt.want, tt.bound)
			}
		})
	}
}

// Weights that do not fit into memory are refused before they are read.
func TestWeightsThatDoNotFit(t *testing.T) {
	m, err := openModel(t.Context(), source.Open, tinyFolder(t), &config.Serve{}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer m.checkpoint.Close()
	s := &server{cfg: &config.Serve{ServedModelName: "tiny"}, model: m}
	if err := s.checkMemory(); err != nil {
		t.Errorf("with the memory of this machine: %v", err)
	}
	s.memory = 1 // which this process has taken long ago
	if err := s.checkMemory(); err == nil || !strings.Contains(err.Error(), "not enough memory for the weights of tiny: they take") || !strings.Contains(err.Error(), "the function has 0 KiB left") {
		t.Errorf("without any: %v", err)
	}
}

func TestEagerGC(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	percent := func() int {
		n := debug.SetGCPercent(100)
		debug.SetGCPercent(n)
		return n
	}
	for _, tt := range []struct{ before, meanwhile int }{{100, 25}, {10, 10}, {-1, -1}} {
		debug.SetGCPercent(tt.before)
		restore := eagerGC()
		if got := percent(); got != tt.meanwhile {
			t.Errorf("GOGC=%d: %d meanwhile, want %d", tt.before, got, tt.meanwhile)
		}
		restore()
		if got := percent(); got != tt.before {
			t.Errorf("GOGC=%d: %d afterwards", tt.before, got)
		}
	}
}
