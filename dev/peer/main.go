// Command peer measures the CPU backend against llama.cpp on one machine, in one
// run, on the same random weights, and prints ratios:
//
//	peer -dir build/peer -millrace build/millrace [-short] [-shapes …] [-pairs int8:Q8_0,…] [-only decode,…] [-out docs/benchmarks]
//
// DIR has venv (what model.py needs) and llama/bin; run.sh builds both. Models and
// their formats are made there when a run wants them first. The two programs take
// turns, and the best of all rounds counts: the machine's noise only ever slows.
// Without a server ours goes through the engine (Submit to the last token),
// llama.cpp's through llama-batched-bench; start and load over HTTP are those of
// `millrace serve` and llama-server.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/engine/cpu/kernels"
)

// Parts of the comparison, as -only names them.
const (
	partPeaks   = "peaks"   // what the machine can do: bytes read, operations
	partPrefill = "prefill" // prompts of 512 tokens, of a recurrent model 86
	partDecode  = "decode"  // 1 to 32 streams
	partLong    = "long"    // prefill of 8,192 tokens, and decoding after them
	partBusy    = "busy"    // decode beside a process that wants a core for itself
	partStart   = "start"   // start to first token, resident memory
	partLoad    = "load"    // 16 clients over HTTP
	partPace    = "pace"    // what requests of ours wait for each other
	partTower   = "tower"   // an image through a vision tower
)

var parts = []string{partPeaks, partPrefill, partDecode, partLong, partBusy, partStart, partLoad, partPace, partTower}

// needsServer reports whether a part runs millrace serve and llama-server.
func needsServer(part string) bool { return part == partStart || part == partLoad }

// A pair is a format of ours and one of llama.cpp's that people would choose
// between. Ours may be a type of GGUF, too: then both read the same file.
type pair struct{ ours, theirs string }

func (p pair) String() string { return p.ours + ":" + p.theirs }

// settings are what the flags say.
type settings struct {
	dir, millrace, out string
	isa                string // of both programs; empty: the best of the machine
	threads, rounds    int
	shapes             []string
	pairs              []pair
	parts              []string
	streams            []int
}

// wants reports whether a part is measured.
func (s *settings) wants(part string) bool { return slices.Contains(s.parts, part) }

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", "build/peer", "folder of llama.cpp and of the models")
	flag.StringVar(&s.millrace, "millrace", "build/millrace", "the program, for the parts start and load")
	flag.StringVar(&s.out, "out", "", "folder that gets README.md, peer.json and plots, with -isa the same named after it")
	flag.StringVar(&s.isa, "isa", "", "instruction set of both: avx2, if llama.sh has built that; default: the best of the machine")
	flag.IntVar(&s.threads, "threads", 2, "threads of both")
	flag.IntVar(&s.rounds, "rounds", 1, "rounds; the best counts. long, load and pace are measured in the first alone")
	streams := flag.String("streams", "1,4,8,16,32", "sequences at once, of decode; of shapes after the first those up to 8")
	shapes := flag.String("shapes", "qwen2-0.5b,llama-1b,qwen3.5-2b", "models that model.py makes")
	pairs := flag.String("pairs", "bf16:BF16,int8:Q8_0,int4:Q4_0,int4:Q4_K_M", "formats, ours and llama.cpp's; ours bf16, int8, int4, or a type of GGUF. BF16 is measured for the first shape alone")
	only := flag.String("only", strings.Join(parts, ","), "parts to measure")
	short := flag.Bool("short", false, "the first shape, int8 and int4, 1, 8 and 16 streams, prefill: some minutes")
	flag.Parse()
	s.shapes, s.parts = strings.Split(*shapes, ","), strings.Split(*only, ",")
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *short {
		s.shapes = s.shapes[:1]
		if !given["streams"] {
			*streams = "1,8,16"
		}
		if !given["only"] {
			s.parts = []string{partPeaks, partPrefill, partDecode}
		}
		if !given["pairs"] {
			*pairs = "int8:Q8_0,int4:Q4_0"
		}
	}
	if s.isa != "" && !given["only"] {
		s.parts = slices.DeleteFunc(s.parts, func(part string) bool { return needsServer(part) || part == partTower })
	}
	if len(s.parts) == 1 && s.parts[0] == partTower {
		s.shapes = nil // which it does not need
	}
	err := s.parse(*pairs, *streams)
	if err == nil {
		err = run(&s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// parse reads the pairs and the numbers of streams, and checks the names of parts.
func (s *settings) parse(pairs, streams string) error {
	for text := range strings.SplitSeq(pairs, ",") {
		ours, theirs, ok := strings.Cut(text, ":")
		if !ok {
			return fmt.Errorf("-pairs: %q: expected ours:theirs, as int8:Q8_0", text)
		}
		s.pairs = append(s.pairs, pair{ours, theirs})
	}
	for text := range strings.SplitSeq(streams, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxStreams {
			return fmt.Errorf("-streams: %q: expected numbers from 1 to %d", text, maxStreams)
		}
		s.streams = append(s.streams, n)
	}
	if s.isa != "" && s.isa != "avx2" {
		return fmt.Errorf("-isa: %q: expected avx2", s.isa)
	}
	if s.isa != "" && slices.ContainsFunc(s.parts, func(part string) bool { return needsServer(part) || part == partTower }) {
		return fmt.Errorf("-isa: %s, %s and %s need programs that are built for the best instruction set alone", partStart, partLoad, partTower)
	}
	for _, part := range s.parts {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("-only: %q: expected one of %s", part, strings.Join(parts, ", "))
		}
	}
	return nil
}

func run(s *settings) error {
	if s.isa != "" { // the kernels read it, of this process and of the server
		if err := os.Setenv("MILLRACE_CPU_ISA", s.isa); err != nil {
			return err
		}
	}
	r := newResult(s)
	if s.wants(partPeaks) {
		r.Peaks = &peaks{Read: kernels.ReadPeak(s.threads), FMA: kernels.FMAPeak(s.threads), Dot: kernels.DotPeak(s.threads)}
	}
	if s.wants(partTower) {
		if err := s.measureTower(r); err != nil {
			return fmt.Errorf("%s: %w", towerShape, err)
		}
	}
	for i, shape := range s.shapes {
		begun := time.Now()
		if err := s.measure(r, shape, i == 0); err != nil {
			return fmt.Errorf("%s: %w", shape, err)
		}
		fmt.Fprintf(os.Stderr, "%s took %.0f s\n", shape, time.Since(begun).Seconds())
	}
	r.shares()
	r.Seconds = time.Since(r.Date).Seconds()
	r.print(os.Stdout)
	if s.out == "" {
		return nil
	}
	return r.write(s.out)
}

// measure compares the pairs on one shape, in turns. A format that one of the two
// programs does not have is skipped, and the result says so.
func (s *settings) measure(r *result, shape string, first bool) error {
	m := &model{name: shape, dir: filepath.Join(s.dir, shape), settings: s, first: first}
	pairs := s.pairs
	if !first {
		pairs = slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return p.theirs == "BF16" })
	}
	if err := m.make(pairs); err != nil {
		return err
	}
	skip := map[program]bool{}
	for round := range s.rounds {
		done := map[program]bool{}
		for _, p := range pairs {
			main := p.ours != "bf16" && !done[program{millrace, p.ours}]
			for _, of := range []program{{millrace, p.ours}, {llama, p.theirs}} {
				if done[of] || skip[of] {
					continue
				}
				done[of] = true
				fmt.Fprintf(os.Stderr, "%s: %s %s\n", shape, of.engine, of.format)
				err := m.measure(r, of, main, round)
				var missing *inprocess.MissingError
				if errors.As(err, &missing) {
					fmt.Fprintf(os.Stderr, "%s: %s %s is skipped: %v\n", shape, of.engine, of.format, err)
					r.Remarks = append(r.Remarks, fmt.Sprintf("%s: %s %s is skipped: %v", shape, of.engine, of.format, err))
					skip[of] = true
				} else if err != nil {
					return fmt.Errorf("%s %s: %w", of.engine, of.format, err)
				}
			}
		}
	}
	return nil
}

// A program is one of the two with a format.
type program struct{ engine, format string }

// measure runs the parts that are wanted of one program. Those that take long are for
// the main pairs: of each of our formats in integers, the first.
func (m *model) measure(r *result, of program, main bool, round int) error {
	s := m.settings
	if s.wants(partPrefill) || s.wants(partDecode) || main && m.first && (s.wants(partBusy) || round == 0 && (s.wants(partLong) || s.wants(partPace))) {
		run := m.measureOurs
		if of.engine == llama {
			run = m.measureLlama
		}
		if err := run(r, of.format, main, round); err != nil {
			return err
		}
	}
	if main && s.wants(partStart) {
		if err := m.measureStart(r, of); err != nil {
			return err
		}
	}
	if main && m.first && round == 0 && s.wants(partLoad) {
		return m.measureLoad(r, of)
	}
	return nil
}
