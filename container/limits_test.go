package main

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

func TestSizing(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		name      string
		cfg       config.Serve
		maxPos    int          // 1000 unless given
		pageBytes int64        // 1 MiB unless given
		state     int64        // bytes of a state
		groups    []plan.Group // one without a window unless given
		free      int64        // 64 GiB unless given
		bound     string
		want      budget
		wantErr   string
	}{
		{name: "nothing set: the model's length, a cache for all slots", want: budget{pages: 63 * 64, maxTotal: 1000, maxInput: 999}},
		{name: "few clients need a small cache", cfg: config.Serve{MaxConcurrentRequests: 2}, want: budget{pages: 63 * 2, maxTotal: 1000, maxInput: 999}},
		{name: "long model: usual lengths, not longest ones", maxPos: 1 << 17, want: budget{pages: 8192, maxTotal: 1 << 17, maxInput: 1<<17 - 1}},
		{name: "memory bounds the length", maxPos: 1 << 17, free: 2 * gib, want: budget{pages: 1024, maxTotal: 16384, maxInput: 16383}},
		{name: "a container's memory is its own", maxPos: 1 << 17, free: 2 * gib, bound: boundGroup, want: budget{pages: 1456, maxTotal: 23296, maxInput: 23295}},
		{name: "little memory keeps the headroom", free: 130 << 20, bound: boundGroup, want: budget{pages: 1, maxTotal: 16, maxInput: 15}},
		{name: "pages of no size", maxPos: 1 << 17, pageBytes: -1, free: 1, want: budget{pages: 8192, maxTotal: 1 << 17, maxInput: 1<<17 - 1}},
		{name: "given length", cfg: config.Serve{MaxTotalTokens: 100}, want: budget{pages: 7 * 64, maxTotal: 100, maxInput: 99}},
		{name: "given prompt length", cfg: config.Serve{MaxInputTokens: 100}, want: budget{pages: 63 * 64, maxTotal: 1000, maxInput: 100}},
		{name: "given cache", cfg: config.Serve{MaxBatchTotalTokens: 160}, want: budget{pages: 10, maxTotal: 160, maxInput: 159}},
		{name: "given cache that is not a whole number of pages", cfg: config.Serve{MaxBatchTotalTokens: 161}, want: budget{pages: 11, maxTotal: 176, maxInput: 175}},
		{name: "windows hold few pages", maxPos: 1 << 15, groups: []plan.Group{{}, {Window: 512}, {Window: 512}, {Window: 512}},
			want: budget{pages: 64 * (128 + 3*33), maxTotal: 1 << 15, maxInput: 1<<15 - 1}},
		{name: "windows let a request be longer", maxPos: 1 << 17, free: 2 * gib, groups: []plan.Group{{}, {Window: 512}},
			want: budget{pages: 1024, maxTotal: 16 * (1024 - 33), maxInput: 16*(1024-33) - 1}},
		{name: "states beside pages", state: 1 << 20, want: budget{pages: 63 * 64, states: 3 * 64, maxTotal: 1000, maxInput: 999}},
		{name: "states take half of little memory", state: 10 << 20, free: 1255 << 20, bound: boundGroup,
			want: budget{pages: 431, states: 43, maxTotal: 1000, maxInput: 999}},
		{name: "states alone", pageBytes: -1, state: 1 << 20, groups: []plan.Group{}, maxPos: 1 << 17, want: budget{states: 3 * 64, maxTotal: 1 << 17, maxInput: 1<<17 - 1}},
		{name: "no state fits", state: gib, free: gib, wantErr: "one state of the model's recurrent layers: it takes 1.0 GiB"},

		{name: "longer than the model", cfg: config.Serve{MaxTotalTokens: 1001}, wantErr: "Given: 1001 and 1000"},
		{name: "prompt as long as the model", cfg: config.Serve{MaxInputTokens: 1000}, wantErr: "`max_input_tokens` must be < `max_total_tokens`. Given: 1000 and 1000"},
		{name: "longer than the cache", cfg: config.Serve{MaxTotalTokens: 500, MaxBatchTotalTokens: 400}, wantErr: "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 500 and 400"},
		{name: "step larger than the cache", cfg: config.Serve{MaxBatchPrefillTokens: 500, MaxBatchTotalTokens: 400}, wantErr: "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 500 and 400"},
		{name: "cache larger than memory", cfg: config.Serve{MaxBatchTotalTokens: 16 * 2000}, free: gib, wantErr: "`max_batch_total_tokens=32000`: it takes 2.0 GiB beside 336 MiB for requests on their way, the machine has 1.0 GiB left"},
		{name: "length larger than memory", cfg: config.Serve{MaxTotalTokens: 1000}, free: 150 << 20, wantErr: "`max_total_tokens=1000`: it takes 63 MiB beside 130 MiB for requests on their way, the machine has 150 MiB left"},
		{name: "prompt larger than memory", cfg: config.Serve{MaxInputTokens: 900}, free: 150 << 20, wantErr: "Given: 900 and 304 (what the memory allows)"},
		{name: "a GPU's memory is all for the cache", maxPos: 1 << 17, free: 2 * gib, bound: boundGPU, want: budget{pages: 2048 - 256, maxTotal: 16 * 1792, maxInput: 16*1792 - 1}},
		{name: "a GPU with room for all", free: 64 * gib, bound: boundGPU, want: budget{pages: 63 * 64, maxTotal: 1000, maxInput: 999}},
		{name: "too little of a GPU", cfg: config.Serve{MaxTotalTokens: 1000}, free: 300 << 20, bound: boundGPU,
			wantErr: "`max_total_tokens=1000`: it takes 63 MiB beside 256 MiB that are kept free, the GPU has 300 MiB left; a cache of 704 tokens fits, a larger one with --quantize int8 or --kv-cache-dtype int8"},
		{name: "no memory", free: 1, wantErr: "one page of the key-value cache: it takes 1 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.cfg
			cfg.MaxConcurrentRequests = orDefault(cfg.MaxConcurrentRequests, 128)
			if tt.bound == "" {
				tt.bound = boundMachine
			}
			if tt.free == 0 {
				tt.free = 64 * gib
			}
			pageBytes := max(0, tt.pageBytes)
			if tt.pageBytes == 0 {
				pageBytes = 1 << 20
			}
			if tt.groups == nil {
				tt.groups = []plan.Group{{}}
			}
			s, err := newSizing(&cfg, &plan.Plan{MaxPos: orDefault(tt.maxPos, 1000), Groups: tt.groups})
			var got budget
			if err == nil {
				got, err = s.fit(device.ModelInfo{PageBytes: pageBytes, StateBytes: tt.state}, tt.free, tt.bound)
			}
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %+v, err %v; want %q in it", got, err, tt.wantErr)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, err %v; want %+v", got, err, tt.want)
			}
		})
	}
}
