// Command peer measures the CPU backend against llama.cpp on one machine, in one
// run, on the same random weights, and prints ratios:
//
//	peer -dir build/peer -millrace build/millrace [-short] [-shapes …] [-pairs int8:Q8_0,…] [-only decode,…] [-out docs/benchmarks]
//
// DIR has venv (what model.py needs) and llama/bin; run.sh builds both. The models
// are made there when they are wanted first. Rounds alternate between the two
// programs and the best of each counts: the machine's noise only ever slows.
// Without a server ours goes through the engine (Submit to the last token),
// llama.cpp's through llama-batched-bench; start and mixed load are those of
// `millrace serve` and llama-server.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	partStart   = "start"   // start to first token, resident memory
	partLoad    = "load"    // 16 clients over HTTP
	partPace    = "pace"    // what requests of ours wait for each other
)

var parts = []string{partPeaks, partPrefill, partDecode, partLong, partStart, partLoad, partPace}

// A pair is a format of ours and one of llama.cpp's that people would choose
// between. Ours may be a type of GGUF, too: then both read the same file.
type pair struct{ ours, theirs string }

func (p pair) String() string { return p.ours + ":" + p.theirs }

// settings are what the flags say.
type settings struct {
	dir, millrace, out string
	threads, rounds    int
	shapes             []string
	pairs              []pair
	parts              []string
	streams            []int
}

// wants reports whether a part is measured.
func (s *settings) wants(part string) bool { return slices.Contains(s.parts, part) }

func main() {
	s := settings{streams: []int{1, 4, 8, 16, 32}}
	flag.StringVar(&s.dir, "dir", "build/peer", "folder of llama.cpp and of the models")
	flag.StringVar(&s.millrace, "millrace", "build/millrace", "the program, for the parts start and load")
	flag.StringVar(&s.out, "out", "", "folder that gets README.md, peer.json and plots")
	flag.IntVar(&s.threads, "threads", 2, "threads of both")
	flag.IntVar(&s.rounds, "rounds", 1, "rounds; the best counts")
	shapes := flag.String("shapes", "qwen2-0.5b,llama-1b,qwen3.5-2b", "models that model.py makes")
	pairs := flag.String("pairs", "bf16:BF16,int8:Q8_0,int4:Q4_0,int4:Q4_K_M", "formats, ours and llama.cpp's; ours bf16, int8, int4, or a type of GGUF. BF16 is measured for the first shape alone")
	only := flag.String("only", strings.Join(parts, ","), "parts to measure")
	short := flag.Bool("short", false, "the first shape, int8 and int4, 1, 8 and 16 streams, prefill: some minutes")
	flag.Parse()
	s.shapes, s.parts = strings.Split(*shapes, ","), strings.Split(*only, ",")
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *short {
		s.shapes, s.streams = s.shapes[:1], []int{1, 8, 16}
		if !given["only"] {
			s.parts = []string{partPeaks, partPrefill, partDecode}
		}
		if !given["pairs"] {
			*pairs = "int8:Q8_0,int4:Q4_0"
		}
	}
	err := s.parse(*pairs)
	if err == nil {
		err = run(&s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// parse reads the pairs and checks the names of parts.
func (s *settings) parse(pairs string) error {
	for text := range strings.SplitSeq(pairs, ",") {
		ours, theirs, ok := strings.Cut(text, ":")
		if !ok {
			return fmt.Errorf("-pairs: %q: expected ours:theirs, as int8:Q8_0", text)
		}
		s.pairs = append(s.pairs, pair{ours, theirs})
	}
	for _, part := range s.parts {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("-only: %q: expected one of %s", part, strings.Join(parts, ", "))
		}
	}
	return nil
}

func run(s *settings) error {
	r := newResult(s)
	if s.wants(partPeaks) {
		r.Peaks = &peaks{Read: kernels.ReadPeak(s.threads), FMA: kernels.FMAPeak(s.threads), Dot: kernels.DotPeak(s.threads)}
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

// measure compares the pairs on one shape. A format that one of the two does not
// have, or not yet, is said and left out.
func (s *settings) measure(r *result, shape string, first bool) error {
	m := &model{name: shape, dir: filepath.Join(s.dir, shape), settings: s}
	if err := m.make(); err != nil {
		return err
	}
	var ours, theirs []string // each once, in the order of the pairs
	for _, p := range s.pairs {
		if !first && p.theirs == "BF16" {
			continue
		}
		if !slices.Contains(ours, p.ours) {
			ours = append(ours, p.ours)
		}
		if !slices.Contains(theirs, p.theirs) {
			theirs = append(theirs, p.theirs)
		}
	}
	skip := map[string]bool{}
	each := func(formats []string, engine string, f func(format string) error) error {
		for _, format := range formats {
			if skip[engine+format] {
				continue
			}
			fmt.Fprintf(os.Stderr, "%s: %s %s\n", shape, engine, format)
			err := f(format)
			var missing *inprocess.MissingError
			if errors.As(err, &missing) {
				fmt.Fprintf(os.Stderr, "%s: %s %s is skipped: %v\n", shape, engine, format, err)
				r.Skipped = append(r.Skipped, fmt.Sprintf("%s: %s %s: %v", shape, engine, format, err))
				skip[engine+format] = true
			} else if err != nil {
				return fmt.Errorf("%s %s: %w", engine, format, err)
			}
		}
		return nil
	}
	for round := range s.rounds {
		if s.wants(partPrefill) || s.wants(partDecode) || s.wants(partLong) || s.wants(partPace) {
			if err := each(ours, millrace, func(format string) error { return m.measureOurs(r, format, first && round == 0) }); err != nil {
				return err
			}
			if err := each(theirs, llama, func(format string) error { return m.measureLlama(r, format) }); err != nil {
				return err
			}
		}
	}
	if s.wants(partStart) || s.wants(partLoad) {
		if err := each(ours, millrace, func(format string) error { return m.serve(r, millrace, format, first) }); err != nil {
			return err
		}
		if err := each(theirs, llama, func(format string) error { return m.serve(r, llama, format, first) }); err != nil {
			return err
		}
	}
	return nil
}
