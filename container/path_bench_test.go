package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/bench"
)

// BenchmarkHTTPPath measures everything but the model: a server whose backend
// takes no time, with the load generator on the same cores. Run it with
// -benchtime=1x: one iteration loads the server for some seconds.
//
// With a step of no time the tokens of a stream leave many at once; with one of
// 400 µs each leaves alone, at no more than 160,000 a second for 64 streams.
//
// The ratios compare with TGI 2.4.1's router in front of an instant shard,
// measured in the same way on two cores of this kind.
func BenchmarkHTTPPath(b *testing.B) {
	for _, bb := range []struct {
		name    string
		stream  bool
		clients int
		words   string // of the prompt
		tokens  string
		step    string  // of the simulated model; "": no time
		tgi     float64 // tokens/s of streams, else requests/s
	}{
		{name: "streams=16", stream: true, clients: 16, words: "16", tokens: "200", tgi: 53_000},
		{name: "streams=64", stream: true, clients: 64, words: "16", tokens: "200", tgi: 123_000},
		{name: "streams=64/step=400us", stream: true, clients: 64, words: "16", tokens: "200", step: "400us", tgi: 123_000},
		{name: "one-token", clients: 16, words: "4", tokens: "1", tgi: 13_000},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := start(b, []string{simStep + "=" + bb.step}, "--device", "sim").ready()
			o := bench.Options{
				URL: p.url, API: "tgi", Stream: bb.stream, Concurrency: bb.clients, Duration: 5 * time.Second,
				Warmup: 10, Seed: 1, Timeout: patience,
			}
			for text, l := range map[string]*bench.Lengths{bb.words: &o.PromptWords, bb.tokens: &o.MaxNewTokens} {
				if err := l.UnmarshalText([]byte(text)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				before := cpuSeconds(b, p.cmd.Process.Pid)
				rep, err := bench.Measure(context.Background(), o, nil)
				if err != nil || len(rep.Errors) > 0 {
					b.Fatalf("errors %v, %v", err, rep)
				}
				cpu := cpuSeconds(b, p.cmd.Process.Pid) - before
				n, rate, unit := float64(rep.Tokens), rep.TokensPerSecond, "tokens"
				if !bb.stream {
					n, rate, unit = float64(rep.Requests), rep.RequestsPerSecond, "requests"
				}
				b.ReportMetric(rate, unit+"/s")
				b.ReportMetric(rate/bb.tgi, "×TGI")
				b.ReportMetric(cpu/n*1e6, "cpu-s/M"+unit)
				b.ReportMetric(rep.FirstToken.P50, "first-token-p50-ms")
				b.ReportMetric(residentMB(b, p.cmd.Process.Pid), "resident-MB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpuSeconds is the time a process has used on all cores.
func cpuSeconds(t testing.TB, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	// The name in parentheses may hold anything; fields are counted behind it.
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, err1 := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return (user + system) / 100 // clock ticks, 100 a second on Linux
}

// residentMB is the memory a process has resident, in MB.
func residentMB(t testing.TB, pid int) float64 {
	t.Helper()
	kb, err := field(os.DirFS("/"), fmt.Sprintf("proc/%d/status", pid), "VmRSS:")
	if err != nil {
		t.Skip("needs /proc")
	}
	return float64(kb) / 1024
}
