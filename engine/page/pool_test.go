package page

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// seq returns n distinct token ids from first on.
func seq(first, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(first + i)
	}
	return out
}

// take allocates n pages, fewer if there are no more.
func take(p *Pool, n int) []ID {
	var out []ID
	for range n {
		if id := p.Alloc(0); id != None {
			out = append(out, id)
		}
	}
	return out
}

// cache takes pages for keys, registers and releases them.
func cache(p *Pool, keys []Key) []ID {
	ids := take(p, len(keys))
	for i, id := range ids {
		p.Register(id, keys[i])
	}
	p.Release(ids)
	return ids
}

func TestPool(t *testing.T) {
	const total = 4
	a := Root().AppendKeys(nil, seq(0, 3*Tokens))
	b := Root().AppendKeys(nil, seq(1000, 2*Tokens))
	for _, tt := range []struct {
		name       string
		do         func(p *Pool)
		free       int
		cached     int
		hitA, hitB int // pages of a and b found
	}{
		{name: "untouched", do: func(p *Pool) {}, free: 4},
		{name: "all taken", do: func(p *Pool) { take(p, 4) }, free: 0},
		{name: "no more than there are", do: func(p *Pool) { take(p, 9) }, free: 0},
		{name: "given back", do: func(p *Pool) { p.Release(take(p, 3)) }, free: 4},
		{name: "given back and taken again", do: func(p *Pool) { p.Release(take(p, 3)); take(p, 4) }, free: 0},
		{name: "cached pages are free", do: func(p *Pool) { cache(p, a) }, free: 4, cached: 3, hitA: 3},
		{name: "used pages are found too", do: func(p *Pool) { p.Register(p.Alloc(0), a[0]) }, free: 3, cached: 1, hitA: 1},
		{name: "a hit needs its head", do: func(p *Pool) { cache(p, a[1:]) }, free: 4, cached: 2},
		{name: "empty pages are taken first", do: func(p *Pool) { cache(p, a); take(p, 1) }, free: 3, cached: 3, hitA: 3},
		{name: "then the tail of a chain", do: func(p *Pool) { cache(p, a); take(p, 2) }, free: 2, cached: 2, hitA: 2},
		{name: "and its head last", do: func(p *Pool) { cache(p, a); take(p, 3) }, free: 1, cached: 1, hitA: 1},
		{name: "older chains before younger", do: func(p *Pool) { cache(p, a[:2]); cache(p, b); take(p, 2) }, free: 2, cached: 2, hitB: 2},
		{name: "use makes young", do: func(p *Pool) {
			hit := cache(p, a[:2])
			cache(p, b)
			for _, id := range hit {
				p.Share(id)
			}
			p.Release(hit)
			take(p, 2)
		}, free: 2, cached: 2, hitA: 2},
		{name: "shared until the last lets go", do: func(p *Pool) {
			ids := take(p, 2)
			p.Share(ids[0])
			p.Release(ids)
		}, free: 3},
		{name: "the same content is cached once", do: func(p *Pool) { p.Register(p.Alloc(0), a[0]); p.Register(p.Alloc(0), a[0]) }, free: 2, cached: 1, hitA: 1},
		{name: "a page is registered once", do: func(p *Pool) {
			id := p.Alloc(0)
			p.Register(id, a[0])
			p.Register(id, b[0])
		}, free: 3, cached: 1, hitA: 1},
		{name: "forgotten while used", do: func(p *Pool) {
			id := p.Alloc(0)
			p.Register(id, a[0])
			p.Forget(id)
			p.Release([]ID{id})
		}, free: 4},
		{name: "forgotten while free", do: func(p *Pool) { p.Forget(cache(p, a)[1]) }, free: 4, cached: 2, hitA: 1},
		{name: "nothing to forget", do: func(p *Pool) { cache(p, a); p.Forget(p.Find(b[0])) }, free: 4, cached: 3, hitA: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New(total)
			tt.do(p)
			hitA, hitB := len(p.appendPrefix(nil, a, 0)), len(p.appendPrefix(nil, b, 0))
			if p.Free() != tt.free || p.Cached() != tt.cached || hitA != tt.hitA || hitB != tt.hitB {
				t.Errorf("free %d, cached %d, hits %d and %d; want %d, %d, %d and %d",
					p.Free(), p.Cached(), hitA, hitB, tt.free, tt.cached, tt.hitA, tt.hitB)
			}
			if err := p.Check(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWritable(t *testing.T) {
	p := New(2)
	id := p.Alloc(0)
	if !p.Writable(id) {
		t.Error("a page of one's own is not writable")
	}
	p.Share(id)
	if p.Writable(id) {
		t.Error("a shared page is writable")
	}
	p.Release([]ID{id})
	p.Register(id, Root())
	if p.Writable(id) {
		t.Error("a cached page is writable")
	}
}

func TestReleaseTwice(t *testing.T) {
	p := New(1)
	ids := take(p, 1)
	p.Release(ids)
	defer func() {
		if recover() == nil {
			t.Error("releasing a page twice went unnoticed")
		}
	}()
	p.Release(ids)
}

// TestRandom compares a pool under random use with plain bookkeeping.
func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := New(1 + rng.IntN(12))
		chains := [][]Key{}
		for i := range 4 {
			chains = append(chains, Root().AppendKeys(nil, seq(i*1000, 5*Tokens)))
		}
		uses := make([]int32, p.Total())
		content := make([]Key, p.Total()) // of the last use that registered
		var held [][]ID
		for range 200 {
			switch keys := chains[rng.IntN(len(chains))]; rng.IntN(3) {
			case 0: // a sequence comes: hits, then pages of its own
				ids := p.appendPrefix(nil, keys, 0)
				for i, id := range ids {
					if content[id] != keys[i] {
						t.Fatalf("seed %d: page %d found for a key it was not registered under", seed, id)
					}
					p.Share(id)
				}
				for i := len(ids); i < len(keys) && p.Free() > 0; i++ {
					id := p.Alloc(0)
					ids = append(ids, id)
					if rng.IntN(4) > 0 && p.Register(id, keys[i]) {
						content[id] = keys[i]
					}
				}
				for _, id := range ids {
					uses[id]++
				}
				held = append(held, ids)
			case 1: // one leaves
				if len(held) > 0 {
					i := rng.IntN(len(held))
					for _, id := range held[i] {
						uses[id]--
					}
					p.Release(held[i])
					held = slices.Delete(held, i, i+1)
				}
			case 2:
				p.Forget(ID(rng.IntN(p.Total())))
			}
			if err := p.Check(uses); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

func TestCheckFinds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		corrupt func(p *Pool)
	}{
		{"a lost page", func(p *Pool) { p.unlink(1) }},
		{"a wrong free count", func(p *Pool) { p.free++ }},
		{"a used page on the free list", func(p *Pool) { p.refs[1] = 1 }},
		{"a key the index lacks", func(p *Pool) { p.has[1] = true; p.cached++ }},
		{"a wrong cached count", func(p *Pool) { p.cached++ }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := New(3)
			cache(p, Root().AppendKeys(nil, seq(0, Tokens)))
			if err := p.Check(nil); err != nil {
				t.Fatal(err)
			}
			tt.corrupt(p)
			if p.Check(nil) == nil {
				t.Error("not found")
			}
		})
	}
}

// TestNoAllocation keeps a pool busy with registering and evicting.
func TestNoAllocation(t *testing.T) {
	p := New(64)
	keys := Root().AppendKeys(nil, seq(0, 1000*Tokens)) // a multiple of 8
	ids := make([]ID, 0, 8)
	next := 0
	got := testing.AllocsPerRun(1000, func() {
		ids = ids[:0]
		for range 8 {
			id := p.Alloc(0)
			p.Register(id, keys[next%len(keys)])
			ids = append(ids, id)
			next++
		}
		p.Release(ids)
		ids = p.appendPrefix(ids[:0], keys[next%len(keys):next%len(keys)+8], 0)
	})
	if got != 0 {
		t.Errorf("%g allocations per turn", got)
	}
}

func BenchmarkNext(b *testing.B) {
	tokens := seq(0, Tokens)
	var k Key
	for b.Loop() {
		k = k.Next(tokens)
	}
}
