package main

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/config"
)

func TestSizing(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		name      string
		cfg       config.Serve
		maxPos    int   // 1000 unless given
		pageBytes int64 // 1 MiB unless given
		free      int64 // 64 GiB unless given
		bound     string
		want      budget
		wantErr   string
	}{
		{name: "nothing set: the model's length, a cache for all slots", want: budget{63 * 64, 1000, 999}},
		{name: "few clients need a small cache", cfg: config.Serve{MaxConcurrentRequests: 2}, want: budget{63 * 2, 1000, 999}},
		{name: "long model: usual lengths, not longest ones", maxPos: 1 << 17, want: budget{8192, 1 << 17, 1<<17 - 1}},
		{name: "memory bounds the length", maxPos: 1 << 17, free: 2 * gib, want: budget{1024, 16384, 16383}},
		{name: "a container's memory is its own", maxPos: 1 << 17, free: 2 * gib, bound: boundGroup, want: budget{1843, 29488, 29487}},
		{name: "little memory keeps the headroom", free: 130 << 20, bound: boundGroup, want: budget{2, 32, 31}},
		{name: "pages of no size", maxPos: 1 << 17, pageBytes: -1, free: 1, want: budget{8192, 1 << 17, 1<<17 - 1}},
		{name: "given length", cfg: config.Serve{MaxTotalTokens: 100}, want: budget{7 * 64, 100, 99}},
		{name: "given prompt length", cfg: config.Serve{MaxInputTokens: 100}, want: budget{63 * 64, 1000, 100}},
		{name: "given cache", cfg: config.Serve{MaxBatchTotalTokens: 160}, want: budget{10, 160, 159}},
		{name: "given cache that is no whole number of pages", cfg: config.Serve{MaxBatchTotalTokens: 161}, want: budget{11, 176, 175}},

		{name: "longer than the model", cfg: config.Serve{MaxTotalTokens: 1001}, wantErr: "Given: 1001 and 1000"},
		{name: "prompt as long as the model", cfg: config.Serve{MaxInputTokens: 1000}, wantErr: "`max_input_tokens` must be < `max_total_tokens`. Given: 1000 and 1000"},
		{name: "longer than the cache", cfg: config.Serve{MaxTotalTokens: 500, MaxBatchTotalTokens: 400}, wantErr: "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 500 and 400"},
		{name: "step larger than the cache", cfg: config.Serve{MaxBatchPrefillTokens: 500, MaxBatchTotalTokens: 400}, wantErr: "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 500 and 400"},
		{name: "cache larger than memory", cfg: config.Serve{MaxBatchTotalTokens: 16 * 2000}, free: gib, wantErr: "`max_batch_total_tokens=32000`: it takes 2.0 GiB beside 128 MiB for requests on their way, the machine has 1.0 GiB left"},
		{name: "length larger than memory", cfg: config.Serve{MaxTotalTokens: 1000}, free: 150 << 20, wantErr: "`max_total_tokens=1000`: it takes 63 MiB beside 128 MiB for requests on their way, the machine has 150 MiB left"},
		{name: "prompt larger than memory", cfg: config.Serve{MaxInputTokens: 900}, free: 150 << 20, wantErr: "Given: 900 and 352 (what the memory allows)"},
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
			s, err := newSizing(&cfg, orDefault(tt.maxPos, 1000))
			var got budget
			if err == nil {
				got, err = s.fit(pageBytes, tt.free, tt.bound)
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
