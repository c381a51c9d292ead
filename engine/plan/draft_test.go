package plan

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const draftShape = `{"vocab_size":128,"hidden_size":32,"intermediate_size":40,"num_hidden_layers":2,"num_attention_heads":4,` +
	`"num_key_value_heads":2,"head_dim":8,"max_position_embeddings":256,%s}`

var draftConfigs = map[string]string{
	"qwen3_5": `"model_type":"qwen3_5_text","linear_num_value_heads":4,"linear_num_key_heads":2,"linear_key_head_dim":8,"linear_value_head_dim":8,` +
		`"layer_types":["linear_attention","full_attention"]`,
	"deepseek_v3": `"model_type":"deepseek_v3","n_routed_experts":8,"num_experts_per_tok":2,"n_group":4,"topk_group":2,"first_k_dense_replace":1,` +
		`"moe_intermediate_size":16,"kv_lora_rank":24,"q_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8`,
	"glm4_moe": `"model_type":"glm4_moe","n_routed_experts":8,"num_experts_per_tok":2,"moe_intermediate_size":16,"use_qk_norm":true`,
}

func buildDraft(t *testing.T, config string, draft bool, has func(name string) bool) *Plan {
	t.Helper()
	c, err := ParseConfig([]byte(fmt.Sprintf(draftShape, config)), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Draft = draft
	p, err := Build(c, func(name string) ([]int, bool) { return nil, has(name) })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func anyName(string) bool { return true }

// A draft adds operations, and changes none of the others, lowered or not.
func TestDraft(t *testing.T) {
	for name, config := range draftConfigs {
		t.Run(name, func(t *testing.T) {
			plain, drafting := buildDraft(t, config, false, anyName), buildDraft(t, config, true, anyName)
			for _, what := range []struct {
				name string
				of   func(p *Plan) *Plan
			}{{"as built", func(p *Plan) *Plan { return p }}, {"shared", Share}, {"lowered", Lower}, {"lowered and shared", func(p *Plan) *Plan { return Share(Lower(p)) }}} {
				a, b := what.of(plain), what.of(drafting)
				if err := Check(b); err != nil {
					t.Fatalf("%s: %v", what.name, err)
				}
				if len(a.Draft) > 0 || len(b.Draft) == 0 || len(a.Ops) != len(b.Ops) {
					t.Fatalf("%s: %d operations and %d of the draft, %d and %d without", what.name, len(b.Ops), len(b.Draft), len(a.Ops), len(a.Draft))
				}
				for i := range a.Ops {
					if a.Ops[i].Kind != b.Ops[i].Kind || a.Ops[i].I != b.Ops[i].I || a.Ops[i].F != b.Ops[i].F {
						t.Errorf("%s: operation %d is %s, without a draft %s", what.name, i, b.line(&b.Ops[i]), a.line(&a.Ops[i]))
					}
				}
				if len(b.Caches) != len(a.Caches)+1 {
					t.Errorf("%s: %d caches, without a draft %d", what.name, len(b.Caches), len(a.Caches))
				}
			}
			none := func(name string) bool { return !strings.Contains(name, "mtp") && !strings.Contains(name, "eh_proj") }
			if without := buildDraft(t, config, true, none); !reflect.DeepEqual(without, buildDraft(t, config, false, none)) {
				t.Error("a checkpoint without the head has another plan if a draft is asked for")
			}
		})
	}
}

// A draft may keep no states, and reads nothing of the model but what its first operation
// does.
func TestCheckRefusesDrafts(t *testing.T) {
	fresh := func() *Plan { return buildDraft(t, draftConfigs["qwen3_5"], true, anyName) }
	find := func(p *Plan, kind Kind) *Op {
		for i := range p.Ops {
			if p.Ops[i].Kind == kind {
				return &p.Ops[i]
			}
		}
		t.Fatalf("no %v", kind)
		return nil
	}
	for _, tt := range []struct {
		want   string
		change func(p *Plan)
	}{
		{"keeps no states", func(p *Plan) { p.Draft[0] = *find(p, OpConv) }},
		{"is of the rows picked before the draft", func(p *Plan) {
			for i := range p.Draft {
				if p.Draft[i].Kind == OpRMSNorm {
					p.Draft[i].In[0] = p.Ops[len(p.Ops)-1].In[0]
					return
				}
			}
		}},
		{"is of the model, of which a draft reads its state alone", func(p *Plan) {
			for i := range p.Draft[1:] {
				if op := &p.Draft[1+i]; op.Kind == OpRMSNorm && op.In[0] == p.Draft[0].Out[0] {
					op.In[0] = p.Draft[0].In[0]
					return
				}
			}
		}},
		{"begins with an operation that makes one value", func(p *Plan) {
			for i := range p.Draft {
				if p.Draft[i].Kind == OpCacheWrite {
					p.Draft[0], p.Draft[i] = p.Draft[i], p.Draft[0]
					p.Draft[0].In[0], p.Draft[0].In[1] = find(p, OpCacheWrite).In[0], find(p, OpCacheWrite).In[1]
					return
				}
			}
		}},
		{"has no row per token", func(p *Plan) {
			for i := range p.Draft {
				if p.Draft[i].Kind == OpRows {
					p.Draft[0], p.Draft[i] = p.Draft[i], p.Draft[0]
					p.Draft[0].In[0] = find(p, OpRMSNorm).In[0]
					return
				}
			}
		}},
		{"the state is 31 wide, and what the logits are made of 32", func(p *Plan) {
			p.Values = append(p.Values, Value{Width: 31, Of: None}, Value{Width: 31, Of: find(p, OpRMSNorm).In[0]})
			p.Draft[0].Weight[0], p.Draft[0].I[NormGroup] = None, 31
			p.Draft[0].In[0], p.Draft[0].Out[0] = int32(len(p.Values)-1), int32(len(p.Values)-2)
		}},
		{"has memory of the rows picked before the draft", func(p *Plan) { p.Draft[0].Out[0] = p.Ops[len(p.Ops)-1].In[0] }},
		{"last operation", func(p *Plan) { p.Draft = p.Draft[:len(p.Draft)-1] }},
	} {
		p := fresh()
		tt.change(p)
		if err := Check(p); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}
