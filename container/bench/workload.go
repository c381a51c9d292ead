package bench

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// Lengths is a distribution of whole numbers: a constant "128"; "64-256", each
// number between with the same chance; or "64-256~100", log-normal with the median
// 100, cut at both ends.
type Lengths struct{ lo, hi, median int }

// spread is the standard deviation of the logarithm of a log-normal length. The
// lengths of prompts and answers in ShareGPT's conversations have about as much.
const spread = 1.0

// UnmarshalText reads "128", "64-256" or "64-256~100".
func (l *Lengths) UnmarshalText(text []byte) error {
	limits, middle, isNormal := strings.Cut(string(text), "~")
	first, last, isRange := strings.Cut(limits, "-")
	if !isRange {
		last = first
	}
	lo, err1 := strconv.Atoi(first)
	hi, err2 := strconv.Atoi(last)
	median, err3 := 0, error(nil)
	if isNormal {
		median, err3 = strconv.Atoi(middle)
	}
	if err := errors.Join(err1, err2, err3); err != nil || lo < 1 || hi < lo || isNormal && (median < lo || median > hi) {
		return fmt.Errorf("%q: expected a length such as 128, a range such as 64-256, or one with a median such as 64-256~100", text)
	}
	*l = Lengths{lo, hi, median}
	return nil
}

func (l Lengths) String() string {
	switch {
	case l.median > 0:
		return fmt.Sprintf("%d-%d~%d", l.lo, l.hi, l.median)
	case l.lo == l.hi:
		return strconv.Itoa(l.lo)
	}
	return fmt.Sprintf("%d-%d", l.lo, l.hi)
}

func (l Lengths) draw(r *rand.Rand) int {
	if l.median == 0 {
		return l.lo + r.IntN(l.hi-l.lo+1)
	}
	n := math.Round(float64(l.median) * math.Exp(spread*r.NormFloat64()))
	return int(min(max(n, float64(l.lo)), float64(l.hi)))
}

// prompt is one request to come.
type prompt struct {
	text   string
	tokens int // to generate
}

// workload makes prompts. One goroutine may use it.
type workload struct {
	rand   *rand.Rand
	fixed  []string // from a file, taken in turn; nil: words are drawn
	in     Lengths
	out    Lengths
	served int
}

func newWorkload(o *Options) (*workload, error) {
	w := &workload{rand: rand.New(rand.NewPCG(o.Seed, 0)), in: o.PromptWords, out: o.MaxNewTokens}
	if o.Prompt == "" {
		return w, nil
	}
	data, err := os.ReadFile(o.Prompt)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			w.fixed = append(w.fixed, line)
		}
	}
	if w.fixed == nil {
		return nil, fmt.Errorf("%s: no prompts; expected one a line", o.Prompt)
	}
	return w, nil
}

// words are common and short, so that most tokenizers give each one token.
var words = strings.Fields(`the of and to in is that for it as was with be by on not he this are or his from at which but have an had
	they you were their one all we can her has there been if more when will would who so no out up into than them some could time
	about then do like my now over such our man me even most made after also did many before must through back years where much
	your way well down should because each just those people how too little state good very make world still own see men work long`)

func (w *workload) next() prompt {
	p := prompt{tokens: w.out.draw(w.rand)}
	if w.fixed != nil {
		p.text = w.fixed[w.served%len(w.fixed)]
	} else {
		var b strings.Builder
		for i := range w.in.draw(w.rand) {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(words[w.rand.IntN(len(words))])
		}
		p.text = b.String()
	}
	w.served++
	return p
}
