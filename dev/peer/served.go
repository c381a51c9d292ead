package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/container/bench"
	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/internal/child"
)

// The load over HTTP. The lengths are those of ShareGPT's conversations, halved, so
// that the run takes no longer than a minute or two.
const (
	clients       = 16
	requests      = 48
	promptLengths = "16-1024~80"
	answerLengths = "16-256~90"
	clientContext = 2048 // tokens of each client
)

// served is a server of one of the two programs.
type served struct {
	cmd     *exec.Cmd
	process *child.Process
	url     string
}

// command returns the server of a program, listening on port. Both have as many
// slots, as large a cache in f16, and no cache of prompts: each is computed whole.
// llama-server starts without its warm-up, which would only delay its first token.
func (m *model) command(of program, port int) *exec.Cmd {
	cache := strconv.Itoa(clients * clientContext)
	args := []string{"--threads", strconv.Itoa(m.settings.threads), "--port", strconv.Itoa(port)}
	if of.engine == llama {
		return exec.Command(m.llama("llama-server"), append(args, "--host", "127.0.0.1", "--model", m.gguf(of.format), "--parallel", strconv.Itoa(clients),
			"--ctx-size", cache, "--no-cache-prompt", "--cache-ram", "0", "--no-warmup", "--fit", "off")...)
	}
	return exec.Command(m.settings.millrace, append(append([]string{"serve"}, args...), "--hostname", "127.0.0.1", "--model-id", m.ours(of.format), "--max-batch-size", strconv.Itoa(clients),
		"--max-total-tokens", strconv.Itoa(clientContext), "--max-batch-total-tokens", cache, "--kv-cache-dtype", "f16", "--no-prefix-caching")...)
}

// launch starts a server and waits for the first token of a short prompt.
func (m *model) launch(of program) (s *served, firstToken time.Duration, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, 0, err
	}
	cmd := m.command(of, port)
	s = &served{cmd: cmd, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	var output bytes.Buffer // read once the server has ended
	cmd.Stdout, cmd.Stderr = &output, &output
	begun := time.Now()
	if s.process, err = child.Start(cmd, nil); err != nil {
		return nil, 0, err
	}
	body := []byte(`{"model":"tgi","prompt":"the of and to in is that for it as was with be by on not","max_tokens":1,"ignore_eos":true}`)
	for {
		select {
		case <-s.process.Exited():
			return nil, 0, inprocess.Missing(fmt.Errorf("the server ended: %s", lastLines(output.String())))
		case <-time.After(2 * time.Millisecond):
		}
		resp, err := http.Post(s.url+"/v1/completions", "application/json", bytes.NewReader(body))
		if err != nil {
			continue // it does not listen yet
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return s, time.Since(begun), nil
		}
	}
}

func (s *served) stop() {
	s.process.Signal(syscall.SIGTERM)
	<-s.process.Exited()
}

// lastLines returns the end of a log, as one line.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// memory returns the bytes of a server that are in memory, pages of mapped files
// included.
func (s *served) memory() (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if size, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(size), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc has no VmRSS")
}

// starts is how often the start is measured; the fastest counts, whose file is in
// the page cache.
const starts = 3

// measureStart measures the start of a server and its memory.
func (m *model) measureStart(r *result, of program) error {
	for range starts {
		s, d, err := m.launch(of)
		if err != nil {
			return err
		}
		size, err := s.memory()
		s.stop()
		if err != nil {
			return err
		}
		r.add(measurement{Shape: m.name, Test: testStart, Streams: 1, Engine: of.engine, Format: of.format, Unit: seconds, Value: d.Seconds()})
		r.add(measurement{Shape: m.name, Test: testMemory, Streams: 1, Engine: of.engine, Format: of.format, Unit: megabytes, Value: float64(size) / 1e6})
	}
	return nil
}

// measureLoad measures a server with all clients busy.
func (m *model) measureLoad(r *result, of program) error {
	s, _, err := m.launch(of)
	if err != nil {
		return err
	}
	defer s.stop()
	o := bench.Options{URL: s.url, API: "completions", Stream: true, Model: "tgi", Requests: requests, Concurrency: clients, Warmup: 1,
		Timeout: 10 * time.Minute, Seed: 1, IgnoreEOS: true}
	for text, l := range map[string]*bench.Lengths{promptLengths: &o.PromptWords, answerLengths: &o.MaxNewTokens} {
		if err := l.UnmarshalText([]byte(text)); err != nil {
			return err
		}
	}
	rep, err := bench.Measure(context.Background(), o, nil)
	if err != nil {
		return err
	}
	size, err := s.memory()
	if err != nil {
		return err
	}
	if rep.Requests != requests { // llama-server now and then ends a connection that is used again
		text, _ := json.Marshal(rep.Errors) // a map of numbers
		remark := fmt.Sprintf("%s: HTTP load of %s %s: %d of %d requests were answered: %s", m.name, of.engine, of.format, rep.Requests, requests, text)
		if rep.Requests < requests*9/10 {
			return errors.New(remark)
		}
		r.Remarks = append(r.Remarks, remark)
	}
	add := func(test, unit string, value float64) {
		r.add(measurement{Shape: m.name, Test: test, Streams: clients, Engine: of.engine, Format: of.format, Unit: unit, Value: value})
	}
	add(testLoad, tokensPerSecond, rep.TokensPerSecond)
	add(testLoadFirst, seconds, rep.FirstToken.P50/1000)
	add(testLoadGap, seconds, rep.InterToken.P50/1000)
	add(testLoadLongGap, seconds, rep.InterToken.P99/1000)
	add(testLoadMemory, megabytes, float64(size)/1e6)
	return nil
}
