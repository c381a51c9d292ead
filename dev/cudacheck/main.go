// Command cudacheck tests and measures the CUDA backend on the GPU of this machine, in ten
// minutes at most:
//
//	cudacheck -library build/cuda/libmillrace_cuda.so -programs build/cuda/check -out cuda/results
//
// It compiles nothing: the folder of programs has the test binaries cuda.test and engine.test,
// which `make cuda-check-programs` builds, so that a machine with a GPU needs no compiler. A
// part that runs out of its time is reported so, with what it had measured, and the next
// begins. The report is a table, and a file named after the GPU and the date.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace-ai/millrace/engine/cuda"
)

func main() {
	var c check
	flag.StringVar(&c.library, "library", "build/cuda/libmillrace_cuda.so", "the backend")
	flag.StringVar(&c.programs, "programs", "build/cuda/check", "folder of cuda.test and engine.test")
	flag.StringVar(&c.out, "out", "cuda/results", "folder that gets the report")
	flag.DurationVar(&c.limit, "limit", 10*time.Minute, "time for all parts together")
	flag.Parse()
	r, err := c.run(os.Stdout)
	if err == nil {
		err = r.write(os.Stdout, c.out)
	}
	if err == nil && r.failed() {
		err = errors.New("a part has failed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cudacheck:", err)
		os.Exit(1)
	}
}

type check struct {
	library, programs, out string
	limit                  time.Duration
}

// part is a program to run, of test binaries what to run of them.
type part struct {
	name    string
	command []string
	env     []string
	share   float64 // of the whole time, at most
}

// report is what the file has.
type report struct {
	GPU          string        `json:"gpu"`
	Driver       string        `json:"driver,omitempty"` // with memory and limits, as nvidia-smi says
	Date         string        `json:"date"`
	Parts        []result      `json:"parts"`
	Measurements []measurement `json:"measurements"`
}

type result struct {
	Name    string  `json:"name"`
	Result  string  `json:"result"` // ok, failed, out of time, skipped
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"` // why
}

// measurement is a line of a benchmark.
type measurement struct {
	Name    string             `json:"name"`
	Metrics map[string]float64 `json:"metrics"` // by unit
}

const (
	resultOK      = "ok"
	resultFailed  = "failed"
	resultLate    = "out of time"
	resultSkipped = "skipped"
)

func (r *report) failed() bool {
	return slices.ContainsFunc(r.Parts, func(p result) bool { return p.Result == resultFailed })
}

// run finds out about the GPU and runs all parts.
func (c *check) run(log io.Writer) (*report, error) {
	library, err := filepath.Abs(c.library)
	if err != nil {
		return nil, err
	}
	caps, err := cuda.Probe(library)
	if err != nil {
		return nil, err
	}
	if caps.Name == "" {
		return nil, errors.New(caps.Detail)
	}
	programs, err := filepath.Abs(c.programs)
	if err != nil {
		return nil, err
	}
	r := &report{GPU: caps.Detail, Driver: driver(), Date: time.Now().UTC().Format(time.DateOnly)}
	env := append(os.Environ(), "MILLRACE_CUDA_LIBRARY="+library)
	end := time.Now().Add(c.limit)
	for _, p := range parts(programs, strings.Contains(caps.Detail, "shim")) {
		fmt.Fprintf(log, "%s …\n", p.name)
		limit := min(time.Until(end), time.Duration(p.share*float64(c.limit)))
		done, measured := p.run(append(env, p.env...), limit)
		r.Parts = append(r.Parts, done)
		r.Measurements = append(r.Measurements, measured...)
	}
	return r, nil
}

// parts are what is run. Where the CPU emulates the GPU it is just enough to show that every
// part runs.
func parts(programs string, emulated bool) []part {
	tests, goldens := filepath.Join(programs, "cuda.test"), filepath.Join(programs, "engine.test")
	conformance, golden, shapes, times := "^TestConformance", "^TestCUDAGoldens$", "0.6B,8B", "20x"
	if emulated {
		conformance, golden, shapes, times = "^TestConformance$/^rows$", "^TestCUDAGoldens$/^llama$", "tiny", "1x"
	}
	const quick = "^(TestGraphs|TestWeightsInFlight)$"
	run := func(program, tests string) []string { return []string{program, "-test.v", "-test.run", tests} }
	bench := func(name string) []string {
		return []string{tests, "-test.run", "^$", "-test.bench", name, "-test.benchtime", times}
	}
	measured := []string{"MILLRACE_BENCH_SHAPES=" + shapes}
	return []part{
		{name: "graphs and uploads", command: run(tests, quick), share: 0.1},
		{name: "conformance", command: run(tests, conformance), share: 0.25},
		{name: "goldens", command: run(goldens, golden), env: []string{"MILLRACE_TEST_CUDA=all"}, share: 0.2},
		{name: "sanitizer", command: append([]string{"compute-sanitizer", "--error-exitcode", "9"}, run(tests, quick)...), share: 0.1},
		{name: "operations", command: bench("^BenchmarkOperations$"), share: 0.2},
		{name: "decode", command: bench("^BenchmarkDecode$"), env: measured, share: 0.2},
		{name: "prefill", command: bench("^BenchmarkPrefill$"), env: measured, share: 0.1},
	}
}

// run runs a part for at most a time.
func (p *part) run(env []string, limit time.Duration) (result, []measurement) {
	done := result{Name: p.name}
	if _, err := exec.LookPath(p.command[0]); err != nil && !filepath.IsAbs(p.command[0]) {
		done.Result, done.Detail = resultSkipped, p.command[0]+" is not installed"
		return done, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Env = env
	cmd.WaitDelay = time.Second // for a child that keeps its output open
	if dir, ok := strings.CutSuffix(filepath.Base(cmd.Path), ".test"); ok && dir == "engine" {
		cmd.Dir = "engine" // of the goldens
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	done.Seconds = time.Since(start).Seconds()
	switch {
	case ctx.Err() != nil:
		done.Result, done.Detail = resultLate, fmt.Sprintf("it had %.0f s", limit.Seconds())
	case err != nil:
		done.Result, done.Detail = resultFailed, fmt.Sprintf("%v: %s", err, end(out.String()))
	default:
		done.Result = resultOK
	}
	measured := parse(out.String())
	passed := passLine.FindAllString(out.String(), -1)
	if done.Result == resultOK && len(passed) == 0 && len(measured) == 0 {
		done.Result, done.Detail = resultFailed, "it tested and measured nothing"
	}
	return done, measured
}

// end is the last of what a program said, enough to see why.
func end(text string) string {
	const most = 2000
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-most):]
}

var passLine = regexp.MustCompile(`(?m)^ *--- PASS: `)

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.+)$`)

// parse reads the lines of benchmarks.
func parse(text string) (list []measurement) {
	for _, m := range benchmarkLine.FindAllStringSubmatch(text, -1) {
		fields, metrics := strings.Fields(m[2]), map[string]float64{}
		for i := 0; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				metrics[fields[i+1]] = v
			}
		}
		list = append(list, measurement{m[1], metrics})
	}
	return list
}

// driver is what nvidia-smi says, if it is installed.
func driver() string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=driver_version,memory.total,power.limit,clocks.max.sm,clocks.max.memory",
		"--format=csv,noheader").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// write prints the table and writes the file.
func (r *report) write(w io.Writer, folder string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\n%s\t%s\t%s\n", r.GPU, r.Driver, r.Date)
	for _, p := range r.Parts {
		fmt.Fprintf(table, "%s\t%s\t%.0f s\t%s\n", p.Name, p.Result, p.Seconds, p.Detail)
	}
	fmt.Fprintln(table)
	for _, m := range r.Measurements {
		fmt.Fprint(table, m.Name)
		for _, unit := range slices.Sorted(maps.Keys(m.Metrics)) {
			if unit != "ns/op" || len(m.Metrics) == 1 {
				fmt.Fprintf(table, "\t%.4g %s", m.Metrics[unit], unit)
			}
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(r.GPU), "-"), "-")
	path := filepath.Join(folder, cmp.Or(name, "gpu")+"-"+r.Date+".json")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\nwritten to %s\n", path)
	return err
}
