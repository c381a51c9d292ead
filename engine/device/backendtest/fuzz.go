package backendtest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Fuzz changes small plans at random and runs those that plan.Check accepts: none
// may crash the backend or ref, nor may the two disagree where both give finite
// numbers.
//
//	func FuzzPlan(f *testing.F) { backendtest.Fuzz(f, open) }
func Fuzz(f *testing.F, open Open) {
	plans := fuzzPlans()
	for i := range plans {
		f.Add(uint8(i), uint8(i), []byte{})
		f.Add(uint8(i), uint8(0), []byte{byte(2 * i), byte(3 * i), byte(i), byte(5 * i), 9, byte(7 * i), 0, byte(i)})
	}
	f.Fuzz(func(t *testing.T, which, format uint8, changes []byte) {
		p := cloned(plans[int(which)%len(plans)])
		change(p, changes)
		if plan.Check(p) != nil {
			fit(p)
		}
		if plan.Check(p) != nil || !small(p) {
			return
		}
		fuzzPlan(t, open, p, formats[int(format)%len(formats)], len(changes) > 0)
	})
}

// fuzzLimits are small: a plan is run many times a second.
var fuzzLimits = device.Limits{MaxTokens: 24, MaxRows: 24, MaxSlots: 3, MaxPagesPerSlot: 3, Threads: 2}

// small reports whether a plan runs in no time.
func small(p *plan.Plan) bool {
	widths, weights, cached, tables := 0, 0, 0, 0
	for _, v := range p.Values {
		widths += int(v.Width)
	}
	for _, t := range p.Tensors {
		n := 1
		for _, d := range t.Shape {
			n *= d
		}
		weights += n
	}
	for i := range p.Caches {
		cached += p.Caches[i].Elements()
	}
	for _, t := range p.Tables {
		tables += len(t)
	}
	return max(widths, cached, tables) <= 1<<14 && weights <= 1<<17 && len(p.Ops) <= 200 && max(p.Vocab, p.Hidden) <= 1<<12
}

// fuzzPlan runs one plan.
func fuzzPlan(t *testing.T, open Open, p *plan.Plan, format plan.Format, changed bool) {
	b := device.Checked(open(t, fuzzLimits), fuzzLimits)
	if err := b.CheckPlan(p); err != nil {
		b.Close()
		if !errors.Is(err, device.ErrUnsupported) {
			t.Fatalf("CheckPlan: %v\n%v", err, p)
		}
		return
	}
	oracle := func() device.Backend {
		b, err := ref.Open(fuzzLimits)
		if err != nil {
			t.Fatal(err)
		}
		return device.Checked(b, fuzzLimits)
	}
	m := weigh(p, format, 0)
	caps := b.Caps()
	run := func(b device.Backend, m *model) []answer {
		load(t, b, m, fuzzLimits)
		return randomSteps(newHost(t, b, m, fuzzLimits), m, caps)
	}
	got, want := run(b, m), run(oracle(), m)
	if changed && !comparable(p) {
		return
	}
	// How much a plan makes of a small difference, which rounding is, shows when
	// the weights differ a little.
	near := run(oracle(), weigh(p, format, 1e-5))
	tolerance := 1e-3
	if format != plan.F32 {
		tolerance = 5e-2
	}
	for i := range want {
		if !agree(got[i], want[i], near[i], tolerance) {
			t.Fatalf("%s is\n%v\n%v, ref says\n%v\n%v and, of slightly other weights,\n%v\n%v\nof the plan %v", want[i].what,
				got[i].logprob, got[i].output, want[i].logprob, want[i].output, near[i].logprob, near[i].output, p)
		}
	}
}

// comparable reports whether a plan that was changed should give the same
// whatever the precision: it chooses no experts, among which may be equals, does not
// round what it caches, and its numbers are of sizes that float32 has room for when they
// are squared.
func comparable(p *plan.Plan) bool {
	if p.CacheFormat() != plan.F32 {
		return false
	}
	for i := range p.Ops {
		op := &p.Ops[i]
		if op.Kind == plan.OpRoute {
			return false
		}
		for _, f := range op.F {
			if f := math.Abs(float64(f)); op.Kind != plan.OpRope && f != 0 && (f < 1e-7 || f > 100) {
				return false
			}
		}
	}
	return true
}

// agree reports whether an answer is about as far from ref's as ref's is from
// that of other weights. Numbers that are not finite agree with any.
func agree(got, want, near answer, tolerance float64) bool {
	if got.invalid || want.invalid || near.invalid {
		return true
	}
	g, w, n := got.output, want.output, near.output
	if w == nil {
		g, w, n = []float32{got.logprob}, []float32{want.logprob}, []float32{near.logprob}
	}
	size, sensitive := 1.0, 0.0
	for i := range w {
		size = max(size, math.Abs(float64(w[i])))
		sensitive = max(sensitive, math.Abs(float64(w[i])-float64(n[i])))
	}
	if !finite(size) || !finite(sensitive) {
		return true
	}
	for i := range w {
		if finite(float64(g[i])) && !within(g[i], w[i], tolerance*size+100*sensitive) {
			return false
		}
	}
	return true
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// weigh gives a plan random weights, which differ by about the given part.
func weigh(p *plan.Plan, format plan.Format, difference float64) *model {
	b := newBuilder(1, p.Vocab, format)
	rng := rand.New(rand.NewPCG(2, 2))
	for _, t := range p.Tensors {
		n, cols := 1, t.Shape[len(t.Shape)-1]
		for _, d := range t.Shape {
			n *= d
		}
		mean, deviation := 0.0, 1/math.Sqrt(float64(cols))
		if len(t.Shape) == 1 {
			mean, deviation = 0.5, 0.5
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32((mean + deviation*b.rng.NormFloat64()) * (1 + difference*rng.NormFloat64()))
		}
		b.tensor(values, t.Shape...)
	}
	b.plan = *p
	return &b.model
}

// randomSteps feeds sequences in steps of any size, gives slots to new ones and
// returns the answers that depend on no choice.
func randomSteps(h *host, m *model, caps device.Caps) (out []answer) {
	rng := rand.New(rand.NewPCG(3, 3))
	most := fuzzLimits.MaxPagesPerSlot * device.PageTokens
	for i := range h.plan.Ops {
		if op := &h.plan.Ops[i]; op.Kind == plan.OpEmbedPosition {
			most = min(most, h.plan.Tensors[op.Weight[0]].Shape[0]-int(op.I[plan.EmbedOffset]))
		}
	}
	adapter := int32(0)
	if a := LowRank(&m.plan, 4, 2); caps.Has(device.FeatureAdapters) && len(a.Targets) > 0 {
		adapter = 1
		if err := h.b.LoadAdapter(adapter, a); err != nil {
			h.t.Fatal(err)
		}
	}
	seqs := make([]*seq, fuzzLimits.MaxSlots)
	for range 7 {
		var chunks []chunk
		left := fuzzLimits.MaxTokens
		for i, x := range seqs {
			if x != nil && (x.computed == most || rng.IntN(5) == 0) {
				h.finish(x)
				x = nil
			}
			if x == nil {
				x = randomSeq(h, rng, most, caps)
				x.adapter = adapter * rng.Int32N(2)
			}
			seqs[i] = x
			n := min(left, most-x.computed, 1+rng.IntN(12)*rng.IntN(2))
			if n == 0 {
				continue
			}
			left -= n
			x.spans = nil
			if n > 1 && caps.Has(device.FeatureSpans) && rng.IntN(3) == 0 {
				first := rng.IntN(n - 1)
				x.spans = []device.Span{{Start: int32(x.computed + first), Count: int32(2 + rng.IntN(n-first-1))}}
			}
			c := chunk{seq: x, n: n, output: m.plan.Encodes(), score: !m.plan.Encodes()}
			if c.score && rng.IntN(4) == 0 {
				c.score, c.sample, c.topN = false, true, 3
			}
			chunks = append(chunks, c)
		}
		answers := h.step(chunks...)
		at := 0
		for _, c := range chunks {
			if c.sample {
				at++
				continue
			}
			n := c.n
			if c.output {
				n /= h.joined()
			}
			out = append(out, answers[at:at+n]...)
			at += n
		}
	}
	return out
}

// randomSeq starts a sequence of tokens and embedding rows.
func randomSeq(h *host, rng *rand.Rand, most int, caps device.Caps) *seq {
	var tokens []int32
	seed := rng.Uint64()
	if h.plan.Vocab > 0 {
		tokens = prompt(seed, most, h.plan.Vocab)
	}
	x := h.start(tokens, sample.Greedy())
	x.embeds = map[int][]float32{}
	for pos := range most {
		if tokens != nil && (!caps.Has(device.FeatureEmbeds) || rng.IntN(4) > 0) {
			continue
		}
		for range h.plan.RowWidth() {
			x.embeds[pos] = append(x.embeds[pos], float32(rng.NormFloat64()))
		}
	}
	x.ropeLen = rng.Int32N(80)
	if caps.Has(device.FeatureAxes) && rng.IntN(2) == 0 {
		x.axes = grid
	}
	return x
}

// fuzzPlans are small plans of all kinds: the suite's own and those of families,
// as they are and as a backend gets them.
func fuzzPlans() []*plan.Plan {
	var plans []*plan.Plan
	for _, m := range models() {
		plans = append(plans, &m.build(plan.F32).plan)
	}
	plans = append(plans, &tower(plan.F32).plan, &embedder(plan.F32).plan, &windows(plan.F32, true).plan, &windows(plan.F32, false).plan)
	for _, family := range []string{
		`"model_type":"llama","attention_bias":true,"mlp_bias":true,"rope_scaling":{"type":"dynamic","factor":2.0},"max_position_embeddings":20`,
		`"model_type":"qwen2","use_sliding_window":true,"sliding_window":7,"max_window_layers":1`,
		`"model_type":"qwen3"`,
		`"model_type":"gemma2","sliding_window":7`,
		`"model_type":"gemma3_text","sliding_window":7,"sliding_window_pattern":2`,
		`"model_type":"phi3","sliding_window":20,"original_max_position_embeddings":16,"rope_scaling":{"type":"longrope","short_factor":[1,1,1,1],"long_factor":[1,2,3,4]}`,
		`"model_type":"gpt2","num_key_value_heads":null,"head_dim":null`,
		`"model_type":"gpt_neox","rotary_pct":0.5,"num_key_value_heads":null,"head_dim":null`,
		`"model_type":"bloom","n_layer":2,"n_head":4,"num_key_value_heads":null,"head_dim":null`,
		`"model_type":"mixtral","num_local_experts":3,"sliding_window":null`,
		`"model_type":"qwen3_moe","num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":16,"mlp_only_layers":[0]`,
		`"model_type":"gpt_oss","num_local_experts":4,"sliding_window":7`,
		`"model_type":"deepseek_v3","n_routed_experts":8,"num_experts_per_tok":2,"n_group":4,"topk_group":2,"first_k_dense_replace":1,` +
			`"moe_intermediate_size":16,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8`,
		`"model_type":"qwen3_5_text","linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":8,` +
			`"layer_types":["linear_attention","full_attention"]`,
		`"model_type":"mamba2","num_attention_heads":8,"num_key_value_heads":null,"n_groups":2,"state_size":8`,
	} {
		config := `{"vocab_size":30,"hidden_size":32,"intermediate_size":40,"num_hidden_layers":2,"num_attention_heads":4,` +
			`"num_key_value_heads":2,"head_dim":8,"max_position_embeddings":64,` + family + `}`
		c, err := plan.ParseConfig([]byte(config), nil)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", family, err))
		}
		p, err := plan.Build(c, func(string) ([]int, bool) { return nil, true })
		if err != nil {
			panic(fmt.Sprintf("%s: %v", family, err))
		}
		plans = append(plans, p)
	}
	for _, p := range plans[:len(plans):len(plans)] {
		plans = append(plans, plan.Share(plan.Lower(p)))
	}
	return plans
}
