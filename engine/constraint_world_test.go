package engine

import (
	"context"
	"math/rand/v2"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// vocabulary is that of constrained requests, its first tokens special.
var vocabulary = grammartest.Vocabulary(grammartest.MinSize)

// sharedCompiler makes the compiler of all tests once, with testGrammars in its
// cache: what is open beyond them is someone's matcher.
var sharedCompiler = sync.OnceValues(func() (*grammar.Compiler, error) {
	c, err := grammar.NewCompiler(vocabulary, int(vocabulary), []int32{grammartest.EOS})
	for i := 0; i < len(testGrammars) && err == nil; i++ {
		var m *grammar.Matcher
		if m, err = c.Compile(context.Background(), grammar.Spec{Kind: testGrammars[i].kind, Text: testGrammars[i].text}); err == nil {
			m.Close()
		}
	}
	return c, err
})

// lateCompiler has masks and moves be late when late says so, not when they are:
// it waits for each of them, however long that takes.
type lateCompiler struct {
	*grammar.Compiler
	late func() bool
}

// lateIf is a Config.Compiler that makes a lateCompiler.
func lateIf(late func() bool) func() (Compiler, error) {
	return func() (Compiler, error) {
		c, err := sharedCompiler()
		return &lateCompiler{c, late}, err
	}
}

func onTime() bool { return false }

func (c *lateCompiler) Moves(ms []*grammar.Matcher, _ time.Time) { c.Compiler.Moves(ms, time.Time{}) }

func (c *lateCompiler) Moved(m *grammar.Matcher) (move grammar.Move, ok bool, err error) {
	if c.late() {
		return grammar.Move{}, false, nil
	}
	return c.Compiler.Moved(m)
}

func (c *lateCompiler) Masks(ms []*grammar.Matcher, rows [][]uint32, errs []error, _ time.Time) {
	c.Compiler.Masks(ms, rows, errs, time.Time{})
	for i := range ms {
		if errs[i] == nil && c.late() {
			errs[i] = grammar.ErrLate
		}
	}
}

func (c *lateCompiler) Drafts(ms []*grammar.Matcher, ds []*grammar.Draft, _ time.Time) {
	deadline := time.Time{}
	if c.late() {
		deadline = time.Now()
	}
	c.Compiler.Drafts(ms, ds, deadline)
}

func compiler(t testing.TB) *grammar.Compiler {
	t.Helper()
	c, err := sharedCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testGrammar is a grammar, and the same as Go's regexp understands it.
type testGrammar struct {
	kind  grammar.Kind
	text  string
	whole *regexp.Regexp
}

func matching(pattern string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + pattern + `)$`) }

var testGrammars = []testGrammar{
	{grammar.Regex, `[ab]{3,9}c?`, matching(`[ab]{3,9}c?`)},
	{grammar.Regex, `(abc|x[0-9])*`, matching(`(abc|x[0-9])*`)},
	{grammar.Regex, `true, abcxy[0-9]{2,20}, "abc":`, matching(`true, abcxy[0-9]{2,20}, "abc":`)},
	{grammar.Regex, `abc`, matching(`abc`)},
	{grammar.JSONSchema, `{"type":"object","properties":{"abc":{"enum":["true","abc"]},"xy":{"type":"integer","minimum":0,"maximum":99}},"required":["abc","xy"],"additionalProperties":false}`,
		matching(`\{ ?"abc" ?: ?"(true|abc)" ?, ?"xy" ?: ?[1-9]?[0-9] ?\}`)},
	{grammar.JSONSchema, `{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":6}`, nil}, // "false" has no token: only true
}

// followed tells which grammar a text followed, and from where on.
type followed struct {
	grammar *testGrammar
	from    int // in the text; -1: not yet
	ended   bool
}

// constraintSpec is what a constrained request asks for, in the words of the test.
type constraintSpec struct {
	grammar   *testGrammar
	triggers  []triggerSpec
	reasoning *Reasoning
}

type triggerSpec struct {
	text    string
	atStart bool
	grammar *testGrammar
}

// compile compiles it.
func (g *constraintSpec) compile(t testing.TB) *Constraint {
	if g == nil {
		return nil
	}
	c := compiler(t)
	made := &Constraint{NewDetokenizer: func() Detokenizer { return vocabulary }, Reasoning: g.reasoning}
	if g.grammar != nil {
		made.Grammar = grammartest.Compile(t, c, g.grammar.kind, g.grammar.text)
	}
	for _, tr := range g.triggers {
		made.Triggers = append(made.Triggers, Trigger{tr.text, tr.atStart, grammartest.Compile(t, c, tr.grammar.kind, tr.grammar.text)})
	}
	return made
}

// randomConstraint returns one of many.
func randomConstraint(rng *rand.Rand) *constraintSpec {
	some := func() *testGrammar { return &testGrammars[rng.IntN(len(testGrammars))] }
	p := &constraintSpec{}
	if rng.IntN(2) == 0 {
		p.reasoning = randomReasoning(rng)
	}
	switch {
	case p.reasoning != nil && rng.IntN(3) == 0:
		return p
	case rng.IntN(2) == 0:
		p.grammar = some()
		return p
	}
	for _, text := range []string{"<call>", "a{", "x", "{", " ", "1"}[rng.IntN(4):] {
		p.triggers = append(p.triggers, triggerSpec{text, rng.IntN(3) == 0, some()})
	}
	return p
}

// randomReasoning returns reasoning whose marks come now and then.
func randomReasoning(rng *rand.Rand) *Reasoning {
	tokens := func(text string) []int32 {
		ids, err := vocabulary.Encode(text, false)
		if err != nil {
			panic(err)
		}
		return ids
	}
	r := &Reasoning{Opened: rng.IntN(2) == 0, Budget: rng.IntN(12) - 3}
	r.Close = []string{"x", "e", "abc", "9<", "all>"}[rng.IntN(5)]
	r.Open = []string{"<call>", "a", "l>", "ue"}[rng.IntN(4)]
	r.OpenTokens = []int32{grammartest.Call}
	if r.Open != "<call>" {
		r.OpenTokens = tokens(r.Open)
	}
	r.Ending = tokens([]string{"", "12, ", "{"}[rng.IntN(3)] + r.Close)
	if rng.IntN(3) == 0 {
		r.Answer = tokens("true, ")
		r.Ending = append(r.Ending, r.Answer...)
	}
	return r
}

// oracle follows a sequence token by token as the engine should, with whole
// texts and fresh matchers where the engine has state.
type oracle struct {
	t        testing.TB
	spec     *constraintSpec
	matcher  *grammar.Matcher
	followed followed
	ids      []int32
	pending  []int32 // forced, to come
	forced   map[int]bool
	end      int // tokens after which the sequence has ended; 0: not
	ignore   bool

	before *Reasoning // nil once the answer has begun
	inside int        // of the text, where the reasoning begins; -1: not yet
	count  int        // tokens of it
	choice bool       // the first token may open it
	last   bool       // pending are the last tokens before the answer
	base   int        // of the text, where the answer begins
	lost   bool       // its grammar does not allow how it begins
}

func (o *oracle) text() string { return vocabulary.Text(o.ids...) }

// enter starts g at a place of the text, and reports whether it takes the rest.
func (o *oracle) enter(g *testGrammar, from int) bool {
	m := grammartest.Compile(o.t, compiler(o.t), g.kind, g.text)
	if rest := o.text()[from:]; rest != "" && m.AcceptText([]byte(rest)) != nil {
		m.Close()
		return false
	}
	o.matcher, o.followed = m, followed{grammar: g, from: from}
	return true
}

// take follows a token.
func (o *oracle) take(id int32) {
	before := len(o.text())
	o.ids = append(o.ids, id)
	ends := id == grammartest.EOS && (o.matcher != nil || !o.ignore)
	switch {
	case o.end > 0:
		return
	case ends:
		o.end = len(o.ids)
		return
	case o.before != nil:
		if o.reason(id); o.before != nil {
			return
		}
		before = o.base
	}
	switch {
	case len(o.pending) > 0:
		o.pending = o.pending[1:]
		o.accept(id)
	case o.matcher != nil:
		o.accept(id)
	case o.spec.grammar == nil:
		o.trigger(before)
	default: // after the reasoning
		o.base = len(o.text()) - len(strings.TrimLeft(o.text()[o.base:], " "))
		o.lost = !o.enter(o.spec.grammar, o.base)
	}
	if o.matcher == nil || len(o.pending) > 0 {
		return
	}
	if o.matcher.Done() {
		o.force(grammartest.EOS)
	} else {
		o.force(o.matcher.Forced(nil)...)
	}
}

// force says which tokens come next. A first one is sampled nevertheless.
func (o *oracle) force(ids ...int32) {
	o.pending = ids
	for i := range ids {
		o.forced[len(o.ids)+i] = len(o.ids)+i > 0
	}
}

// reason follows a token before the answer, of which base is the beginning.
func (o *oracle) reason(id int32) {
	r, text := o.before, o.text()
	over := func(at int) { o.before, o.base = nil, at }
	if len(o.pending) > 0 {
		if o.pending = o.pending[1:]; len(o.pending) == 0 && o.last {
			over(len(text))
		}
		return
	}
	switch inked := strings.TrimLeft(text, " "); {
	case o.inside >= 0:
		o.count++
	case o.matcher != nil && o.choice && id == r.OpenTokens[0]:
		o.matcher.Close()
		o.matcher, o.followed, o.inside = nil, followed{from: -1}, len(r.Open)
		o.force(r.OpenTokens[1:]...)
		text += vocabulary.Text(o.pending...)
	case o.matcher != nil:
		over(0)
		return
	case strings.HasPrefix(inked, r.Open):
		o.inside = len(text) - len(inked) + len(r.Open)
	case strings.HasPrefix(r.Open, inked):
		return
	default:
		over(len(text) - len(inked))
		return
	}
	if _, rest, found := strings.Cut(text[o.inside:], r.Close); found {
		if o.spec.grammar == nil || len(r.Answer) == 0 || strings.TrimLeft(rest, " ") != "" {
			over(len(text) - len(rest))
			return
		}
		o.force(r.Answer...)
		o.last = true
	} else if r.Budget >= 0 && o.count >= r.Budget {
		o.force(slices.Concat(o.pending, r.Ending)...)
		o.last = true
	}
}

func (o *oracle) accept(id int32) {
	if err := o.matcher.Accept(id); err != nil {
		o.t.Errorf("token %d after %q: %v", id, o.text(), err)
	}
}

func (o *oracle) trigger(before int) {
	text := o.text()[o.base:]
	before -= o.base
	triggers := slices.Clone(o.spec.triggers)
	sort.SliceStable(triggers, func(i, k int) bool { return len(triggers[i].text) > len(triggers[k].text) })
	for end := before + 1; end <= len(text); end++ {
		for _, tr := range triggers {
			head, found := strings.CutSuffix(text[:end], tr.text)
			if found && (!tr.atStart || strings.TrimSpace(head) == "") && o.enter(tr.grammar, o.base+end) {
				return
			}
		}
	}
}

// mask is sim.Conditions's: out is what the sequence has.
func (o *oracle) mask(out []sim.Choice) []uint32 {
	for _, c := range out[len(o.ids):] {
		o.take(c.Token)
	}
	words := make([]uint32, compiler(o.t).MaskWords())
	switch {
	case o.lost:
	case o.end > 0:
		return nil
	case len(o.pending) > 0:
		words[o.pending[0]/32] |= 1 << (o.pending[0] % 32)
	case o.matcher == nil:
		return nil
	default:
		if err := o.matcher.Mask(words); err != nil {
			o.t.Errorf("after %q: %v", o.text(), err)
		}
		if o.before != nil { // the first token
			open := o.before.OpenTokens[0]
			o.choice = !sample.Allowed(words, open)
			words[open/32] |= 1 << (open % 32)
		}
	}
	return words
}

// expect returns what the request must yield, and where its grammar held.
func (g *constraintSpec) expect(t testing.TB, model sim.Model, req *Request, params sample.Params, by sim.Conditions) ([]sim.Choice, followed) {
	o := &oracle{t: t, spec: g, forced: map[int]bool{}, ignore: req.IgnoreEOS, followed: followed{from: -1}, before: g.reasoning, inside: -1}
	opened := g.reasoning != nil && g.reasoning.Opened
	switch {
	case opened:
		if o.inside = 0; g.reasoning.Budget == 0 {
			o.force(g.reasoning.Ending...)
			o.last = true
		}
	case g.grammar != nil:
		o.enter(g.grammar, 0)
	}
	by.Mask = func(out []sim.Choice) []uint32 {
		mask := o.mask(out)
		switch {
		case o.before != nil && len(o.pending) > 0:
			return mask // whatever the lists say
		case o.before == nil || g.grammar == nil || o.matcher != nil:
			return admitted(req, &model, mask, out)
		}
		if mask = admitted(req, &model, nil, out); mask == nil {
			mask = make([]uint32, device.MaskWords(model.Vocab))
			fill(mask, model.Vocab)
		}
		forbid(mask, model.EOS) // it would come before the answer
		return mask
	}
	prompt, _ := shown(req, model.Hidden)
	want := model.ContinueUnder(prompt, params, by, req.TopN, req.MaxNewTokens, false)
	o.mask(want)
	if o.matcher != nil {
		o.matcher.Close()
	}
	if o.end > 0 {
		want, o.followed.ended = want[:o.end], true
	}
	for i := range want {
		if o.forced[i] {
			want[i].Logprob, want[i].Top = 0, nil
			if req.TopN > 0 {
				want[i].Top = []device.Alternative{{Token: want[i].Token}}
			}
		}
	}
	return want, o.followed
}
