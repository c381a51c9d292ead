package loader

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// absent are settings of the checkpoints that GGUF cannot express, and what llama.cpp
// takes instead.
var absent = map[string]string{
	"bloom":          `{"seq_length": 40}`,
	"bloom-hub-v4":   `{"seq_length": 48}`,
	"deepseek-v2":    `{"rope_parameters": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 1024, "rope_theta": 1000.0, "rope_type": "yarn"}}`,
	"deepseek-v3":    `{"rope_parameters": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 1024, "rope_theta": 1000.0, "rope_type": "yarn"}}`,
	"dots1":          `{"sliding_window": null, "layer_types": null}`,
	"deepseek-v32":   `{"rope_parameters": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 1024, "rope_theta": 1000.0, "rope_type": "yarn"}}`,
	"falcon-h1":      falconH1Factors,
	"falcon-new":     `{"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}`,
	"gemma2-v4":      `{"query_pre_attn_scalar": 16}`,
	"gemma3":         `{"layer_types": null, "query_pre_attn_scalar": 16}`,
	"glm-v4":         `{"rms_norm_eps": 1e-5, "max_position_embeddings": 40}`,
	"gpt-oss":        `{"swiglu_limit": 7}`,
	"granite-swa":    `{"layer_rope_theta": null}`,
	"hunyuan-hub-v4": `{"rope_scaling": null}`,
	"llama4":         `{"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}`,
	"nemotron":       `{"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 10000.0, "rope_type": "default"}}`,
	"nemotron-h":     `{"max_position_embeddings": 1048576}`,
	"olmoe":          `{"clip_qkv": null}`,
	"phimoe-longrope-v4": `{"rope_scaling": {"long_factor": [1.2, 2.0, 4.5, 9.0], "long_mscale": 1.1338934, "original_max_position_embeddings": 128,
		"short_factor": [1.0, 1.1, 1.3, 1.8], "short_mscale": 1.1338934, "type": "longrope"}}`,
	"qwen2-window":   `{"use_sliding_window": false, "layer_types": null}`,
	"smollm3":        `{"no_rope_layers": null, "no_rope_layer_interval": 4}`,
	"mistral-window": `{"sliding_window": null}`,

	"granitemoehybrid":          `{"max_position_embeddings": 1048576}`,
	"granitemoehybrid-dense-v4": `{"max_position_embeddings": 1048576, "position_embedding_type": null}`,
	"nemotron-h-latent-v4":      `{"max_position_embeddings": 1048576}`,

	"bamba-v4":           `{"time_step_limit": null}`,
	"bitnet":             `{"hidden_act": "silu", "tie_word_embeddings": true}`,
	"falcon-mamba-v4":    `{"mixer_rms_eps": 1e-6}`,
	"kimi-linear-hub-v4": `{"moe_renormalize": true, "num_expert_group": 1}`,
	"kimi-k2":            `{"rope_parameters": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 1024, "rope_theta": 1000.0, "rope_type": "yarn"}}`,
	"lfm2-moe":           `{"routed_scaling_factor": 1, "tie_word_embeddings": true}`,
	"ministral3":         `{"rope_parameters": {"factor": 4.0, "llama_4_scaling_beta": 0.4, "mscale": 1, "mscale_all_dim": 1, "original_max_position_embeddings": 32, "rope_theta": 10000.0, "rope_type": "yarn"}}`,
	"mistral4":           `{"rope_parameters": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 16, "partial_rotary_factor": 0.25, "rope_theta": 1000.0, "rope_type": "yarn"}}`,
	"qwen2-vl":           `{"model_type": "qwen2"}`,
	"qwen2_5-vl":         `{"model_type": "qwen2"}`,
	"qwen3-vl":           `{"model_type": "qwen3"}`,
}

// falconH1Factors are those that are in the weights already.
const falconH1Factors = `{"mlp_multipliers": [1, 1], "ssm_multipliers": [1, 1, 1, 1, 1], "attention_in_multiplier": 1, "attention_out_multiplier": 1,
	"embedding_multiplier": 1, "key_multiplier": 1, "lm_head_multiplier": 1, "ssm_in_multiplier": 1, "ssm_out_multiplier": 1}`

// TestGGUF compares what llama.cpp's converter makes of the checkpoints that the
// goldens are of with these: the plan, and each number that a backend is given.
func TestGGUF(t *testing.T) {
	files, err := filepath.Glob("testdata/gguf/*.gguf") // testdata/gguf.py writes them
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range weights.ModelFiles(files) {
		name := strings.TrimSuffix(filepath.Base(file), ".gguf")
		t.Run(name, func(t *testing.T) {
			name, how, _ := strings.Cut(name, "+")
			drafts := how == "mtp"
			got, gotPlan := loadAll(t, file, drafts)
			most := 0x1p-8 // the files are BF16
			if how == "q8_0" {
				most = 0x1p-6
			}
			dir := "../testdata/" + name
			if drafts {
				dir, _ = weightstest.WithDraft(t, "../testdata", name)
				if _, p := loadAll(t, file, false); len(p.Draft) > 0 {
					t.Error("a draft that was not asked for")
				}
			}
			want, wantPlan := loadAll(t, withSettings(t, dir, absent[name]), drafts)
			if drafts == (len(gotPlan.Draft) == 0) {
				t.Fatalf("%d operations of a draft", len(gotPlan.Draft))
			}
			gotText, wantText := gotPlan.String(), wantPlan.String()
			gotPlan.Family, wantPlan.Family = "", "" // llama and mistral are one
			gotTables, wantTables := gotPlan.Tables, wantPlan.Tables
			gotPlan.Tables, wantPlan.Tables = nil, nil
			gotShapes, wantShapes := got.shapes, want.shapes
			for _, p := range []*plan.Plan{gotPlan, wantPlan} {
				p.Tensors, p.Prefix, p.Spare = nil, "", nil
			}
			if !reflect.DeepEqual(gotPlan, wantPlan) || !reflect.DeepEqual(gotShapes, wantShapes) {
				t.Fatalf("the plan is\n%s\nwant\n%s", gotText, wantText)
			}
			for i, table := range gotTables {
				compare(t, "table", table, wantTables[i], 1e-5)
			}
			for i, name := range got.names {
				for _, written := range got.written[i] {
					if !written {
						t.Fatalf("%s: a row is missing", name)
					}
				}
				if how == "q8_0" && strings.Contains(name, ".self_attn.") && strings.HasSuffix(name, "_proj.weight") && got.formats[i] != plan.W8.Grouped(32) {
					t.Errorf("%s is %v, want it as it is stored", name, got.formats[i])
				}
				compare(t, name, got.floats(i), want.floats(i), most)
			}
		})
	}
}

// floats are the elements of tensor i.
func (r *weightSink) floats(i int) []float32 {
	cols := r.shapes[i][len(r.shapes[i])-1]
	rowBytes := r.formats[i].RowBytes(cols)
	list := make([]float32, len(r.data[i])/rowBytes*cols)
	for row := range len(list) / cols {
		quant.Decode(list[row*cols:][:cols], r.data[i][row*rowBytes:][:rowBytes], r.formats[i])
	}
	return list
}

// compare allows most of an element, and of the largest where they share scales.
func compare(t *testing.T, name string, got, want []float32, most float64) {
	t.Helper()
	largest := 0.0
	for _, v := range want {
		if most > 0x1p-8 {
			largest = max(largest, math.Abs(float64(v)))
		}
	}
	for i, v := range got {
		if off := math.Abs(float64(v - want[i])); !(off <= most*math.Abs(float64(want[i]))+max(1e-6, most*largest/2)) {
			t.Errorf("%s: element %d is %v, want %v", name, i, v, want[i])
			return
		}
	}
}

// loadAll loads a checkpoint into a backend that takes all formats, with its head for
// drafts if it is asked for.
func loadAll(t *testing.T, place string, drafts bool) (*weightSink, *plan.Plan) {
	t.Helper()
	c, err := weights.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, p, err := Plan(c, drafts)
	if err != nil {
		t.Fatalf("%v of\n%s", err, c.Config())
	}
	sink := &weightSink{kinds: allKinds}
	if _, err := Load(sink, p, c, nil); err != nil {
		t.Fatal(err)
	}
	return sink, p
}

// withSettings returns a checkpoint's folder, or a copy with other settings.
func withSettings(t *testing.T, dir, settings string) string {
	t.Helper()
	if settings == "" {
		return dir
	}
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = data
	}
	// As newer versions of transformers write it, which is JSON.
	files["config.json"] = bytes.ReplaceAll(files["config.json"], []byte(" Infinity"), []byte(` {"__float__": "Infinity"}`))
	config := map[string]any{}
	for _, text := range [][]byte{files["config.json"], []byte(settings)} {
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
	}
	if config["tie_word_embeddings"] == true { // a head of its own would win
		files["model.safetensors"] = bytes.Replace(files["model.safetensors"], []byte(`"lm_head.weight"`), []byte(`"mtp.not.weight"`), 1)
	}
	if part, ok := config["text_config"].(map[string]any); ok { // alone: the file has no tower
		part["model_type"], part["tie_word_embeddings"] = config["model_type"], config["tie_word_embeddings"]
		if rope, ok := part["rope_parameters"].(map[string]any); ok {
			delete(rope, "mrope_section")
			delete(rope, "mrope_interleaved")
		}
		config = part
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	files["config.json"] = text
	return weightstest.Folder(t, files)
}
