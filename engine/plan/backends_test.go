package plan_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/shard"
)

// small is enough for the few tokens that run computes.
var small = device.Limits{MaxTokens: 16, MaxRows: 16, MaxSlots: 1, MaxPagesPerSlot: 2, Threads: 2}

// run computes the log-probabilities of a few tokens, in two steps, with weights
// that depend on where they are in the checkpoint alone, so that a plan and what
// is made of it have the same. It returns nil if the backend refuses the plan.
func run(t *testing.T, b device.Backend, p *plan.Plan) []float32 {
	t.Helper()
	b = device.Checked(b, small)
	defer b.Close()
	if b.CheckPlan(p) != nil {
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%v", err, p)
		}
	}
	for i, x := range p.Tensors {
		_, err := b.NewTensor(x.Name, plan.F32, x.Shape)
		must(err)
		rows, data := fill(x)
		must(b.WriteTensor(device.Handle(i), 0, rows, data))
	}
	_, err := b.SetModel(p)
	must(err)
	states := 0
	if p.HasState() {
		states = 1
	}
	must(b.InitCache(2*max(len(p.Groups), 1), states))

	var all []float32
	random := rand.New(rand.NewPCG(7, 7))
	length := min(9, p.MaxPos)
	for at := 0; at < length; at += 5 {
		x := b.Batch(0)
		x.Clear()
		n := min(5, length-at)
		for i := range n {
			x.Tokens = append(x.Tokens, random.Int32N(int32(p.Vocab)))
			x.Pos = append(x.Pos, int32(at+i))
			x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowScore, Target: random.Int32N(int32(p.Vocab))})
		}
		x.Seqs = append(x.Seqs, device.Seq{Count: int32(n), KVLen: int32(at + n), RopeLen: int32(length)})
		from := device.NoState
		if at == 0 {
			from = device.ZeroState
			x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
			for g := range p.Groups {
				x.Pages = append(x.Pages, device.PageDelta{Group: int32(g), Page: int32(g)})
			}
		}
		if states > 0 {
			x.States = append(x.States, device.StateDelta{From: from, Save: device.NoState})
		}
		must(b.Forward(0))
		must(b.Sample(0))
		must(b.Wait(0))
		for _, r := range x.Results[:len(x.Rows)] {
			if r.Invalid != 0 {
				r.Logprob = float32(math.Inf(1))
			}
			all = append(all, r.Logprob)
		}
	}
	return all
}

// fill makes a tensor's elements: each is a hash of its part's name, row and
// column in the checkpoint.
func fill(x plan.Tensor) (rows int, data []byte) {
	cols := x.Shape[len(x.Shape)-1]
	for _, n := range x.Shape[:len(x.Shape)-1] {
		rows = max(rows, 1) * n
	}
	elements := make([]float32, max(rows, 1)*cols)
	if rows == 0 {
		rows, cols = 1, 1 // a vector is one row; in parts, rows of one
	}
	for _, part := range x.Parts {
		outer, inner := part.Rows, part.Cols
		if part.Transpose {
			outer, inner = inner, outer
		}
		for i := range outer.N {
			for j := range inner.N {
				row, col := outer.First+i*outer.Step, inner.First+j*inner.Step
				if part.Transpose {
					row, col = col, row
				}
				h := uint64(len(part.Name))
				for _, n := range append([]byte(part.Name), byte(row), byte(row>>8), byte(col), byte(col>>8)) {
					h = (h ^ uint64(n)) * 0x9e3779b97f4a7c15
					h ^= h >> 29
				}
				elements[(part.To+i)*cols+j] = float32(h%2001)/2000 - 0.5
			}
		}
	}
	for _, e := range elements {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(e))
	}
	return rows, data
}

func open(t *testing.T, name string) device.Backend {
	t.Helper()
	var b device.Backend
	var err error
	if name == "ref" {
		b, err = ref.Open(small)
	} else {
		b, err = cpu.Open(small)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// equal compares bit for bit.
func equal(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// within compares with a tolerance.
func within(a, b []float32, tolerance float64) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Abs(float64(x)-float64(y)) <= tolerance })
}

// TestBackends: sharing changes no bit of what ref computes, lowering only where a
// sum is rounded, and cpu agrees.
func TestBackends(t *testing.T) {
	for name, p := range plan.GoldenPlans(t) {
		t.Run(name, func(t *testing.T) {
			want := run(t, open(t, "ref"), p)
			lowered := plan.Share(plan.Lower(p))
			if got := run(t, open(t, "ref"), plan.Share(p)); !equal(got, want) {
				t.Errorf("shared: %v, the plan as built gives %v", got, want)
			}
			if got := run(t, open(t, "ref"), lowered); !within(got, want, 1e-4) {
				t.Errorf("lowered: %v, the plan as built gives %v", got, want)
			}
			if got := run(t, open(t, "cpu"), lowered); !within(got, want, 2e-2) {
				t.Errorf("cpu: %v, ref %v", got, want)
			}
		})
	}
}

// sharded returns a backend of n of ref.
func sharded(t *testing.T, n int) device.Backend {
	t.Helper()
	var (
		mu      sync.Mutex
		arrived = sync.NewCond(&mu)
		parts   [plan.MaxShards][]float32
		count   int
		given   [][]float32 // what the last to come saw of all
		round   int
	)
	shards := make([]device.Backend, n)
	for i := range shards {
		meet := func(x []float32) [][]float32 {
			mu.Lock()
			defer mu.Unlock()
			parts[i] = x
			if count++; count == n {
				given, count = slices.Clone(parts[:n]), 0
				round++
				arrived.Broadcast()
				return given
			}
			for mine := round; mine == round; {
				arrived.Wait()
			}
			return given
		}
		b, err := ref.OpenShard(small, meet)
		if err != nil {
			t.Fatal(err)
		}
		shards[i] = b
	}
	return shard.New(shards, func() {})
}

// TestShards: a model that is divided computes what it does undivided.
func TestShards(t *testing.T) {
	if testing.Short() {
		t.Skip("arithmetic alone")
	}
	four := []string{"llama", "gpt_neox", "qwen3_moe", "gemma3n", "deepseek_v3"}
	divided := 0
	for name, p := range plan.GoldenPlans(t) {
		for _, n := range []int{2, 4} {
			if n == 4 && !slices.Contains(four, name) {
				continue
			}
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				got := run(t, sharded(t, n), plan.Lower(p))
				if got == nil {
					return
				}
				divided++
				if want := run(t, open(t, "ref"), p); !within(got, want, 1e-4) {
					t.Errorf("%v, undivided %v", got, want)
				}
			})
		}
	}
	if divided < 50+len(four) {
		t.Errorf("%d models are divided: those that can be are more", divided)
	}
}

// FuzzBackends changes numbers of a valid plan. What is still valid makes no
// backend fail, and is the same to ref when values share memory.
func FuzzBackends(f *testing.F) {
	f.Add([]byte{9, 2, 0, 64, 3, 10, 2, 3})
	f.Add([]byte{3, 9, 2, 1, 9, 30, 1, 66})
	f.Fuzz(func(t *testing.T, changes []byte) {
		p := plan.Everything(t)
		plan.Mutate(p, changes)
		if plan.Check(p) != nil || plan.Check(plan.Lower(p)) != nil {
			return
		}
		elements := 0
		for _, x := range p.Tensors {
			n := 1
			for _, d := range x.Shape {
				n = min(n*d, 1<<30)
			}
			elements += n
		}
		for _, v := range p.Values {
			elements += int(v.Width)
		}
		for _, c := range p.Caches {
			elements += int(min(int64(c.Heads)*int64(c.KeyWidth)*int64(c.ValueWidth), 1<<30))
		}
		if elements > 1<<16 {
			return // right, and slow
		}
		want := run(t, open(t, "ref"), p)
		if got := run(t, open(t, "ref"), plan.Share(p)); !equal(got, want) {
			t.Errorf("shared: %v, the plan as built gives %v", got, want)
		}
		run(t, open(t, "ref"), plan.Share(plan.Lower(p)))
		run(t, open(t, "cpu"), plan.Share(plan.Lower(p)))
	})
}
