package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
)

// What bounds the memory, in words.
const (
	boundGPU      = "GPU"
	boundMachine  = "machine"
	boundGroup    = "control group"
	boundFunction = "function"
	boundAddress  = "address space (ulimit -v)"
)

// deviceMemory returns the bytes that weights and caches of a replica may still take where the
// device computes, after those of info, and what bounds them.
func deviceMemory(cfg *config.Serve, function int64, info device.ModelInfo) (bytes int64, bound string, err error) {
	if deviceName(cfg) != "cuda" {
		return availableMemory(os.DirFS("/"), function, info.MappedBytes)
	}
	free, total, err := cuda.Memory(cfg.CUDALibrary, cfg.Replicas*gpus(cfg))
	if err != nil {
		return 0, "", err
	}
	free, total = free/int64(cfg.Replicas), total/int64(cfg.Replicas) // all are made alike
	most := int64(cfg.CUDAMemoryFraction*float64(total)) - info.WeightBytes - info.WorkspaceBytes
	return max(0, min(free, most)), boundGPU, nil
}

// availableMemory returns the bytes this process may still take without
// pushing anything out, and what bounds them: the machine, the control group
// that a container or service is put into, the limit of the address space, or
// the function that this process is, which may have function bytes in all (0:
// it is none). So many bytes are mapped weights, which the kernel could drop as
// it could any cache of files, but which are read for every token: they are not
// there to be taken, whether in memory already or not. root is the root of the file
// system.
func availableMemory(root fs.FS, function, mapped int64) (bytes int64, bound string, err error) {
	kb, err := field(root, "proc/meminfo", "MemAvailable:")
	if err == nil {
		bytes, bound = kb<<10-mapped, boundMachine
	}
	if free, ok := groupMemory(root, mapped); ok && (bound == "" || free < bytes) {
		bytes, bound = free, boundGroup
	}
	if function > 0 {
		resident, _ := field(root, "proc/self/status", "VmRSS:")
		ofFiles, _ := field(root, "proc/self/status", "RssFile:")
		if free := function - resident<<10 - mapped + min(ofFiles<<10, mapped); bound == "" || free < bytes {
			bytes = free
		}
		bound = boundFunction
	}
	if bound == "" {
		return 0, "", fmt.Errorf("how much memory is free cannot be found out: %w", err)
	}
	if limit, ok := addressSpace(root); ok {
		if taken, err := field(root, "proc/self/status", "VmSize:"); err == nil && limit-taken<<10 < bytes {
			bytes, bound = limit-taken<<10, boundAddress
		}
	}
	return max(0, bytes), bound, nil
}

// addressSpace returns the limit of this process's address space, if it has one.
func addressSpace(root fs.FS) (limit int64, ok bool) {
	data, err := fs.ReadFile(root, "proc/self/limits")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if soft, found := strings.CutPrefix(line, "Max address space"); found {
			limit, err := strconv.ParseInt(strings.Fields(soft)[0], 10, 64) // or unlimited
			return limit, err == nil
		}
	}
	return 0, false
}

// groupMemory returns what the tightest control group around this process
// leaves free. Page cache that can be dropped at once counts as free, but for
// mapped weights.
func groupMemory(root fs.FS, mapped int64) (free int64, ok bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	free = math.MaxInt64
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path, see cgroups(7).
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, limit, usage, cache, active := "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "active_file"
		if parts[1] != "" { // version 1
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			dir, limit, usage, cache, active = dir+"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
		}
		// Inside a container the path may be the host's, which is not
		// mounted: then only the group's root, here the container's own, is
		// there. Limits of all groups above hold, too.
		for p := path.Join("/", parts[2]); ; p = path.Dir(p) {
			group := path.Join(dir, p)
			if most, known := number(root, path.Join(group, limit)); known {
				used, _ := number(root, path.Join(group, usage))
				dropped, _ := field(root, path.Join(group, "memory.stat"), cache) // 0 without
				// Weights among the active pages are part of what is used.
				kept, _ := field(root, path.Join(group, "memory.stat"), active)
				free, ok = min(free, most-used+min(dropped, used)-mapped+min(kept, mapped)), true
			}
			if p == "/" {
				break
			}
		}
	}
	return free, ok
}

// number reads a file that holds one number; "max" and version 1's huge
// numbers mean no limit.
func number(root fs.FS, name string) (int64, bool) {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	return n, err == nil && n < 1<<60
}

// field reads the number after name in a file of "name number" lines.
func field(root fs.FS, file, name string) (int64, error) {
	data, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
