package engine_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/device/backendtest"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sim"
)

func TestIdenticalSim(t *testing.T) {
	for _, tt := range []struct {
		name        string
		model       sim.Model
		synchronous bool
	}{
		{name: "all positions"},
		{name: "a step at a time", synchronous: true},
		{name: "windows", model: sim.Model{Windows: []int{0, 30}}},
		{name: "states", model: sim.Model{Windows: []int{}, Recurrent: true}, synchronous: true},
		{name: "states and windows", model: sim.Model{Windows: []int{0, 30}, Recurrent: true}},
		{name: "rotations", model: sim.Model{RopeOriginal: 70, RopeDynamic: true}},
	} {
		tt.model.Vocab = 300
		t.Run(tt.name, func(t *testing.T) {
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, *plan.Plan) {
				return sim.New(l, sim.Config{Model: tt.model, Synchronous: tt.synchronous}).Checked(), tt.model.Plan()
			}, enginetest.Options{})
		})
	}
}

func TestIdenticalCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("runs some thousand steps of two models")
	}
	for _, tt := range []struct {
		name  string
		cache plan.Format
	}{{"llama-tied-bf16", plan.F16}, {"llama-tied-bf16", plan.CacheW8}, {"gemma2-v4", plan.F16}} {
		t.Run(fmt.Sprintf("%s/%v", tt.name, tt.cache), func(t *testing.T) {
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, *plan.Plan) {
				l.Threads = 2
				b, err := cpu.Open(l)
				if err != nil {
					t.Fatal(err)
				}
				_, p := loadWithCache(t, filepath.Join("testdata", tt.name), b, tt.cache)
				return b, p
			}, enginetest.Options{})
		})
	}
}

// TestIdenticalFamilies: each kind of layer that a model may have, with adapters in
// the mix.
func TestIdenticalFamilies(t *testing.T) {
	if testing.Short() {
		t.Skip("runs some thousand steps of each of many models")
	}
	for _, tt := range []struct {
		name, config string
		change       func(p *plan.Plan)
		codes        bool // in the caches, instead of F16
	}{
		{name: "experts", config: `"model_type":"qwen3_moe","num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":16,"mlp_only_layers":[1]`},
		{name: "experts, sinks, windows", config: `"model_type":"gpt_oss","num_local_experts":4,"sliding_window":19`, codes: true},
		{name: "latents", codes: true, config: `"model_type":"deepseek_v3","n_routed_experts":8,"num_experts_per_tok":2,"n_group":4,"topk_group":2,"first_k_dense_replace":1,` +
			`"moe_intermediate_size":16,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8`},
		{name: "mamba 1", config: `"model_type":"falcon_mamba","state_size":9,"intermediate_size":48,"time_step_rank":5,"num_attention_heads":null,"num_key_value_heads":null,"head_dim":null`},
		{name: "mamba 2", config: `"model_type":"mamba2","num_attention_heads":8,"num_key_value_heads":null,"n_groups":2,"state_size":8`},
		{name: "mamba 1 beside attention", config: `"model_type":"jamba","num_experts":4,"num_experts_per_tok":2,"expert_layer_period":2,"expert_layer_offset":1,` +
			`"attn_layer_period":2,"attn_layer_offset":1,"mamba_d_state":9,"mamba_d_conv":4,"mamba_expand":2,"mamba_dt_rank":5,"head_dim":null`},
		{name: "gated delta beside attention", config: `"model_type":"qwen3_5_text","linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":8,` +
			`"layer_types":["linear_attention","full_attention"]`},
		{name: "Kimi delta beside latents", config: `"model_type":"kimi_linear","linear_attn_config":{"full_attn_layers":[2],"kda_layers":[1],"head_dim":8,"num_heads":4,"short_conv_kernel_size":4},` +
			`"num_experts":4,"num_experts_per_token":2,"moe_intermediate_size":16,"first_k_dense_replace":1,"num_shared_experts":1,` +
			`"kv_lora_rank":24,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8,"mla_use_nope":true`},
		{name: "chunks", config: `"model_type":"gemma3_text","sliding_window":21,"sliding_window_pattern":2`, change: func(p *plan.Plan) {
			for i := range p.Ops {
				if op := &p.Ops[i]; op.Kind == plan.OpAttention && op.I[plan.AttnWindow] > 0 {
					op.I[plan.AttnChunk], op.I[plan.AttnWindow] = op.I[plan.AttnWindow], 0
				}
			}
		}},
		{name: "caches of other layers", config: `"model_type":"llama"`, change: func(p *plan.Plan) {
			for i := range p.Ops {
				if op := &p.Ops[i]; op.Kind == plan.OpAttention {
					op.I[plan.AttnCache] = 0
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config, err := plan.ParseConfig([]byte(`{"vocab_size":128,"hidden_size":32,"intermediate_size":40,"num_hidden_layers":2,"num_attention_heads":4,`+
				`"num_key_value_heads":2,"head_dim":8,"max_position_embeddings":256,`+tt.config+`}`), nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.Build(config, func(string) ([]int, bool) { return nil, true })
			if err != nil {
				t.Fatal(err)
			}
			if p = plan.Share(plan.Lower(p)); tt.change != nil {
				tt.change(p)
			}
			cache := plan.F16
			if tt.codes {
				cache = plan.CacheW8
			}
			p.SetCacheFormat(cache)
			enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, *plan.Plan) {
				l.Threads = 2
				b, err := cpu.Open(l)
				if err != nil {
					t.Fatal(err)
				}
				loadRandom(t, b, p)
				for id := range int32(3) {
					if err := b.LoadAdapter(id+1, backendtest.LowRank(p, uint64(id), 2+3*int(id))); err != nil {
						t.Fatal(err)
					}
				}
				return b, p
			}, enginetest.Options{Adapters: 3, Kinds: []string{"scored prompt", "sampled"}})
		})
	}
}

// loadRandom gives b a plan with random weights, the same each time.
func loadRandom(t testing.TB, b device.Backend, p *plan.Plan) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 3))
	for _, x := range p.Tensors {
		h, err := b.NewTensor(x.Name, plan.BF16, x.Shape)
		if err != nil {
			t.Fatal(err)
		}
		rows, cols := 1, x.Shape[len(x.Shape)-1]
		for _, n := range x.Shape[:len(x.Shape)-1] {
			rows *= n
		}
		var data []byte
		for range rows * cols {
			v := rng.NormFloat64() / math.Sqrt(float64(cols))
			if len(x.Shape) == 1 {
				v = 0.5 + 0.3*rng.NormFloat64()
			}
			data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(float32(v))>>16))
		}
		if err := b.WriteTensor(h, 0, rows, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.SetModel(p); err != nil {
		t.Fatal(err)
	}
}
