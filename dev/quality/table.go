package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
)

const (
	millrace = "Millrace"
	llama    = "llama.cpp"
)

// table is what a model's formats lose.
type table struct {
	Model  string `json:"model"`
	Chunks int    `json:"chunks"`
	Rows   []row  `json:"rows"`
	// Questions is how many were asked, if any, and Choices how they were answered.
	Questions int         `json:"questions,omitempty"`
	Choices   []choiceRow `json:"choices,omitempty"`
	Gates     []gate      `json:"gates"`
	Skipped   []string    `json:"skipped,omitempty"`
}

type row struct {
	Engine     string  `json:"engine"`
	Format     string  `json:"format"`
	Perplexity float64 `json:"perplexity"`
	Bytes      int64   `json:"bytes"` // of the weights in memory, of llama.cpp the file's
	Date       string  `json:"date"`  // of the measurement
	// Windows are the logarithms of the perplexities of each window.
	Windows []float64 `json:"windows,omitempty"`
}

// gate is a bound of what a format may lose.
type gate struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"` // share of the perplexity that it is compared with
	Bound float64 `json:"bound"`
	Met   bool    `json:"met"`
}

// find returns the perplexity of a row, NaN if it was not measured.
func (t *table) find(engine, format string) float64 {
	for _, r := range t.Rows {
		if r.Engine == engine && r.Format == format {
			return r.Perplexity
		}
	}
	return math.NaN()
}

// readTable reads what was measured of a model, with windows as many as chunks. What
// was measured with others, and a file that is not there, is nothing.
func readTable(path, model string, chunks int) (*table, error) {
	empty := &table{Model: model, Chunks: chunks}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	var t table
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if t.Model != model || t.Chunks != chunks {
		return empty, nil
	}
	t.Gates, t.Skipped = nil, nil
	return &t, nil
}

// write writes the table for readTable.
func (t *table) write(path string) error {
	data, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// put adds a row, or replaces the one of its format. Rows are in the order of their sizes,
// llama.cpp's first.
func (t *table) put(r row) {
	t.Rows = slices.DeleteFunc(t.Rows, func(old row) bool { return old.Engine == r.Engine && old.Format == r.Format })
	t.Rows = append(t.Rows, r)
	slices.SortStableFunc(t.Rows, func(a, b row) int {
		return cmp.Or(strings.Compare(b.Engine, a.Engine), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Format, b.Format))
	})
}

// base is a program's format that the others are compared with.
func base(engine string) string {
	if engine == llama {
		return "BF16"
	}
	return "bf16"
}

// loss returns by what share the perplexity of a format is above that of its
// program's bf16.
func (t *table) loss(engine, format string) float64 {
	return t.find(engine, format)/t.find(engine, base(engine)) - 1
}

// noise is a difference in perplexity that means nothing: what rounding in another
// order changes, at least.
const noise = 0.001

// windows returns by how much the logarithm of the perplexity of each window is above
// that of the program's bf16; nil if that is not known.
func (t *table) windows(engine, format string) (above []float64) {
	var of, from []float64
	for _, r := range t.Rows {
		switch {
		case r.Engine == engine && r.Format == format:
			of = r.Windows
		case r.Engine == engine && r.Format == base(engine):
			from = r.Windows
		}
	}
	if len(of) != len(from) {
		return nil
	}
	for i, v := range of {
		above = append(above, v-from[i])
	}
	return above
}

// deviation returns the standard error of the mean of list, NaN if that is not known.
func deviation(list []float64) float64 {
	n, sum, squares := float64(len(list)), 0.0, 0.0
	for _, v := range list {
		sum += v
	}
	for _, v := range list {
		squares += (v - sum/n) * (v - sum/n)
	}
	return math.Sqrt(squares / (n - 1) / n)
}

// doubt returns what these windows cannot tell from no difference between the losses of a
// format of ours and one of llama.cpp's: two standard errors, at least noise.
func (t *table) doubt(ours, theirs string) float64 {
	a, b := t.windows(millrace, ours), t.windows(llama, theirs)
	if len(a) != len(b) {
		return noise
	}
	for i := range a {
		a[i] -= b[i]
	}
	if d := 2 * deviation(a); d > noise { // false of NaN
		return d
	}
	return noise
}

// gates fills in t.Gates, of what was measured.
func (t *table) gates() {
	add := func(name string, value, bound float64) {
		if !math.IsNaN(value) && !math.IsNaN(bound) {
			t.Gates = append(t.Gates, gate{name, value, bound, value <= bound})
		}
	}
	apart := func(ours, theirs string) float64 { return math.Abs(t.find(millrace, ours)/t.find(llama, theirs) - 1) }
	add("bf16 is llama.cpp's BF16", apart("bf16", "BF16"), 0.002)
	add("int8 loses at most 0.5 %", t.loss(millrace, "int8"), 0.005)
	add("int8 loses no more than Q8_0", t.loss(millrace, "int8"), max(0, t.loss(llama, "Q8_0"))+t.doubt("int8", "Q8_0"))
	add("int4 loses no more than Q4_0", t.loss(millrace, "int4"), t.loss(llama, "Q4_0")+t.doubt("int4", "Q4_0"))
	add("calibrated, int4 of its size loses no more than Q4_K_M", t.loss(millrace, mixed), t.loss(llama, "Q4_K_M")+t.doubt(mixed, "Q4_K_M"))
	add("an int8 cache loses at most 0.3 %", t.loss(millrace, "bf16 + KV int8"), 0.003)
	for _, format := range []string{"Q8_0", "Q4_0", "Q4_K_M", "shipped"} {
		add("the GGUF file "+format+" is read as llama.cpp reads it", apart(format, format), 0.002)
	}
	for _, r := range t.Choices {
		if r.Format == "int8" || r.Format == "bf16 + KV int8" {
			lost, noise := t.lost(r)
			add(r.Format+" answers as many questions right as bf16", lost, noise)
		}
	}
}

func (t *table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n| Program | Format | Perplexity | Loss | Standard error | MB |\n|---|---|---:|---:|---:|---:|\n", t.Model)
	for _, r := range t.Rows {
		doubt := ""
		if d := deviation(t.windows(r.Engine, r.Format)); d > 0 {
			doubt = fmt.Sprintf("%.2f %%", 100*d)
		}
		fmt.Fprintf(&b, "| %s | %s | %.4f | %+.2f %% | %s | %.0f |\n", r.Engine, r.Format, r.Perplexity, 100*t.loss(r.Engine, r.Format), doubt, float64(r.Bytes)/1e6)
	}
	if len(t.Choices) > 0 {
		fmt.Fprintf(&b, "\n| Format | Right of %d questions | Lost | Won |\n|---|---:|---:|---:|\n", t.Questions)
		for _, r := range t.Choices {
			fmt.Fprintf(&b, "| %s | %.1f %% | %d | %d |\n", r.Format, 100*float64(r.Right)/float64(t.Questions), r.Lost, r.Won)
		}
	}
	fmt.Fprintf(&b, "\n| Gate | Value | Bound | |\n|---|---:|---:|---|\n")
	for _, g := range t.Gates {
		verdict := "met"
		if !g.Met {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %+.3f %% | %.3f %% | %s |\n", g.Name, 100*g.Value, 100*g.Bound, verdict)
	}
	for _, s := range t.Skipped {
		fmt.Fprintf(&b, "\nSkipped: %s\n", s)
	}
	return b.String()
}
