package plan

import (
	"fmt"
	"slices"
	"testing"
)

// TestGroups cuts the caches of real models.
func TestGroups(t *testing.T) {
	kv := func(n, heads, dim, window int) []Cache {
		return slices.Repeat([]Cache{{Kind: CacheKV, Heads: int32(heads), KeyWidth: int32(dim), ValueWidth: int32(dim), Window: int32(window)}}, n)
	}
	// gemma3 is layers of which every sixth sees everything.
	gemma3 := func(layers, heads int) (list []Cache) {
		for i := range layers {
			window := 512
			if i%6 == 5 {
				window = 0
			}
			list = append(list, kv(1, heads, 256, window)...)
		}
		return list
	}
	latent := slices.Repeat([]Cache{{Kind: CacheLatent, Heads: 1, KeyWidth: 576, ValueWidth: 512}}, 61)
	state := []Cache{{Kind: CacheState, Heads: 16, KeyWidth: 128, ValueWidth: 128}}

	for _, tt := range []struct {
		name   string
		caches []Cache
		want   string // caches of each group, those with a window marked
	}{
		{"llama 8b", kv(32, 8, 128, 0), "32"},
		{"mistral 7b", kv(32, 8, 128, 4096), "32w"},
		{"gemma 3 270m", gemma3(18, 1), "3w 3w 3w 3w 3w 3"},
		{"gemma 3 1b", gemma3(26, 1), "4w 4w 3w 4w 4w 3w 4"},
		{"gemma 3 4b", gemma3(34, 4), "5w 5w 5w 5w 5w 4w 5"},
		{"gpt-oss 20b", slices.Concat(kv(12, 8, 64, 128), kv(12, 8, 64, 0)), "12w 12"},
		{"deepseek v3", latent, "61"},
		{"qwen 3.5", slices.Concat(state, state, state, kv(1, 2, 256, 0), state, state, state, kv(1, 2, 256, 0)), "2"},
		{"heads of two widths", slices.Concat(kv(40, 8, 256, 1024), kv(8, 8, 512, 0)), "20w 20w 8"},
		{"a latent and keys", slices.Concat(latent[:2], kv(2, 1, 288, 0)), "2 2"},
		{"one of each", slices.Concat(kv(1, 8, 64, 128), kv(1, 8, 64, 0)), "1w 1"},
		{"none", state, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &Plan{Caches: slices.Clone(tt.caches)}
			assignGroups(p)
			sizes := make([]int, len(p.Groups))
			for i, c := range p.Caches {
				if c.Kind == CacheState {
					if c.Group != None {
						t.Errorf("state %d is in group %d", i, c.Group)
					}
					continue
				}
				if c.Window != p.Groups[c.Group].Window {
					t.Errorf("cache %d of window %d is in a group of window %d", i, c.Window, p.Groups[c.Group].Window)
				}
				sizes[c.Group]++
			}
			got := ""
			for g, n := range sizes {
				got += fmt.Sprint(n)
				if p.Groups[g].Window > 0 {
					got += "w"
				}
				if g < len(sizes)-1 {
					got += " "
				}
			}
			if got != tt.want {
				t.Errorf("groups %q, want %q", got, tt.want)
			}
		})
	}
}
