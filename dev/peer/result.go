package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/internal/chart"
)

// The two programs.
const (
	millrace = "millrace"
	llama    = "llama.cpp"
)

// What is measured, and in which unit.
const (
	testDecode      = "decode"
	testDecodeLong  = "decode after 8192 tokens"
	testBusy        = "decode beside a busy process"
	testStart       = "start to first token"
	testMemory      = "memory after the start"
	testLoad        = "HTTP load"
	testLoadFirst   = "HTTP load, first token, median"
	testLoadGap     = "HTTP load, between tokens, median"
	testLoadLongGap = "HTTP load, between tokens, p99"
	testLoadMemory  = "HTTP load, memory"
	testImage       = "image"
	testWeights     = "weights"
	testBandwidth   = "decode, 1 stream, of the read bandwidth"
	testArithmetic  = "prefill, of the peak of its arithmetic"

	tokensPerSecond = "tokens/s"
	percent         = "%"
	seconds         = "s"
	megabytes       = "MB"
)

// explained says what the tests are, for the page. That of prefill stands for all lengths.
var explained = []struct{ name, text string }{
	{"prefill of", "tokens per second of one prompt, until its first token. llama-batched-bench and Millrace's engine, without a server"},
	{testDecode, fmt.Sprintf("tokens per second of all streams together, %d tokens each after prompts of %d; without a server", newTokens, shortPrompt)},
	{testDecodeLong, fmt.Sprintf("tokens per second of one stream after a prompt of %d tokens", longPrompt)},
	{testImage, fmt.Sprintf("seconds from the patches of an image of %d by %d pixels to the rows that stand for it in a prompt, by a vision tower of SigLIP's base shape with Gemma 3's projector; llama.cpp's by mtmd", towerSide, towerSide)},
	{testBusy, fmt.Sprintf("%d streams, while another process computes without end on the same cores", busyStreams)},
	{testBandwidth, "the bytes of all weights that one stream's tokens need per second, beside what all threads can read from memory"},
	{testArithmetic, "the multiplications and additions of a prompt's matrix products per second, beside what the processor can do at best, in int8 or for bf16 in float32"},
	{testStart, fmt.Sprintf("from the start of the server to the first token of a short prompt over HTTP, the fastest of %d with the file in the page cache; llama-server without its warm-up run", starts)},
	{testMemory, "resident memory of the server then, mapped files included"},
	{testLoad, fmt.Sprintf("answered tokens per second of `millrace serve` and llama-server: %d requests from %d clients, prompts of %s random words and answers of %s tokens (most near the number after ~), greedy. Both have %d slots and a cache of %d tokens in f16, and no cache of prompts",
		requests, clients, promptLengths, answerLengths, clients, clients*clientContext)},
}

// prefill completes the measurement of a prompt.
func prefill(m measurement, tokens int, speed float64) measurement {
	m.Test, m.Streams, m.Prompt, m.Unit, m.Value = fmt.Sprintf("prefill of %d tokens", tokens), 1, tokens, tokensPerSecond, speed
	return m
}

// result is what a run found out.
type result struct {
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"`
	Kernels string    `json:"kernels"`
	Llama   string    `json:"llama_cpp_python"`
	Threads int       `json:"threads"`
	Command string    `json:"command"`
	Seconds float64   `json:"seconds"`
	Peaks   *peaks    `json:"peaks,omitempty"`
	// Operations of a token's matrix products, by shape, those of the head excluded:
	// prefill computes it for the last token alone.
	Operations map[string]float64 `json:"operations_per_token"`
	List       []measurement      `json:"measurements"`
	Remarks    []string           `json:"remarks,omitempty"`
	Pace       []string           `json:"pace,omitempty"`
	settings   *settings
}

// peaks are what the machine can do at best with so many threads.
type peaks struct {
	Read float64 `json:"bytes_read_per_second"`
	FMA  float64 `json:"float32_operations_per_second"`
	Dot  float64 `json:"int8_operations_per_second"`
}

// measurement is one figure of one program.
type measurement struct {
	Shape   string  `json:"shape"`
	Test    string  `json:"test"`
	Streams int     `json:"streams"`
	Engine  string  `json:"engine"`
	Format  string  `json:"format"`
	Prompt  int     `json:"prompt,omitempty"` // tokens, of prefill
	Unit    string  `json:"unit"`
	Value   float64 `json:"value"`
}

// less reports whether a smaller value is a better one.
func (m *measurement) less() bool { return m.Unit == seconds || m.Unit == megabytes }

func (m *measurement) better(than float64) bool {
	if m.less() {
		return m.Value < than
	}
	return m.Value > than
}

func newResult(s *settings) *result {
	return &result{Date: time.Now(), Operations: map[string]float64{}, Machine: inprocess.Machine(), Threads: s.threads, Llama: llamaVersion(s.dir), Command: "dev/peer/run.sh " + strings.Join(os.Args[1:], " "), settings: s}
}

// rounds says how many they are.
func rounds(n int) string {
	if n == 1 {
		return "one round"
	}
	return fmt.Sprintf("%d rounds", n)
}

// llamaVersion returns the version of the package that llama.sh has fetched.
func llamaVersion(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "llama_cpp_python-*.tar.gz")) // the pattern is good
	if len(files) == 0 {
		return "of unknown version"
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(files[len(files)-1]), "llama_cpp_python-"), ".tar.gz")
}

// add keeps the best of the values that differ in nothing else.
func (r *result) add(m measurement) {
	for i := range r.List {
		same := m
		same.Value = r.List[i].Value
		if r.List[i] == same {
			if m.better(same.Value) {
				r.List[i].Value = m.Value
			}
			return
		}
	}
	r.List = append(r.List, m)
}

// shares adds what share of the machine's peaks the measurements are. In all shapes
// every weight is read for a token, the embedding as the head.
func (r *result) shares() {
	if r.Peaks == nil {
		return
	}
	for _, m := range slices.Clone(r.List) {
		size := m
		size.Streams, size.Test = 1, testWeights
		bytes := r.find(size) * 1e6
		switch {
		case m.Test == testDecode && m.Streams == 1 && !math.IsNaN(bytes):
			m.Test, m.Unit, m.Value = testBandwidth, percent, 100*m.Value*bytes/r.Peaks.Read
			r.add(m)
		case m.Prompt > 0 && m.Prompt < longPrompt && r.Operations[m.Shape] > 0:
			peak := r.Peaks.Dot
			if strings.EqualFold(m.Format, "bf16") {
				peak = r.Peaks.FMA
			}
			m.Test, m.Unit, m.Prompt, m.Value = testArithmetic, percent, 0, 100*m.Value*r.Operations[m.Shape]/peak
			r.add(m)
		}
	}
}

// find returns the value of a measurement, NaN if there is none.
func (r *result) find(of measurement) float64 {
	for _, m := range r.List {
		of.Unit, of.Prompt, of.Value = m.Unit, m.Prompt, m.Value
		if m == of {
			return m.Value
		}
	}
	return math.NaN()
}

// row is a load on a shape, and what the pairs of formats do.
type row struct {
	measurement // of any engine and format
	cells       []cell
}

// cell is a pair's: ratio is how many times better ours is.
type cell struct{ ours, theirs, ratio float64 }

// pairs are the formats that a shape is measured in.
func (r *result) pairs(shape string) []pair {
	if shape == towerShape {
		return towerPairs
	}
	return r.settings.pairs
}

// rows returns the loads of one shape after the other, in the order in which they were
// measured first.
func (r *result) rows() (list []row) {
	for _, m := range r.List {
		if slices.ContainsFunc(list, func(o row) bool { return o.Shape == m.Shape && o.Test == m.Test && o.Streams == m.Streams }) {
			continue
		}
		o := row{measurement: m}
		for _, p := range r.pairs(m.Shape) {
			m.Engine, m.Format = millrace, p.ours
			c := cell{ours: r.find(m)}
			m.Engine, m.Format = llama, p.theirs
			c.theirs = r.find(m)
			c.ratio = c.ours / c.theirs
			if m.less() {
				c.ratio = c.theirs / c.ours
			}
			o.cells = append(o.cells, c)
		}
		list = append(list, o)
	}
	first := func(shape string) int {
		return slices.IndexFunc(r.List, func(m measurement) bool { return m.Shape == shape })
	}
	slices.SortStableFunc(list, func(a, b row) int { return first(a.Shape) - first(b.Shape) })
	return list
}

// name says what a row is about.
func (o *row) name() string {
	switch {
	case o.Test == testDecode && o.Streams == 1:
		return "decode, 1 stream"
	case o.Test == testDecode, o.Test == testBusy:
		return strings.Replace(o.Test, "decode", fmt.Sprintf("decode, %d streams", o.Streams), 1)
	}
	return o.Test
}

func (r *result) summary() string {
	s := strings.Join(slices.DeleteFunc([]string{r.Machine, r.Kernels, fmt.Sprintf("%d threads", r.Threads), r.Date.Format(time.DateOnly)},
		func(part string) bool { return part == "" }), ", ") // no kernels: nothing was measured without a server
	if r.Peaks != nil {
		s += fmt.Sprintf("; the machine reads %.1f GB/s and does %.0f billion operations a second in float32, %.0f in int8",
			r.Peaks.Read/1e9, r.Peaks.FMA/1e9, r.Peaks.Dot/1e9)
	}
	return s
}

// figure is a value with the digits that count.
func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func ratio(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.2f×", v)
}

// print writes one table for each shape.
func (r *result) print(out io.Writer) {
	fmt.Fprintln(out, r.summary())
	shape := ""
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, o := range r.rows() {
		if o.Shape != shape {
			shape = o.Shape
			fmt.Fprintf(w, "\n%s\tunit", shape)
			for _, p := range r.pairs(shape) {
				fmt.Fprintf(w, "\t%s\t%s\tratio", p.ours, p.theirs)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s\t%s", o.name(), o.Unit)
		for _, c := range o.cells {
			fmt.Fprintf(w, "\t%s\t%s\t%s", figure(c.ours), figure(c.theirs), ratio(c.ratio))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // to the terminal
	for _, line := range slices.Concat(r.Pace, r.Remarks) {
		fmt.Fprintln(out, line)
	}
}

// write writes README.md, peer.json and the plots to dir. Those of an instruction set
// bear its name.
func (r *result) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	page, numbers := "README.md", "peer.json"
	var links strings.Builder
	if isa := r.settings.isa; isa != "" {
		page, numbers = isa+".md", isa+".json"
	} else {
		for _, other := range []struct{ file, text string }{
			{"avx2.md", "the same with AVX2 alone, which older processors have"},
			{"quality.md", "what the formats lose in quality, beside llama.cpp's"},
		} {
			if _, err := os.Stat(filepath.Join(dir, other.file)); err == nil {
				fmt.Fprintf(&links, "See also [%s](%s).\n", other.text, other.file)
			}
		}
	}
	all := r.plots()
	all[numbers] = append(data, '\n')
	all[page] = r.markdown(numbers, links.String())
	for name, data := range all {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plot is the name of a shape's plot.
func (r *result) plot(shape string) string {
	if r.settings.isa != "" {
		shape += "-" + r.settings.isa
	}
	return shape + ".svg"
}

// markdown returns the page. numbers is the name of the file that has them too, and
// links are further lines of its head.
func (r *result) markdown(numbers, links string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Millrace and llama.cpp\n\n%s.\n\n", r.summary())
	fmt.Fprintf(&b, "Both programs compute with the same random weights, in formats that people choose between; llama.cpp is the version in llama-cpp-python %s.\n"+
		"The two take turns, and the best of %s counts. A ratio above 1 means that Millrace is better: faster, sooner or smaller.\n", r.Llama, rounds(r.settings.rounds))
	fmt.Fprintf(&b, "`%s` wrote this page in %.0f minutes; [%s](%[3]s) has the numbers.\n%s", r.Command, r.Seconds/60, numbers, links)
	shape := ""
	for _, o := range r.rows() {
		if o.Shape != shape {
			shape = o.Shape
			fmt.Fprintf(&b, "\n## %s\n\n", shape)
			if slices.Contains(r.settings.shapes, shape) {
				fmt.Fprintf(&b, "![ratios](%s)\n\n", r.plot(shape))
			}
			b.WriteString("| |")
			for _, p := range r.pairs(shape) {
				fmt.Fprintf(&b, " %s | %s | ratio |", p.ours, p.theirs)
			}
			fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---:|---:|---:|", len(r.pairs(shape))))
		}
		fmt.Fprintf(&b, "| %s, %s |", o.name(), o.Unit)
		for _, c := range o.cells {
			fmt.Fprintf(&b, " %s | %s | %s |", figure(c.ours), figure(c.theirs), ratio(c.ratio))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprint(&b, "\n## What the figures are\n\n")
	for _, e := range explained {
		if slices.ContainsFunc(r.List, func(m measurement) bool {
			return m.Test == e.name || strings.HasSuffix(e.name, " of") && strings.HasPrefix(m.Test, e.name)
		}) {
			fmt.Fprintf(&b, "- **%s**: %s.\n", strings.TrimSuffix(e.name, " of"), e.text)
		}
	}
	if len(r.Pace) > 0 {
		fmt.Fprintf(&b, "\n## What requests wait for\n\n- %s\n", strings.Join(r.Pace, "\n- "))
	}
	if len(r.Remarks) > 0 {
		fmt.Fprintf(&b, "\n## Remarks\n\n- %s\n", strings.Join(r.Remarks, "\n- "))
	}
	return b.Bytes()
}

// plots draws the ratios of each shape.
func (r *result) plots() map[string][]byte {
	all := map[string][]byte{}
	for _, shape := range r.settings.shapes {
		p := chart.Bars{Title: shape + ": Millrace beside llama.cpp, " + r.Kernels, Y: "times llama.cpp's speed", Mark: 1}
		for _, pair := range r.settings.pairs {
			p.Bars = append(p.Bars, chart.Bar{Name: fmt.Sprintf("%s beside %s", pair.ours, pair.theirs)})
		}
		for _, o := range r.rows() {
			if o.Shape != shape || o.Unit != tokensPerSecond {
				continue
			}
			p.Groups = append(p.Groups, o.short())
			for i, c := range o.cells {
				p.Bars[i].Values = append(p.Bars[i].Values, c.ratio)
			}
		}
		if len(p.Groups) > 0 {
			p.Bars = slices.DeleteFunc(p.Bars, func(b chart.Bar) bool {
				return !slices.ContainsFunc(b.Values, func(v float64) bool { return !math.IsNaN(v) })
			})
			all[r.plot(shape)] = []byte(p.SVG())
		}
	}
	return all
}

// short is a name of two short lines, for a plot.
func (o *row) short() string {
	switch o.Test {
	case testDecode:
		return fmt.Sprintf("decode, × %d", o.Streams)
	case testDecodeLong:
		return "decode, at 8k"
	case testBusy:
		return "decode, busy"
	case testLoad:
		return "HTTP, 16 clients"
	}
	return strings.Replace(strings.TrimSuffix(o.Test, " tokens"), " of ", ", ", 1)
}
