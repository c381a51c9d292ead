package engine

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// newReplicas returns n replicas of testModel that do not run yet.
func newReplicas(t testing.TB, n int, backend sim.Config) *Replicas {
	t.Helper()
	backend.Model = testModel
	var engines []*Engine
	for range n {
		cfg := simConfig(backend)
		cfg.Pages = 40
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		engines = append(engines, e)
	}
	return NewReplicas(engines)
}

// runReplicas runs r until the test ends, or until it fails.
func runReplicas(t testing.TB, r *Replicas) (failed <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := r.Drain(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return result
}

// open returns how many sequences each replica has.
func (r *Replicas) open() (n []int) {
	for _, e := range r.engines {
		n = append(n, int(e.account.open.Load()))
	}
	return n
}

// Requests go to the replica with the fewest, unless another has enough of the prompt.
func TestReplicasChoose(t *testing.T) {
	r := newReplicas(t, 2, sim.Config{})
	var all []*Stream
	submit := func(req *Request, seeds int) {
		t.Helper()
		streams, err := r.SubmitN(t.Context(), req, make([]uint64, seeds))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, streams...)
	}
	shared := tokens(1, 80) // is worth one sequence, and not two
	begun := func(seed uint64) *Request {
		return &Request{Tokens: slices.Concat(shared, tokens(seed, 8)), MaxNewTokens: 4, Params: sample.Greedy()}
	}
	for _, step := range []struct {
		name  string
		req   *Request
		seeds int
		want  []int
	}{
		{"the first", begun(10), 1, []int{1, 0}},
		{"one that begins alike", begun(11), 1, []int{2, 0}},
		{"one for which the other has too few", begun(12), 1, []int{2, 1}},
		{"one that both have", begun(13), 1, []int{2, 2}},
		{"one that none has", greedy(14, 20, 4), 1, []int{3, 2}},
		{"two, for which there are slots on one", greedy(15, 20, 4), 2, []int{3, 4}},
		{"one for which there is a slot on one", begun(16), 1, []int{4, 4}},
		{"one without a slot", greedy(17, 20, 4), 1, []int{4, 5}},
	} {
		submit(step.req, step.seeds)
		if got := r.open(); !reflect.DeepEqual(got, step.want) {
			t.Fatalf("%s: the replicas have %v sequences, want %v", step.name, got, step.want)
		}
	}
	if _, err := r.SubmitN(t.Context(), &Request{}, []uint64{1}); kind(err) != Invalid {
		t.Errorf("a request without tokens: %v, want it refused as invalid", err)
	}
	for _, s := range all {
		s.Close()
	}
}

// Replicas answer as one engine does, whichever a request goes to, and their numbers add up.
func TestReplicasAnswer(t *testing.T) {
	r := newReplicas(t, 3, sim.Config{})
	ended := runReplicas(t, r)
	a := testModel.Adapter(7)
	id, err := r.LoadAdapter(a)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var generated atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			for k := range 10 {
				req, adapter := greedy(uint64(i%5), 1+7*k, 12), (*device.Adapter)(nil)
				if k%2 == 1 {
					req.Adapter, adapter = id, a
				}
				streams, err := r.SubmitN(t.Context(), req, []uint64{0})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := drainStream(t, streams[0])
				if err != nil {
					t.Error(err)
				}
				streams[0].Close()
				generated.Add(int64(len(got)))
				want := testModel.ContinueUnder(req.Tokens, req.Params, sim.Conditions{Adapter: adapter}, 0, req.MaxNewTokens, true)
				for j := range min(len(got), len(want)) {
					if got[j].ID != want[j].Token || len(got) != len(want) {
						t.Errorf("%d tokens, want %d; token %d is %d, want %d", len(got), len(want), j, got[j].ID, want[j].Token)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := r.DropAdapter(id); err != nil {
		t.Error(err)
	}
	sum, used := r.Stats(), 0
	for _, s := range r.Each() {
		if s.GeneratedTokens > 0 {
			used++
		}
	}
	if sum.GeneratedTokens != generated.Load() || used != 3 || sum.Slots != 12 || r.Limits() != r.engines[2].Limits() {
		t.Errorf("%d replicas have generated %d tokens in %d slots, want 3, %d and 12", used, sum.GeneratedTokens, sum.Slots, generated.Load())
	}
	if err := r.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if open := r.open(); !reflect.DeepEqual(open, []int{0, 0, 0}) {
		t.Errorf("the replicas still have %v sequences", open)
	}
}

// A replica that is lost ends Run and its own requests; the others finish theirs, and take
// what comes until they are drained.
func TestReplicaLost(t *testing.T) {
	var lose atomic.Bool
	r := newReplicas(t, 2, sim.Config{})
	faulty := simConfig(sim.Config{Model: testModel, Fault: func(int) sim.Fault {
		if lose.Load() {
			return sim.Lose
		}
		return sim.NoFault
	}})
	faulty.Pages = 40
	e, err := New(faulty)
	if err != nil {
		t.Fatal(err)
	}
	r = NewReplicas([]*Engine{r.engines[0], e})
	submit := func() *Stream {
		t.Helper()
		streams, err := r.SubmitN(t.Context(), greedy(1, 20, 30), []uint64{0})
		if err != nil {
			t.Fatal(err)
		}
		return streams[0]
	}
	fine, lost := submit(), submit() // the prompt is worth less than a sequence
	lose.Store(true)
	failed := runReplicas(t, r)
	if err := <-failed; !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "replica 1 of 2") {
		t.Errorf("Run: %v, want that replica 1 of 2 is lost", err)
	}
	if _, err := drainStream(t, lost); kind(err) != Failed {
		t.Errorf("the request of the lost replica: %v, want it failed", err)
	}
	for _, s := range []*Stream{fine, submit(), submit()} {
		if got, err := drainStream(t, s); err != nil || len(got) == 0 {
			t.Errorf("a request of the other: %d tokens, %v", len(got), err)
		}
	}
}

// An adapter that one replica cannot load is on none, and the next one has one number on all.
func TestReplicasRefuseAnAdapter(t *testing.T) {
	r := newReplicas(t, 2, sim.Config{})
	refusing := &refusesAdapter{Backend: r.engines[1].backend}
	r.engines[1].backend = refusing
	runReplicas(t, r)
	refusing.once.Store(true)
	if _, err := r.LoadAdapter(testModel.Adapter(1)); !errors.Is(err, errRefused) {
		t.Errorf("LoadAdapter: %v, want the error of replica 1", err)
	}
	if r.engines[0].adapters.has(1) {
		t.Error("replica 0 has kept an adapter that replica 1 has refused")
	}
	id, err := r.LoadAdapter(testModel.Adapter(2))
	if err != nil || !r.engines[0].adapters.has(id) || !r.engines[1].adapters.has(id) {
		t.Errorf("the next adapter is %d, %v; want it on both", id, err)
	}
}

// refusesAdapter is a backend that refuses an adapter once.
type refusesAdapter struct {
	device.Backend
	once atomic.Bool
}

var errRefused = errors.New("no memory")

// LoadAdapter implements device.Backend.
func (b *refusesAdapter) LoadAdapter(id int32, a *device.Adapter) error {
	if b.once.Swap(false) {
		return errRefused
	}
	return b.Backend.LoadAdapter(id, a)
}

// Sums have every number.
func TestStatsAdd(t *testing.T) {
	var one Stats
	one.Groups = make([]CacheStats, 2)
	var fill func(v reflect.Value, by int64)
	fill = func(v reflect.Value, by int64) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).Name != "Window" {
					fill(v.Field(i), by)
				}
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				fill(v.Index(i), by)
			}
		default:
			v.SetInt(by)
		}
	}
	fill(reflect.ValueOf(&one).Elem(), 1)
	var two Stats
	two.Groups = make([]CacheStats, 2)
	fill(reflect.ValueOf(&two).Elem(), 2)
	sum := one
	sum.Groups = slices.Clone(one.Groups)
	if sum.add(&one); !reflect.DeepEqual(sum, two) {
		t.Errorf("one and one are %+v", sum)
	}
}
