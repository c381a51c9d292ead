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
	grammar  *testGrammar
	triggers []triggerSpec
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
	made := &Constraint{NewDetokenizer: func() Detokenizer { return vocabulary }}
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
	if rng.IntN(2) == 0 {
		return &constraintSpec{grammar: some()}
	}
	p := &constraintSpec{}
	for _, text := range []string{"<call>", "a{", "x", "{", " ", "1"}[rng.IntN(4):] {
		p.triggers = append(p.triggers, triggerSpec{text, rng.IntN(3) == 0, some()})
	}
	return p
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
	case len(o.pending) > 0:
		o.pending = o.pending[1:]
		o.accept(id)
	case o.matcher != nil:
		o.accept(id)
	case o.spec.grammar == nil:
		o.trigger(before)
	}
	if o.matcher == nil || len(o.pending) > 0 {
		return
	}
	if o.matcher.Done() {
		o.pending = []int32{grammartest.EOS}
	} else {
		o.pending = o.matcher.Forced(nil)
	}
	for i := range o.pending {
		o.forced[len(o.ids)+i] = true
	}
}

func (o *oracle) accept(id int32) {
	if err := o.matcher.Accept(id); err != nil {
		o.t.Errorf("token %d after %q: %v", id, o.text(), err)
	}
}

func (o *oracle) trigger(before int) {
	text := o.text()
	triggers := slices.Clone(o.spec.triggers)
	sort.SliceStable(triggers, func(i, k int) bool { return len(triggers[i].text) > len(triggers[k].text) })
	for end := before + 1; end <= len(text); end++ {
		for _, tr := range triggers {
			head, found := strings.CutSuffix(text[:end], tr.text)
			if found && (!tr.atStart || strings.TrimSpace(head) == "") && o.enter(tr.grammar, end) {
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
	case o.end > 0 || o.matcher == nil:
		return nil
	case len(o.pending) > 0:
		words[o.pending[0]/32] |= 1 << (o.pending[0] % 32)
	default:
		if err := o.matcher.Mask(words); err != nil {
			o.t.Errorf("after %q: %v", o.text(), err)
		}
	}
	return words
}

// expect returns what the request must yield, and where its grammar held.
func (g *constraintSpec) expect(t testing.TB, model sim.Model, req *Request, params sample.Params, by sim.Conditions) ([]sim.Choice, followed) {
	o := &oracle{t: t, spec: g, forced: map[int]bool{}, ignore: req.IgnoreEOS, followed: followed{from: -1}}
	if g.grammar != nil {
		o.enter(g.grammar, 0)
	}
	by.Mask = func(out []sim.Choice) []uint32 { return admitted(req, &model, o.mask(out), out) }
	want := model.ContinueUnder(req.Tokens, params, by, req.TopN, req.MaxNewTokens, false)
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
