package loader

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// weightSink keeps what a loader gives it. Its other methods are not called.
type weightSink struct {
	device.Backend
	lowered bool
	kinds   uint32
	adopts  bool     // as the CPU backend does
	adopted []string // tensors
	names   []string
	formats []plan.Format
	shapes  [][]int
	data    [][]byte
	written [][]bool // by row
	writes  int
	largest int
	plan    *plan.Plan
	refuse  error // of CheckPlan
	fail    error // of WriteTensor
}

func (r *weightSink) Caps() device.Caps {
	c := device.Caps{Lowered: r.lowered, Formats: r.kinds}
	if r.adopts {
		c.Layout, c.Adopted = plan.Panels, allKinds
	}
	return c
}

func (r *weightSink) HostAlloc(bytes int) ([]byte, error) { return make([]byte, bytes), nil }

// AdoptTensor keeps rows, and releases the memory at once.
func (r *weightSink) AdoptTensor(h device.Handle, packed []byte, release func()) error {
	shape, f := r.shapes[h], r.formats[h]
	if slices.Contains(r.written[h], true) || !r.adopts || len(packed) != f.PackedBytes(shape) {
		return fmt.Errorf("%d bytes packed for %s", len(packed), r.names[h])
	}
	last := len(shape) - 1
	matrix := shape[last-1:]
	for m := range len(packed) / f.PackedBytes(matrix) {
		quant.Unpack(r.data[h][m*matrix[0]*f.RowBytes(matrix[1]):], packed[m*f.PackedBytes(matrix):], matrix[0], matrix[1], f)
	}
	for i := range r.written[h] {
		r.written[h][i] = true
	}
	r.adopted = append(r.adopted, r.names[h])
	if release != nil {
		release()
	}
	return r.fail
}

func (r *weightSink) CheckPlan(*plan.Plan) error { return r.refuse }

func (r *weightSink) NewTensor(name string, format plan.Format, shape []int) (device.Handle, error) {
	last := len(shape) - 1
	rows := 1
	for _, n := range shape[:last] {
		rows *= n
	}
	size := rows * format.RowBytes(shape[last])
	r.names = append(r.names, name)
	r.formats = append(r.formats, format)
	r.shapes = append(r.shapes, shape)
	r.data = append(r.data, make([]byte, size))
	r.written = append(r.written, make([]bool, rows))
	return device.Handle(len(r.names) - 1), nil
}

func (r *weightSink) WriteTensor(h device.Handle, first, n int, src []byte) error {
	rowBytes := len(r.data[h]) / len(r.written[h])
	if len(src) != n*rowBytes {
		return fmt.Errorf("%d rows in %d bytes", n, len(src))
	}
	copy(r.data[h][first*rowBytes:], src)
	for row := first; row < first+n; row++ {
		if r.written[h][row] {
			return fmt.Errorf("row %d written twice", row)
		}
		r.written[h][row] = true
	}
	r.writes++
	r.largest = max(r.largest, len(src))
	return r.fail
}

func (r *weightSink) SetModel(p *plan.Plan) (device.ModelInfo, error) {
	r.plan = p
	return device.ModelInfo{WeightBytes: 1}, nil
}

const tinyConfig = `{"model_type":"phi3","vocab_size":24,"hidden_size":16,"intermediate_size":24,"num_hidden_layers":1,` +
	`"num_attention_heads":2,"num_key_value_heads":1,"max_position_embeddings":64,"tie_word_embeddings":false}`

// tinyTensors are the tensors of tinyConfig, by name, with bytes that all
// differ from their neighbours'.
func tinyTensors() map[string]weightstest.Tensor {
	tensors := map[string]weightstest.Tensor{}
	for i, t := range []struct {
		name, dtype string
		shape       []int
	}{
		{"model.embed_tokens.weight", "BF16", []int{24, 16}},
		{"model.layers.0.input_layernorm.weight", "F32", []int{16}},
		{"model.layers.0.self_attn.qkv_proj.weight", "F16", []int{32, 16}},
		{"model.layers.0.self_attn.o_proj.weight", "BF16", []int{16, 16}},
		{"model.layers.0.post_attention_layernorm.weight", "F32", []int{16}},
		{"model.layers.0.mlp.gate_up_proj.weight", "BF16", []int{48, 16}},
		{"model.layers.0.mlp.down_proj.weight", "F32", []int{16, 24}},
		{"model.norm.weight", "BF16", []int{16}},
		{"lm_head.weight", "BF16", []int{24, 16}},
	} {
		size := rowEncodings[t.dtype].format.Size()
		for _, n := range t.shape {
			size *= n
		}
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(i*31 + j*7)
		}
		tensors[t.name] = weightstest.Tensor{Name: t.name, DType: t.dtype, Shape: t.shape, Data: data}
	}
	return tensors
}

func openTensors(t *testing.T, config string, tensors map[string]weightstest.Tensor) *weights.Checkpoint {
	t.Helper()
	var list []weightstest.Tensor
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		list = append(list, tensors[name])
	}
	c, err := weights.Open(weightstest.Folder(t, map[string][]byte{
		"config.json":       []byte(config),
		"model.safetensors": weightstest.File(list...),
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLoad(t *testing.T) {
	tensors := tinyTensors()
	c := openTensors(t, tinyConfig, tensors)
	_, p, err := Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	r := &weightSink{}
	var done, total int64
	info, err := Load(r, p, c, func(d, n int64) {
		if d <= done || d > n {
			t.Errorf("progress %d of %d after %d", d, n, done)
		}
		done, total = d, n
	})
	if err != nil {
		t.Fatal(err)
	}
	if info.WeightBytes != 1 || r.plan == nil {
		t.Errorf("the plan was not handed over, info %+v", info)
	}
	sum, resident := int64(0), int64(0)
	for i, want := range p.Tensors {
		part := want.Parts[0]
		source := tensors[part.Name]
		rowBytes := len(source.Data) / source.Shape[0]
		data := source.Data[part.Rows.First*rowBytes:][:part.Rows.N*rowBytes]
		if !bytes.Equal(r.data[i], data) || r.formats[i].String() != source.DType || !slices.Equal(r.shapes[i], want.Shape) {
			t.Errorf("tensor %d, %v: %v %v, or other bytes", i, want, r.formats[i], r.shapes[i])
		}
		if slices.Contains(r.written[i], false) {
			t.Errorf("tensor %d, %v: rows not written", i, want)
		}
		sum += int64(len(data))
		resident += int64(len(r.data[i]))
	}
	if done != sum || total != sum {
		t.Errorf("progress ended at %d of %d, want %d", done, total, sum)
	}
	if n, err := WeightBytes(p, c); err != nil || n != resident {
		t.Errorf("WeightBytes = %d, %v; want %d", n, err, resident)
	}
}

// TestLoadLowered: a backend that wants the lowered plan is given its tensors.
func TestLoadLowered(t *testing.T) {
	c := openTensors(t, tinyConfig, tinyTensors())
	_, p, err := Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	r := &weightSink{lowered: true}
	if _, err := Load(r, p, c, nil); err != nil {
		t.Fatal(err)
	}
	if len(r.plan.Ops) >= len(p.Ops) || len(r.plan.Tensors) != len(r.names) {
		t.Errorf("%d operations and %d tensors of %d and %d", len(r.plan.Ops), len(r.names), len(p.Ops), len(p.Tensors))
	}
}

// planOf is a valid plan with these tensors beside its embedding "e" [1 1].
func planOf(tensors ...plan.Tensor) *plan.Plan {
	whole := plan.Range{First: 0, Step: 1, N: 1}
	embedding := plan.Tensor{Name: "e", Shape: []int{1, 1}, Parts: []plan.Part{{Name: "e", Shape: []int{1, 1}, Rows: whole, Cols: whole}}}
	embed, rows, logits := plan.NewOp(plan.OpEmbed), plan.NewOp(plan.OpRows), plan.NewOp(plan.OpLogits)
	embed.Out[0], embed.Weight[0] = 0, 0
	rows.In[0], rows.Out[0] = 0, 1
	logits.In[0], logits.Weight[0] = 1, 0
	return &plan.Plan{
		Vocab: 1, Hidden: 1, MaxPos: 1,
		Values:  []plan.Value{{Width: 1, Of: plan.None}, {Width: 1, Of: plan.None}},
		Tensors: append([]plan.Tensor{embedding}, tensors...),
		Ops:     []plan.Op{embed, rows, logits},
	}
}

// embeddingOf is what the checkpoint of planOf has beside.
var embeddingOf = weightstest.Tensor{Name: "e", DType: "F32", Shape: []int{1, 1}, Data: make([]byte, 4)}

// TestLoadInPieces: a large tensor is never handed over at once.
func TestLoadInPieces(t *testing.T) {
	const rows = 2*loadPiece/32 + 1
	p := planOf(plan.Tensor{Name: "w", Shape: []int{rows, 8}, Parts: []plan.Part{
		{Name: "w", Shape: []int{rows, 8}, Rows: plan.Range{First: 0, Step: 1, N: rows}, Cols: plan.Range{First: 0, Step: 1, N: 8}},
	}})
	data := make([]byte, rows*32)
	for i := range data {
		data[i] = byte(i >> 9)
	}
	c := openTensors(t, `{}`, map[string]weightstest.Tensor{
		"e": embeddingOf, "w": {Name: "w", DType: "F32", Shape: []int{rows, 8}, Data: data},
	})
	r := &weightSink{}
	if _, err := Load(r, p, c, nil); err != nil {
		t.Fatal(err)
	}
	if r.writes != 1+3 || r.largest > loadPiece || !bytes.Equal(r.data[1], data) {
		t.Errorf("%d writes, the largest %d bytes; want 4 of at most %d and the same bytes", r.writes, r.largest, loadPiece)
	}
}

func TestLoadRefusals(t *testing.T) {
	const qkv = "model.layers.0.self_attn.qkv_proj.weight"
	change := func(name string, f func(*weightstest.Tensor)) func(map[string]weightstest.Tensor) {
		return func(m map[string]weightstest.Tensor) {
			x := m[name]
			x.Name = name
			f(&x)
			m[name] = x
		}
	}
	add := func(name string) func(map[string]weightstest.Tensor) {
		return change(name, func(x *weightstest.Tensor) {
			x.DType, x.Shape, x.Data = "F32", []int{1}, make([]byte, 4)
		})
	}
	for _, tt := range []struct {
		name   string
		change func(map[string]weightstest.Tensor)
		want   []string
	}{
		{"missing", func(m map[string]weightstest.Tensor) { delete(m, qkv) },
			[]string{"model.safetensors", qkv, "missing", "[32 16]"}},
		{"no output head", func(m map[string]weightstest.Tensor) { delete(m, "lm_head.weight") },
			[]string{"model.safetensors", "lm_head.weight", "missing", "tie_word_embeddings false", "[24 16]"}},
		{"wrong shape", change(qkv, func(x *weightstest.Tensor) { x.Shape = []int{16, 32} }),
			[]string{"model.safetensors", qkv, "[32 16]", "[16 32]"}},
		{"wrong rank", change("model.norm.weight", func(x *weightstest.Tensor) { x.Shape = []int{16, 1} }),
			[]string{"model.norm.weight", "[16]", "[16 1]"}},
		{"a type that is not computed with", change(qkv, func(x *weightstest.Tensor) { x.DType = "I16" }),
			[]string{"model.safetensors", qkv, "F32, F16 or BF16", "I16"}},
		{"a bias that the config does not mention", add("model.layers.0.self_attn.o_proj.bias"),
			[]string{"model.safetensors", "model.layers.0.self_attn.o_proj.bias", "expected none"}},
		{"a tensor of the decoder beside its layers", add("model.embed_scale.weight"),
			[]string{"model.safetensors", "model.embed_scale.weight", "expected none"}},
		{"one more layer than the config says", add("model.layers.1.input_layernorm.weight"),
			[]string{"model.layers.1.input_layernorm.weight", "expected none", "phi3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tensors := tinyTensors()
			tt.change(tensors)
			c := openTensors(t, tinyConfig, tensors)
			r := &weightSink{}
			_, p, err := Plan(c, false)
			if err == nil {
				_, err = Load(r, p, c, nil)
			}
			if err == nil {
				t.Fatalf("loaded, want an error with %q", tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if len(r.names) > 0 {
				t.Errorf("%d tensors were created before the refusal", len(r.names))
			}
		})
	}
}

func TestLoadIgnores(t *testing.T) {
	tensors := tinyTensors()
	for _, name := range []string{
		"model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.layers.0.weight", "model.visual.patch.weight", "mtp.layers.0.weight",
	} {
		tensors[name] = weightstest.Tensor{Name: name, DType: "I32", Shape: []int{1}, Data: make([]byte, 4)}
	}
	c := openTensors(t, tinyConfig, tensors)
	_, p, err := Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(&weightSink{}, p, c, nil); err != nil {
		t.Error(err)
	}
}

// TestLoadRefusedPlan: what the backend cannot run is refused before a tensor.
func TestLoadRefusedPlan(t *testing.T) {
	c := openTensors(t, tinyConfig, tinyTensors())
	_, p, err := Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	r := &weightSink{refuse: errors.New("no attention here")}
	if _, err = Load(r, p, c, nil); !errors.Is(err, r.refuse) || len(r.names) > 0 {
		t.Errorf("%v after %d tensors, want an error that wraps %v and none", err, len(r.names), r.refuse)
	}
}

func TestLoadBackendError(t *testing.T) {
	c := openTensors(t, tinyConfig, tinyTensors())
	_, p, err := Plan(c, false)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("no memory")
	_, err = Load(&weightSink{fail: full}, p, c, nil)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "model.embed_tokens.weight") {
		t.Errorf("error %v, want one that names the tensor and wraps %v", err, full)
	}
}

// TestPlanStoredTwice: a head that repeats the embedding is not loaded again,
// one that differs is used, whatever tie_word_embeddings says.
func TestPlanStoredTwice(t *testing.T) {
	tied := strings.Replace(tinyConfig, `"tie_word_embeddings":false`, `"tie_word_embeddings":true`, 1)
	last := func(tensors map[string]weightstest.Tensor) string {
		_, p, err := Plan(openTensors(t, tied, tensors), false)
		if err != nil {
			t.Fatal(err)
		}
		return p.Tensors[p.Ops[len(p.Ops)-1].Weight[0]].Name
	}
	tensors := tinyTensors()
	if got := last(tensors); got != "lm_head.weight" {
		t.Errorf("a head of its own: logits come from %q", got)
	}
	head := tensors["lm_head.weight"]
	head.Data = tensors["model.embed_tokens.weight"].Data
	tensors["lm_head.weight"] = head
	if got := last(tensors); got != "model.embed_tokens.weight" {
		t.Errorf("a copy: logits come from %q", got)
	}
}

// TestLoadSeeing: a model and its tower get the same bytes from a folder and from a store
// that streams pieces in another order, and so does the row that ends a line of tiles.
func TestLoadSeeing(t *testing.T) {
	for _, name := range []string{"gemma3-images", "gemma4-clipped", "llava-next", "qwen3-vl-moe"} {
		dir := filepath.Join("..", "testdata", name)
		folder, err := weights.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { folder.Close() })
		load := func(c *weights.Checkpoint) (text, sees weightSink, s Seeing) {
			cfg, p, err := Plan(c, true)
			if err != nil {
				t.Fatal(err)
			}
			tower, err := Tower(c, cfg)
			if err != nil {
				t.Fatal(err)
			}
			text, sees = weightSink{lowered: true, kinds: allKinds}, weightSink{kinds: allKinds}
			last := int64(0)
			s, err = LoadSeeing(&text, p, &sees, tower, c, func(done, total int64) {
				if last = done; done > total {
					t.Errorf("%s: %d bytes of %d", name, done, total)
				}
			})
			if err != nil || last == 0 {
				t.Fatalf("%s: %v, %d bytes", name, err, last)
			}
			if (s.Newline != nil) != (tower.Newline != "") {
				t.Errorf("%s: newline %v of %q", name, s.Newline, tower.Newline)
			}
			return text, sees, s
		}
		text, sees, want := load(folder)
		gotText, gotSees, got := load(streamed(t, dir))
		for i, pair := range [][2]weightSink{{text, gotText}, {sees, gotSees}} {
			if want, got := pair[0], pair[1]; len(want.data) == 0 || !reflect.DeepEqual(want.data, got.data) || !slices.Equal(want.names, got.names) {
				t.Errorf("%s: backend %d gets other tensors from a stream", name, i)
			}
		}
		if !slices.Equal(want.Newline, got.Newline) {
			t.Errorf("%s: the newline is %v from a stream, want %v", name, got.Newline, want.Newline)
		}
	}
}
