package plan

import (
	"fmt"
	"testing"
)

// share is the part of the elements of matrices that a shard has, and of what a position
// takes in the caches.
func share(p, shard *Plan) (matrices, caches float64) {
	size := func(p *Plan) (n, kept float64) {
		for _, t := range p.Tensors {
			if len(t.Shape) > 1 {
				n += float64(elements(t.Shape))
			}
		}
		for _, c := range p.Caches {
			kept += float64(c.Elements())
		}
		return n, kept
	}
	whole, kept := size(p)
	n, k := size(shard)
	return n / whole, k / kept
}

// lowered is the lowered plan of an example.
func lowered(t *testing.T, name string) *Plan {
	t.Helper()
	for _, e := range examples {
		if e.name == name {
			return Lower(mustBuild(t, mustParse(t, small(e.family, e.more)), e.names))
		}
	}
	t.Fatalf("no example %s", name)
	return nil
}

// TestShardShare: how much of a model a shard has.
func TestShardShare(t *testing.T) {
	const all = 1
	for _, tt := range []struct {
		name             string
		n                int
		matrices, caches float64 // at most
	}{
		{"llama", 2, 0.501, 0.501},
		{"llama", 4, 0.29, 0.501}, // fewer heads of keys and values than shards
		{"gpt_neox", 4, 0.26, 0.251},
		{"bloom", 3, 0.34, 0.334},
		{"qwen3_moe", 4, 0.26, 0.501},
		{"deepseek_v3", 4, 0.26, all}, // every shard has the latents
		{"gemma2", 2, 0.501, 0.501},
		{"olmo3", 2, 0.6, 0.501},     // norms of all queries and of all keys, which every shard computes
		{"qwen3_next", 2, 0.52, all}, // and recurrent layers
	} {
		t.Run(fmt.Sprint(tt.name, " ", tt.n), func(t *testing.T) {
			p := lowered(t, tt.name)
			for i := range tt.n {
				shard, cuts, err := Shard(p, tt.n, i)
				if err != nil {
					t.Fatal(err)
				}
				if len(cuts) != len(p.Tensors) || len(shard.Tensors) != len(p.Tensors) {
					t.Errorf("%d cuts and %d tensors of %d", len(cuts), len(shard.Tensors), len(p.Tensors))
				}
				if matrices, caches := share(p, shard); matrices > tt.matrices || caches > tt.caches {
					t.Errorf("shard %d has %.3f of the matrices and %.3f of the caches, expected at most %.3f and %.3f", i, matrices, caches, tt.matrices, tt.caches)
				}
			}
		})
	}
}

// TestShardRefuses: what cannot be divided is said, and what can.
func TestShardRefuses(t *testing.T) {
	llama := lowered(t, "llama")
	for _, tt := range []struct {
		p    *Plan
		n    int
		want string
	}{
		{llama, 3, "4 attention heads, 2 of keys and values, cannot be divided into 3 shards: 2 or 4 shards would do"},
		{llama, 1, "a model in 1 shards, expected 2 to 8"},
		{llama, 9, "a model in 9 shards, expected 2 to 8"},
		{encoder(t), 2, "an encoder runs on one device"},
	} {
		if _, _, err := Shard(tt.p, tt.n, 0); err == nil || err.Error() != tt.want {
			t.Errorf("%d shards: %v, want %q", tt.n, err, tt.want)
		}
	}
}
