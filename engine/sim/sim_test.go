package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

var testLimits = device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 3, MaxPagesPerSlot: 6}

const testPages, testStates = 80, 6

// models are all kinds of caches.
var models = []struct {
	name  string
	model Model
}{
	{"one group", Model{}},
	{"one window", Model{Windows: []int{20}}},
	{"groups", Model{Windows: []int{0, 1, 0, 16, 33}}},
	{"recurrent", Model{Windows: []int{}, Recurrent: true}},
	{"hybrid", Model{Windows: []int{17, 0}, Recurrent: true}},
	{"rotations by a bound", Model{RopeOriginal: 40}},
	{"rotations by the length", Model{RopeOriginal: 40, RopeDynamic: true}},
	{"rows", Model{Hidden: 4}},
}

func init() {
	for i := range models {
		m := &models[i].model
		m.Seed, m.Vocab, m.First, m.EOS = 1, 100, 3, 2
	}
}

// host drives a backend without a scheduler.
type host struct {
	t testing.TB
	b *Backend
	device.Backend
	m    Model
	free []int32 // pages
	next int     // ring entry
}

// open returns a host of a checked backend.
func open(t testing.TB, cfg Config) *host {
	t.Helper()
	h := &host{t: t, b: New(testLimits, cfg), m: cfg.Model}
	h.Backend = h.b.Checked()
	states := 0
	if cfg.Model.Recurrent {
		states = testStates
	}
	if err := h.InitCache(testPages, states); err != nil {
		t.Fatal(err)
	}
	for p := range int32(testPages) {
		h.free = append(h.free, p)
	}
	return h
}

// seq is a sequence on a host.
type seq struct {
	device.Seq
	fresh  bool
	params sample.Params
	pos    int
	pages  [][]int32 // by group
	left   []int     // by group: pages given back
	index  int32     // of the next token to sample
}

func (h *host) seq(slot int32) *seq {
	groups := len(h.m.windows())
	return &seq{Seq: device.Seq{Slot: slot}, fresh: true, params: sample.Greedy(), pages: make([][]int32, groups), left: make([]int, groups)}
}

// batch returns the next ring entry, empty.
func (h *host) batch() *device.Batch {
	x := h.Batch(h.next)
	x.Clear()
	return x
}

// feed appends tokens of s to a batch, with the pages they need, after it gave
// back those that no window sees any more: they are used again at once. A
// recurrent model's state is the slot's number.
func (h *host) feed(x *device.Batch, s *seq, tokens ...int32) {
	s.Start, s.Count, s.KVLen = int32(len(x.Tokens)), int32(len(tokens)), int32(s.pos+len(tokens))
	x.Tokens = append(x.Tokens, tokens...)
	for i := range tokens {
		x.Pos = append(x.Pos, int32(s.pos+i))
	}
	if s.fresh {
		x.Params = append(x.Params, device.ParamDelta{Slot: s.Slot, Params: s.params})
		if h.m.Recurrent {
			x.States = append(x.States, device.StateDelta{Slot: s.Slot, Live: s.Slot, From: device.ZeroState, Save: device.NoState})
		}
	}
	for g, window := range h.m.windows() {
		for window > 0 && (s.left[g]+1)*device.PageTokens <= s.pos-(window-1) {
			h.free = append([]int32{s.pages[g][s.left[g]]}, h.free...)
			s.left[g]++
		}
	}
	s.pos += len(tokens)
	for g := range s.pages {
		for i := range s.pages[g] {
			if s.fresh { // of a prefix
				x.Pages = append(x.Pages, device.PageDelta{Slot: s.Slot, Group: int32(g), Index: int32(i), Page: s.pages[g][i]})
			}
		}
		for len(s.pages[g])*device.PageTokens < s.pos {
			page := h.free[0]
			h.free = h.free[1:]
			x.Pages = append(x.Pages, device.PageDelta{Slot: s.Slot, Group: int32(g), Index: int32(len(s.pages[g])), Page: page})
			s.pages[g] = append(s.pages[g], page)
		}
	}
	s.fresh = false
	x.Seqs = append(x.Seqs, s.Seq)
}

// sample appends a row after the last token of s.
func (s *seq) sample(x *device.Batch) {
	x.Rows = append(x.Rows, device.Row{Token: s.Start + s.Count - 1, Slot: s.Slot, Index: s.index})
	s.index++
}

// run executes the batch that h.batch returned.
func (h *host) run() error {
	i := h.next
	h.next = (h.next + 1) % device.RingDepth
	if err := h.Forward(i); err != nil {
		return err
	}
	if err := h.Sample(i); err != nil {
		return err
	}
	return h.Wait(i)
}

func (h *host) mustRun() {
	h.t.Helper()
	if err := h.run(); err != nil {
		h.t.Fatal(err)
	}
}

// ids returns n random tokens.
func ids(seed uint64, n int) []int32 {
	rng := rand.New(rand.NewPCG(seed, 7))
	out := make([]int32, n)
	for i := range out {
		out[i] = rng.Int32N(100)
	}
	return out
}

func eachModel(t *testing.T, f func(t *testing.T, m Model)) {
	for _, tt := range models {
		t.Run(tt.name, func(t *testing.T) { f(t, tt.model) })
	}
}

// However prompts are cut and mixed, and whoever gets the pages that windows
// have left, what comes out is what the model says.
func TestContinue(t *testing.T) {
	eachModel(t, func(t *testing.T, m Model) {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 3))
			h := open(t, Config{Model: m})
			adapter := m.Adapter(5)
			if err := h.LoadAdapter(9, adapter); err != nil {
				t.Fatal(err)
			}
			type running struct {
				*seq
				by     Conditions
				prompt []int32
				fed    int
				got    []int32
			}
			var all []*running
			for slot := range int32(3) {
				r := &running{seq: h.seq(slot), prompt: ids(seed*3+uint64(slot), 1+rng.IntN(60))}
				if slot == 1 {
					r.by.Adapter, r.Adapter = adapter, 9
				}
				if slot == 2 {
					r.by.RopeLen = 70
					r.RopeLen = 70
				}
				for range m.Hidden * 2 {
					r.by.Embeds = append(r.by.Embeds, rng.Float32())
				}
				if m.Hidden > 0 {
					r.prompt[len(r.prompt)/2], r.prompt[0] = device.EmbedRow(0), device.EmbedRow(1)
				}
				all = append(all, r)
			}
			for range 60 {
				x := h.batch()
				for _, r := range all {
					if rng.IntN(3) == 0 || r.pos >= 90 {
						continue
					}
					if r.fed == len(r.prompt) {
						h.feed(x, r.seq, device.LastToken)
						r.sample(x)
						continue
					}
					n := min(1+rng.IntN(30), len(r.prompt)-r.fed, testLimits.MaxTokens-len(x.Tokens)-3)
					if n < 1 {
						continue
					}
					part := slices.Clone(r.prompt[r.fed : r.fed+n])
					for i, id := range part {
						if id < 0 { // rows have other numbers in the batch
							part[i] = device.EmbedRow(len(x.Embeds) / m.Hidden)
							x.Embeds = append(x.Embeds, r.by.Embeds[int(-1-id)*m.Hidden:][:m.Hidden]...)
						}
					}
					h.feed(x, r.seq, part...)
					if r.fed += n; r.fed == len(r.prompt) {
						r.sample(x)
					}
				}
				if len(x.Seqs) == 0 {
					continue
				}
				h.mustRun()
				for i, row := range x.Rows {
					all[row.Slot].got = append(all[row.Slot].got, x.Results[i].Token)
				}
			}
			for slot, r := range all {
				var want []int32
				for _, c := range m.ContinueUnder(r.prompt, r.params, r.by, 0, len(r.got), false) {
					want = append(want, c.Token)
				}
				if !slices.Equal(r.got, want) || len(want) < 10 {
					t.Fatalf("seed %d, slot %d: got %v, want %v", seed, slot, r.got, want)
				}
			}
		}
	})
}

// What bends a sequence does: no two of these are the same.
func TestConditionsCount(t *testing.T) {
	prompt := ids(1, 60)
	m := Model{Seed: 1, Vocab: 50_000, First: 3, EOS: 2, RopeOriginal: 70}
	seen := map[int32]string{}
	note := func(name string, m Model, prompt []int32, by Conditions) {
		// 20 tokens cross the bound of rotations, of which the last tells all before.
		out := m.ContinueUnder(prompt, sample.Greedy(), by, 0, 20, false)
		last := out[len(out)-1].Token
		if other, ok := seen[last]; ok {
			t.Errorf("%s is the same as %s", name, other)
		}
		seen[last] = name
	}
	note("nothing", m, prompt, Conditions{})
	note("an adapter", m, prompt, Conditions{Adapter: m.Adapter(1)})
	note("another adapter", m, prompt, Conditions{Adapter: m.Adapter(2)})
	note("a length", m, prompt, Conditions{RopeLen: 75})
	note("a bias", m, prompt, Conditions{Biases: []sample.Bias{{Token: 4, Bias: 1}}})
	dynamic := m
	dynamic.RopeDynamic = true
	note("dynamic rotations", dynamic, prompt, Conditions{})
	note("dynamic rotations and a length", dynamic, prompt, Conditions{RopeLen: 85})
	note("dynamic rotations and another", dynamic, prompt, Conditions{RopeLen: 86})
	for name, windows := range map[string][]int{"a window": {20}, "another": {21}, "two": {20, 21}, "two more": {21, 20}, "none": {}} {
		m := m
		m.Windows = windows
		note(name, m, prompt, Conditions{})
		m.Recurrent = true
		note(name+" and a state", m, prompt, Conditions{})
	}
	rows := m
	rows.Hidden = 2
	swapped := slices.Clone(prompt)
	swapped[5] = device.EmbedRow(0)
	note("a row", rows, swapped, Conditions{Embeds: []float32{1, 2}})
	note("another row", rows, swapped, Conditions{Embeds: []float32{1, 3}})
	if a, b := m.Continue(prompt[:20], sample.Greedy(), 0, 20, false), m.ContinueUnder(prompt[:20], sample.Greedy(), Conditions{RopeLen: 70}, 0, 20, false); a[19].Token != b[19].Token {
		t.Error("a length that does not reach the bound changes something")
	}
}

// first feeds a prompt of 40 tokens to slot 0, in two steps, and tells what
// follows; corrupt may change the second.
func first(t *testing.T, m Model, corrupt func(h *host, s *seq, x *device.Batch)) (device.RowResult, error) {
	h := open(t, Config{Model: m})
	prompt := ids(1, 40)
	other, s := h.seq(1), h.seq(0)
	x := h.batch()
	h.feed(x, other, ids(2, 20)...)
	h.feed(x, s, prompt[:20]...)
	if m.Recurrent { // snapshots that someone could take for his
		x.States[0].Save, x.States[1].Save = 4, 5
	}
	h.mustRun()
	x = h.batch()
	h.feed(x, s, prompt[20:]...)
	s.sample(x)
	corrupt(h, s, x)
	err := h.run()
	return x.Results[0], err
}

// What a scheduler may get wrong without breaking the contract of package device
// changes what comes out; what nobody looks at does not.
func TestDetects(t *testing.T) {
	change := func(g int) func(h *host, s *seq, x *device.Batch) { // page 0 of a group
		return func(h *host, s *seq, x *device.Batch) {
			x.Pages = append(x.Pages, device.PageDelta{Slot: 0, Group: int32(g), Page: testPages - 1})
		}
	}
	from := func(state int32) func(h *host, s *seq, x *device.Batch) {
		return func(h *host, s *seq, x *device.Batch) {
			x.States = append(x.States, device.StateDelta{Slot: 0, Live: 0, From: state, Save: device.NoState})
		}
	}
	windows := Model{Windows: []int{0, 5, 21}}
	hybrid := Model{Windows: []int{0}, Recurrent: true}
	for _, tt := range []struct {
		name    string
		model   Model
		corrupt func(h *host, s *seq, x *device.Batch)
		same    bool
	}{
		{"nothing wrong", Model{}, func(*host, *seq, *device.Batch) {}, true},
		{"a page nobody wrote", Model{}, change(0), false},
		{"someone else's page", Model{}, func(h *host, s *seq, x *device.Batch) {
			x.Pages = append(x.Pages, device.PageDelta{Slot: 0, Page: 0})
		}, false},
		{"pages swapped", Model{}, func(h *host, s *seq, x *device.Batch) {
			x.Pages = append(x.Pages, device.PageDelta{Slot: 0, Index: 0, Page: s.pages[0][1]}, device.PageDelta{Slot: 0, Index: 1, Page: s.pages[0][0]})
		}, false},
		{"another group's page", windows, func(h *host, s *seq, x *device.Batch) {
			x.Pages = append(x.Pages, device.PageDelta{Slot: 0, Group: 0, Page: s.pages[2][0]})
		}, false},
		{"a page that the window has left", windows, change(1), true},
		{"a page that the window sees", windows, change(2), false},
		{"another token", Model{}, func(h *host, s *seq, x *device.Batch) { x.Tokens[3]++ }, false},
		{"tokens swapped", Model{}, func(h *host, s *seq, x *device.Batch) { x.Tokens[3], x.Tokens[4] = x.Tokens[4], x.Tokens[3] }, false},
		{"an adapter from there on", Model{}, func(h *host, s *seq, x *device.Batch) {
			if err := h.LoadAdapter(1, h.m.Adapter(1)); err != nil {
				t.Fatal(err)
			}
			x.Seqs[0].Adapter = 1
		}, false},
		{"a length from there on", Model{RopeOriginal: 50}, func(h *host, s *seq, x *device.Batch) { x.Seqs[0].RopeLen = 51 }, false},
		{"a length within the bound", Model{RopeOriginal: 50}, func(h *host, s *seq, x *device.Batch) { x.Seqs[0].RopeLen = 50 }, true},
		{"a length that nothing depends on", Model{}, func(h *host, s *seq, x *device.Batch) { x.Seqs[0].RopeLen = 51 }, true},
		{"its own snapshot", hybrid, from(5), true},
		{"another's snapshot", hybrid, from(4), false},
		{"its state as it is", hybrid, from(device.NoState), true},
		{"a bias", Model{}, func(h *host, s *seq, x *device.Batch) {
			h.b.slots[0].biases += biasOf(sample.Bias{Token: 5, Bias: 1})
		}, false},
		{"counts without penalties", Model{}, func(h *host, s *seq, x *device.Batch) {
			x.Counts = append(x.Counts, device.CountDelta{Slot: 0, Token: 5})
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.model
			m.Seed, m.Vocab, m.First, m.EOS = 1, 100, 3, 2
			want := m.Continue(ids(1, 40), sample.Greedy(), 0, 1, false)[0]
			got, err := first(t, m, tt.corrupt)
			if err != nil {
				t.Fatal(err)
			}
			if same := got.Token == want.Token && got.Logprob == want.Logprob; same != tt.same {
				t.Errorf("got %+v, want %+v: the same is %v", got, want, tt.same)
			}
		})
	}
}

// Without Checked, tokens that a state is given twice or not at all change what
// comes out.
func TestStateDetects(t *testing.T) {
	m := Model{Seed: 1, Vocab: 100, First: 3, EOS: 2, Windows: []int{}, Recurrent: true}
	prompt := ids(1, 40)
	want := m.Continue(prompt, sample.Greedy(), 0, 1, false)[0]
	for _, tt := range []struct {
		name       string
		goOn, save int
		same       bool
	}{
		{"where it ended", 20, 20, true},
		{"a token twice", 19, 20, false},
		{"a token skipped", 21, 20, false},
		{"from an older snapshot", 20, 15, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, Config{Model: m})
			h.Backend = h.b
			s := h.seq(0)
			x := h.batch()
			h.feed(x, s, prompt[:15]...)
			x.States[0].Save = 3
			h.mustRun()
			x = h.batch()
			h.feed(x, s, prompt[15:20]...)
			h.mustRun()
			x = h.batch()
			s.pos = tt.goOn
			h.feed(x, s, prompt[tt.goOn:]...)
			if tt.save == 15 {
				x.States = append(x.States, device.StateDelta{Slot: 0, Live: 0, From: 3, Save: device.NoState})
			}
			s.sample(x)
			h.mustRun()
			if got := x.Results[0]; (got.Logprob == want.Logprob) != tt.same {
				t.Errorf("got %+v, want %+v: the same is %v", got, want, tt.same)
			}
		})
	}
}

// A sequence goes on from pages and a snapshot of another with the same prompt.
func TestResume(t *testing.T) {
	eachModel(t, func(t *testing.T, m Model) {
		const cut = 3 * device.PageTokens
		h := open(t, Config{Model: m})
		prompt := ids(1, cut+9)
		a := h.seq(0)
		x := h.batch()
		h.feed(x, a, prompt[:cut]...)
		if m.Recurrent {
			x.States[0].Save = 4
		}
		h.mustRun()
		b := h.seq(1)
		b.pos = cut
		for g := range a.pages {
			b.pages[g] = slices.Clone(a.pages[g])
			b.left[g] = a.left[g]
		}
		x = h.batch()
		h.feed(x, b, prompt[cut:]...)
		if m.Recurrent {
			x.States[0].From = 4
		}
		b.sample(x)
		h.mustRun()
		want := m.Continue(prompt, sample.Greedy(), 0, 1, false)[0]
		if got := x.Results[0]; got.Token != want.Token || got.Logprob != want.Logprob {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// A slot's next sequence begins without the counts and biases of the last.
func TestNewOwner(t *testing.T) {
	m := models[0].model
	h := open(t, Config{Model: m})
	for _, prompt := range [][]int32{ids(1, 5), ids(2, 9)} {
		s := h.seq(0)
		s.params.FrequencyPenalty = 1
		x := h.batch()
		h.feed(x, s, prompt...)
		for _, id := range prompt {
			x.Counts = append(x.Counts, device.CountDelta{Slot: 0, Token: id})
		}
		bias := sample.Bias{Token: prompt[0], Bias: 3}
		x.Biases = append(x.Biases, device.BiasDelta{Slot: 0, Token: bias.Token, Bias: bias.Bias})
		s.sample(x)
		h.mustRun()
		want := m.ContinueUnder(prompt, s.params, Conditions{Biases: []sample.Bias{bias}}, 0, 1, false)[0]
		if got := x.Results[0]; got.Logprob != want.Logprob {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// Masks and biases count, the former also when they come after Forward; what
// is beyond the vocabulary does not. Where no mask is ready, the row is sampled
// again when it is.
func TestConditions(t *testing.T) {
	biases := []sample.Bias{{Token: 40, Bias: 2}, {Token: 41, Bias: -2}}
	m := models[0].model
	for _, tt := range []struct {
		name   string
		biases []sample.Bias
		mask   []uint32
	}{
		{name: "biases", biases: biases},
		{name: "some are allowed", mask: []uint32{0xf0, 0, 1, 0xffffffff}},
		{name: "one is allowed", mask: []uint32{0, 0, 0, 0x2}},
		{name: "the last is allowed", mask: []uint32{0, 0, 0, 0xfffffff8}, biases: biases},
		{name: "none is allowed", mask: []uint32{0, 0, 0, 0xfffffff0}},
	} {
		for _, again := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				h := open(t, Config{Model: m})
				s, prompt := h.seq(1), ids(1, 6)
				x := h.batch()
				h.feed(x, s, prompt...)
				for _, bias := range tt.biases {
					x.Biases = append(x.Biases, device.BiasDelta{Slot: 1, Token: bias.Token, Bias: bias.Bias})
				}
				s.sample(x)
				if again {
					x.Rows[0].Kind, x.Rows[0].Target = device.RowScore, 5
					h.mustRun()
					if got, want := x.Results[0].Logprob, m.Score(append(prompt, 5), Conditions{}, 0)[6].Logprob; got != want {
						t.Errorf("log-probability %v, want %v", got, want)
					}
					x = h.batch()
					x.Rows = append(x.Rows, device.Row{Token: -1, Slot: 1, Kind: device.RowAgain})
				}
				x.Rows[0].TopN = 6
				i := h.next
				if err := h.Forward(i); err != nil {
					t.Fatal(err)
				}
				if tt.mask != nil {
					x.Masks = append(x.Masks, tt.mask...)
					x.Rows[0].Mask = 1
				}
				if err := h.Sample(i); err != nil {
					t.Fatal(err)
				}
				if err := h.Wait(i); err != nil {
					t.Fatal(err)
				}
				by := Conditions{Biases: tt.biases, Mask: func([]Choice) []uint32 { return tt.mask }}
				want := m.ContinueUnder(prompt, sample.Greedy(), by, 6, 1, true)
				got := x.Results[0]
				if len(want) == 0 {
					if got.Invalid != 1 {
						t.Errorf("got %+v, want an invalid row", got)
					}
					return
				}
				if got.Token != want[0].Token || got.Logprob != want[0].Logprob || !slices.Equal(x.Top[:got.TopCount], want[0].Top) {
					t.Errorf("got %+v %v, want %+v", got, x.Top[:got.TopCount], want[0])
				}
				for _, a := range x.Top[:got.TopCount] {
					if tt.mask != nil && (!sample.Allowed(tt.mask, a.Token) || int(a.Token) >= m.Vocab) {
						t.Errorf("token %d is not allowed", a.Token)
					}
				}
				if tt.biases != nil && tt.mask == nil && got.Logprob == m.Continue(prompt, sample.Greedy(), 0, 1, true)[0].Logprob {
					t.Error("the biases changed nothing")
				}
			})
		}
	}
}

// Drafts that plain decoding would choose are accepted, what follows a wrong one
// is void, and the text is the same, with penalties and random draws too.
func TestVerify(t *testing.T) {
	random := sample.Greedy()
	random.Sample, random.Temperature, random.Seed, random.RepetitionPenalty = 1, 1, 7, 1.5
	for name, params := range map[string]sample.Params{"greedy": sample.Greedy(), "random": random} {
		eachModel(t, func(t *testing.T, m Model) {
			if m.Recurrent {
				t.Skip("a state cannot be taken back")
			}
			h := open(t, Config{Model: m})
			prompt := ids(1, 20)
			s := h.seq(0)
			s.params = params
			x := h.batch()
			h.feed(x, s, prompt...)
			for _, id := range prompt {
				x.Counts = append(x.Counts, device.CountDelta{Slot: 0, Token: id})
			}
			s.sample(x)
			h.mustRun()
			got := []int32{x.Results[0].Token}
			var want []int32
			for _, c := range m.Continue(prompt, params, 0, 50, false) {
				want = append(want, c.Token)
			}
			rng := rand.New(rand.NewPCG(1, 5))
			voids := 0
			for len(got) < 40 {
				drafts := slices.Clone(want[len(got) : len(got)+rng.IntN(4)])
				if len(drafts) > 0 && rng.IntN(2) == 0 {
					drafts[rng.IntN(len(drafts))] ^= 1
				}
				x := h.batch()
				begin := s.pos
				h.feed(x, s, append([]int32{got[len(got)-1]}, drafts...)...)
				for i := range s.Count {
					target := int32(-1)
					if i+1 < s.Count {
						target = x.Tokens[s.Start+i+1]
					}
					x.Rows = append(x.Rows, device.Row{Token: s.Start + i, Slot: 0, Kind: device.RowVerify, Target: target, Index: int32(len(got)) + i})
				}
				h.mustRun()
				n := 0
				for _, r := range x.Results[:len(x.Rows)] {
					if r.Void == 1 {
						voids++
						continue
					}
					got = append(got, r.Token)
					n++
				}
				s.pos = begin + n
			}
			if !slices.Equal(got, want[:len(got)]) || voids == 0 {
				t.Errorf("%s, %d void: got %v, want %v", name, voids, got, want[:len(got)])
			}
		})
	}
}

// A caller who breaks the contract is told what is wrong: by Checked or, where
// it shows in the device's work alone, with the loss of the device.
func TestBrokenContract(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(h *host, x *device.Batch) // of a first step of six tokens in slot 1
		says   string
	}{
		{"a position skipped", func(h *host, x *device.Batch) { x.Pos[2] = 3 }, "position 3, expected 2"},
		{"no page", func(h *host, x *device.Batch) { x.Pages = x.Pages[:0] }, "no page 0 of group 0"},
		{"a page of two sequences", func(h *host, x *device.Batch) {
			s := h.seq(0)
			s.pages[0] = []int32{x.Pages[0].Page}
			h.feed(x, s, 1, 2)
		}, "write page 0 in one step"},
		{"a page of two groups", func(h *host, x *device.Batch) { x.Pages[1].Page = x.Pages[0].Page }, "slot 1 for group 0 and slot 1 for group 1 write page 0"},
		{"touched in flight", func(h *host, x *device.Batch) {
			h.b.cfg.OnWait = func() { x.Tokens[0]++ }
		}, "changed while in flight"},
		{"a kind touched after Sample", func(h *host, x *device.Batch) {
			h.b.cfg.OnWait = func() { x.Rows[0].Kind = device.RowScore }
		}, "changed while in flight"},
		{"a state touched in flight", func(h *host, x *device.Batch) {
			h.b.cfg.OnWait = func() { x.States[0].Save = 3 }
		}, "changed while in flight"},
		{"masks touched after Sample", func(h *host, x *device.Batch) {
			x.Masks = append(x.Masks, 1<<5, 0, 0, 1)
			x.Rows[0].Mask = 1
			h.b.cfg.OnWait = func() { x.Masks[3] = 0 }
		}, "changed while in flight"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, Config{Model: Model{Vocab: 100, First: 3, EOS: 2, Windows: []int{0, 9}, Recurrent: true}})
			x := h.batch()
			s := h.seq(1)
			h.feed(x, s, ids(1, 6)...)
			s.sample(x)
			tt.change(h, x)
			if err := h.run(); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault         Fault
		failed, final bool
		invalid       int32
	}{
		{fault: NoFault},
		{fault: FailStep, failed: true},
		{fault: FailLaunch, failed: true},
		{fault: Invalid, invalid: 1},
		{fault: Lose, failed: true, final: true},
	} {
		for _, m := range []Model{{}, {Windows: []int{}, Recurrent: true}} {
			m.Vocab, m.First, m.EOS = 100, 3, 2
			h := open(t, Config{Model: m, Fault: func(n int) Fault {
				if n == 0 {
					return tt.fault
				}
				return NoFault
			}})
			x := h.batch()
			s := h.seq(0)
			prompt := ids(1, device.PageTokens+4)
			h.feed(x, s, prompt[:device.PageTokens]...)
			if m.Recurrent {
				x.States[0].Save = 3
			}
			s.sample(x)
			err := h.run()
			if (err != nil) != tt.failed || errors.Is(err, device.ErrLost) != tt.final {
				t.Errorf("fault %d: %v", tt.fault, err)
			}
			if x.Results[0].Invalid != tt.invalid {
				t.Errorf("fault %d: %+v", tt.fault, x.Results[0])
			}
			if tt.final || m.Recurrent && tt.fault == FailLaunch { // Checked knows no state after that
				continue
			}
			// Neither the pages nor the snapshot of a step that failed are any good.
			r := h.seq(1)
			r.pos = device.PageTokens
			for g := range r.pages {
				r.pages[g] = slices.Clone(s.pages[g])
			}
			x = h.batch()
			h.feed(x, r, prompt[device.PageTokens:]...)
			if m.Recurrent {
				x.States[0].From = 3
			}
			r.sample(x)
			h.mustRun()
			want := m.Continue(prompt, sample.Greedy(), 0, 1, false)[0]
			if good := x.Results[0].Logprob == want.Logprob; good == tt.failed {
				t.Errorf("fault %d, recurrent %v: what follows is right: %v", tt.fault, m.Recurrent, good)
			}
		}
	}
}

func TestCaps(t *testing.T) {
	for _, tt := range []struct {
		cfg                Config
		depth, tokens      int
		features, withheld device.Feature
	}{
		{Config{}, 1, testLimits.MaxTokens, device.FeatureAdapters | device.FeatureVerify, device.FeatureEmbeds | device.FeatureSpans},
		{Config{Synchronous: true, StepTokens: 7, Model: Model{Hidden: 2}}, 0, 7, device.FeatureEmbeds | device.FeatureAxes | device.FeatureSpans, device.FeatureDraft},
	} {
		c := New(testLimits, tt.cfg).Caps()
		if c.LaunchDepth != tt.depth || c.StepTokens != tt.tokens || !c.Has(tt.features) || c.Features&tt.withheld != 0 {
			t.Errorf("%+v: %+v", tt.cfg, c)
		}
	}
}

// Stats count what was done, in virtual time.
func TestStats(t *testing.T) {
	h := open(t, Config{Model: models[0].model, Latency: func(tokens int) time.Duration { return time.Duration(tokens) * time.Second }})
	s := h.seq(0)
	for range 3 {
		h.feed(h.batch(), s, 5, 6)
		h.mustRun()
	}
	if got, want := h.Stats(), (device.Stats{Steps: 3, Tokens: 6, Busy: 6 * time.Second}); got != want || h.b.Now() != 6*time.Second {
		t.Errorf("got %+v at %v, want %+v", got, h.b.Now(), want)
	}
}
