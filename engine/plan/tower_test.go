package plan

import (
	"strings"
	"testing"
)

// TestTowerRefusals: what a tower cannot be made of is named.
func TestTowerRefusals(t *testing.T) {
	for _, tt := range []struct{ family, vision, text, want string }{
		{"gemma4", `{}`, `{}`, ""},
		{"gemma4", `{"num_key_value_heads":5}`, `{}`, "vision_config.num_key_value_heads 5 must divide num_attention_heads 12"},
		{"gemma4", `{"head_dim":6}`, `{}`, "vision_config.hidden_size has heads of 6, expected a multiple of 4"},
		{"gemma4", `{"rope_parameters":{"rope_type":"yarn"}}`, `{}`, `rope_type "yarn" is not supported in a vision tower`},
		{"gemma4", `{"num_channels":1}`, `{}`, "vision_config.num_channels"},
		{"gemma4", `{}`, `{"pad_token_id":3}`, "text_config.pad_token_id is not supported beside hidden_size_per_layer_input"},
		{"gemma4", `{}`, `{"pad_token_id":3,"hidden_size_per_layer_input":0}`, ""},
		{"qwen3_vl_moe", `{"out_hidden_size":2048}`, `{}`, ""},
		{"qwen3_vl_moe", `{"out_hidden_size":2048,"deepstack_visual_indexes":[3,3]}`, `{}`, "deepstack_visual_indexes [3 3]: expected layers of"},
		{"qwen3_vl_moe", `{"deepstack_visual_indexes":[1,2,3,4,5]}`, `{"num_hidden_layers":4}`, "deepstack_visual_indexes has 5 entries for 4 layers"},
		{"qwen3_vl_moe", `{"deepstack_visual_indexes":[40]}`, `{}`, "deepstack_visual_indexes [40]: expected layers of"},
	} {
		config := []byte(`{"model_type":"` + tt.family + `","vision_config":` + tt.vision + `,"text_config":` + tt.text + `}`)
		c, err := ParseConfig(config, nil)
		var tower *Tower
		if err == nil {
			tower, err = BuildTower(config, c, without())
		}
		if err == nil {
			err = Check(tower.Plan)
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s %s: %v, want %q", tt.family, tt.vision, tt.text, err, tt.want)
		}
	}
}
