package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sim"
)

// BenchmarkPath measures the HTTP path alone: a backend that takes no time, a
// load generator in a process of its own on the same cores. It reports what
// both sides cost, because on a busy machine only CPU time is comparable.
// One iteration is some seconds of load: run it with -benchtime=1x.
//
// The figures to beat are those of TGI 2.4.1's router in front of an instant
// shard on two such cores: 53k tokens/s with 16 streams, 123k with 64 at 8.8
// CPU seconds per million tokens, 13k one-token requests/s.
//
// An instant backend runs ahead of the writers, so that many events leave in
// one write. The paced case is the opposite: steps of a millisecond, so that
// every event leaves alone; its rate is the pace, its cost is what counts.
func BenchmarkPath(b *testing.B) {
	for _, bb := range []struct {
		name, path string
		clients    int
		tokens     int
		step       time.Duration
	}{
		{"streams=1", "/generate_stream", 1, 200, 0},
		{"streams=16", "/generate_stream", 16, 200, 0},
		{"streams=64", "/generate_stream", 64, 200, 0},
		{"streams=256", "/generate_stream", 256, 200, 0},
		{"paced", "/generate_stream", 64, 200, time.Millisecond},
		{"chat streams=64", chatPath, 64, 200, 0},
		{"chat paced", chatPath, 64, 200, time.Millisecond},
		{"one-token", "/generate", 16, 1, 0},
	} {
		b.Run(bb.name, func(b *testing.B) {
			addr := strings.TrimPrefix(serve(b, simulated(b, bb.step)), "http://")
			job := load{Addr: addr, Path: bb.path, Clients: bb.clients, Tokens: bb.tokens, Seconds: 3}
			for b.Loop() {
				before := cpuTime(syscall.RUSAGE_SELF)
				got := job.runElsewhere(b)
				server := cpuTime(syscall.RUSAGE_SELF) - before
				n, unit := float64(got.Tokens), "tokens"
				if bb.tokens == 1 {
					n, unit = float64(got.Answers), "requests"
				}
				b.ReportMetric(n/got.Seconds, unit+"/s")
				b.ReportMetric(server/n*1e6, "server-cpu-s/M"+unit)
				b.ReportMetric(got.CPU/n*1e6, "client-cpu-s/M"+unit)
				b.ReportMetric(float64(got.Reads)/n, "reads/"+unit)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// simulated returns a Server over an engine whose backend takes so long for a
// step.
func simulated(tb testing.TB, step time.Duration) *Server {
	tok := testTokenizer()
	limits := device.Limits{MaxTokens: 4096, MaxRows: 1024, MaxSlots: 256, MaxPagesPerSlot: 64}
	model := sim.Model{Vocab: 600, First: 10, EOS: -1}
	p := model.Plan()
	p.Vocab = tok.VocabSize() // of prompts; few tokens are sampled
	e, err := engine.New(engine.Config{
		Backend: sim.New(limits, sim.Config{Model: model, Fast: true,
			Latency: func(int) time.Duration { return step }, RealTime: step > 0}),
		Device: limits, Plan: p, Pages: 256 * 64, MaxWaiting: 1024,
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		e.Run(ctx) //nolint:errcheck // it ends with the benchmark
		close(stopped)
	}()
	tb.Cleanup(func() {
		cancel()
		<-stopped
	})
	s := New(Options{ModelID: "sim", MaxConcurrentRequests: 1024, Logger: slog.New(slog.DiscardHandler)})
	s.SetReady(Model{Generator: e, Tokenizer: tok, Template: loadTemplate(tb, plainTemplate)})
	return s
}

const chatPath = "/v1/chat/completions"

// load is what the generator does: clients that send the same request over
// kept connections, each as soon as the answer before has ended.
type load struct {
	Addr, Path      string
	Clients, Tokens int
	Seconds         float64
}

// loadResult is what it saw, and what it cost.
type loadResult struct {
	Answers, Tokens, Reads int64
	Seconds, CPU           float64
}

// loadEnv holds a load as JSON in the environment of a generator process.
const loadEnv = "HANDLER_BENCH_LOAD"

func TestMain(m *testing.M) {
	text := os.Getenv(loadEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var l load
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(l.run()); err != nil {
		panic(err)
	}
}

// runElsewhere runs l in a process of its own.
func (l load) runElsewhere(b *testing.B) (r loadResult) {
	text, _ := json.Marshal(l)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return r
}

func (l load) run() (r loadResult) {
	body := fmt.Sprintf(`{"inputs":"What is a mill race?","parameters":{"max_new_tokens":%d}}`, l.Tokens)
	if l.Path == chatPath {
		body = fmt.Sprintf(`{"messages":[{"role":"user","content":"What is a mill race?"}],"max_tokens":%d,"stream":true}`, l.Tokens)
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", l.Path, len(body), body)
	begun := time.Now()
	end := begun.Add(time.Duration(l.Seconds * float64(time.Second)))
	var wg sync.WaitGroup
	for range l.Clients {
		wg.Go(func() {
			c, err := net.Dial("tcp", l.Addr)
			if err != nil {
				panic(err)
			}
			defer c.Close()
			buf := make([]byte, 64<<10)
			for time.Now().Before(end) {
				if _, err := c.Write(request); err != nil {
					panic(err)
				}
				tokens, reads := l.answer(c, buf)
				if l.Path == chatPath {
					tokens-- // [DONE]
				}
				if tokens != l.Tokens {
					panic(fmt.Sprintf("%d tokens of %d", tokens, l.Tokens))
				}
				atomic.AddInt64(&r.Answers, 1)
				atomic.AddInt64(&r.Tokens, int64(tokens))
				atomic.AddInt64(&r.Reads, int64(reads))
			}
		})
	}
	wg.Wait()
	r.Seconds = time.Since(begun).Seconds()
	r.CPU = cpuTime(syscall.RUSAGE_SELF)
	return r
}

// answer reads one answer and counts its tokens: the events of a chunked
// stream, or one for a whole answer in one read.
func (l load) answer(c io.Reader, buf []byte) (tokens, reads int) {
	var tail [4]byte // of the read before: the end may be cut in two
	for {
		n, err := c.Read(buf[len(tail):])
		if err != nil {
			panic(err)
		}
		reads++
		seen := buf[:len(tail)+n]
		copy(seen, tail[:])
		if reads == 1 && !bytes.Contains(seen[:200], []byte(" 200 OK")) {
			panic(string(seen))
		}
		if l.Tokens == 1 {
			return 1, reads
		}
		tokens += bytes.Count(seen[len(tail)-1:], []byte("\n\n"))
		if bytes.HasSuffix(seen, []byte("0\r\n\r\n")) {
			return tokens, reads
		}
		copy(tail[:], seen[len(seen)-len(tail):])
	}
}

// cpuTime is the user and system time of a process so far, in seconds.
func cpuTime(who int) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
