package main

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPing measures how long 2,000 health checks take while 32 streams are
// read. The server has one core. The checks come from the other, which they share
// with the streams' readers, whom they precede. A check that a thread of the
// server waited for its core to answer counts twice: with that wait, and without.
func BenchmarkPing(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Skip("needs two cores")
	}
	const checks, between = 2000, 2 * time.Millisecond
	pin := func(core int) {
		// Threads that begin later are where the one was that makes them.
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			b.Fatal(err)
		}
		var set unix.CPUSet
		set.Set(core)
		for _, task := range tasks {
			id, _ := strconv.Atoi(filepath.Base(task)) // the kernel's
			_ = unix.SchedSetaffinity(id, &set)        // the thread may have ended
		}
	}
	pin(0)
	p := start(b, nil, "--threads", "1", "--max-concurrent-requests", "64", "--max-batch-size", "32").ready()
	pin(1)
	readers := exec.Command("nice", "-n", "19", millrace, "bench", "--url", p.url, "--concurrency", "32", "--duration", "1h", "--max-new-tokens", "256", "--ignore-eos")
	if err := readers.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = readers.Process.Kill()
		_ = readers.Wait()
	})
	for {
		if _, metrics := p.get("/metrics"); strings.Contains(metrics, "\ntgi_batch_current_size 32") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	var all, without []float64 // ms
	for b.Loop() {
		for range checks {
			time.Sleep(between)
			waited := coreWaits(b, p.cmd.Process.Pid)
			begin := time.Now()
			fmt.Fprint(conn, "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(reader, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatalf("/ping: %v %v", resp, err)
			}
			took := time.Since(begin)
			resp.Body.Close()
			longest := time.Duration(0)
			for thread, after := range coreWaits(b, p.cmd.Process.Pid) {
				longest = max(longest, after-waited[thread])
			}
			all = append(all, took.Seconds()*1000)
			without = append(without, math.Max(0, (took-longest).Seconds()*1000))
		}
	}
	for name, times := range map[string][]float64{"": all, "-without-waits": without} {
		slices.Sort(times)
		b.ReportMetric(times[len(times)/2], "median-ms"+name)
		b.ReportMetric(times[len(times)*99/100], "p99-ms"+name)
		b.ReportMetric(times[len(times)-1], "longest-ms"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// coreWaits is how long each thread of a process has waited for a core although it
// could run.
func coreWaits(b *testing.B, pid int) map[string]time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Skip("needs /proc/PID/task/TID/schedstat")
	}
	waits := make(map[string]time.Duration, len(files))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		if fields := strings.Fields(string(data)); len(fields) == 3 {
			ns, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel's
			waits[file] = time.Duration(ns)
		}
	}
	return waits
}
