package loader

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// methodsTested are the checkpoints of testdata/quantized.py, and the formats that
// their projections are resident in.
var methodsTested = map[string]string{
	"awq":            "W4/16+min",
	"gptq":           "W4/16",
	"gptq-act-order": "W8/32",
	"gptq-8-v2":      "W8/16+min",
	"fp8-block":      "F8/32",
	"fp8-modelopt":   "F8/row",
	"ct-pack":        "W4/16+min",
	"ct-pack-8":      "W8/row",
	"ct-int":         "W8/row",
	"ct-float":       "F8/row",
	"ct-nvfp4":       "W4/16 e2m1",
	"nvfp4-modelopt": "W4/16 e2m1",
	"bnb-nf4":        "W4/64 nf4",
	"bnb-nf4-double": "W4/64 nf4",
	"bnb-int8":       "W8/row",
}

// readTensors returns config.json and the tensors of a checkpoint in testdata.
func readTensors(t testing.TB, name string) (config string, tensors map[string]weightstest.Tensor) {
	t.Helper()
	dir := filepath.Join("..", "testdata", "llama-"+name)
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := weights.Tensors("model.safetensors", data)
	if err != nil {
		t.Fatal(err)
	}
	tensors = map[string]weightstest.Tensor{}
	for _, x := range list {
		tensors[x.Name] = weightstest.Tensor{Name: x.Name, DType: x.DType, Shape: x.Shape, Data: slices.Clone(data[x.Offset:][:x.Size])}
	}
	return string(text), tensors
}

// loadInto plans checkpoint c and gives it to r.
func loadInto(r *weightSink, c *weights.Checkpoint, quantize plan.Quantize) error {
	_, p, err := Plan(c, false)
	if err == nil {
		p.Quantize = quantize
		_, err = Load(r, p, c, nil)
	}
	return err
}

// elements are those of tensor i.
func (r *weightSink) elements(i int) [][]float32 {
	rows, rowBytes := len(r.written[i]), len(r.data[i])/len(r.written[i])
	list := make([][]float32, rows)
	for row := range list {
		list[row] = make([]float32, r.shapes[i][len(r.shapes[i])-1])
		quant.Decode(list[row], r.data[i][row*rowBytes:][:rowBytes], r.formats[i])
	}
	return list
}

// compare compares the elements of two backends' tensors: they may differ by a share
// of the greatest magnitude of a row.
func (r *weightSink) compare(t *testing.T, floats *weightSink, tolerance float64) {
	t.Helper()
	worst := 0.0
	for i, name := range r.names {
		if slices.Contains(r.written[i], false) {
			t.Fatalf("tensor %s: rows are missing", name)
		}
		want := floats.elements(i)
		for row, got := range r.elements(i) {
			most := 0.0
			for _, v := range want[row] {
				most = max(most, math.Abs(float64(v)))
			}
			for col, v := range got {
				d := math.Abs(float64(v-want[row][col])) / most
				if worst = max(worst, d); !(d <= tolerance) {
					t.Fatalf("tensor %s, %v, row %d, column %d: %v, want %v", name, r.formats[i], row, col, v, want[row][col])
				}
			}
		}
	}
	t.Logf("largest difference: %.2g of the greatest of a row", worst)
}

// TestMethods: tensors that stay in few bits are those that backends get which take
// floats alone. That these are right, goldens tell.
func TestMethods(t *testing.T) {
	for name, format := range methodsTested {
		t.Run(name, func(t *testing.T) {
			config, tensors := readTensors(t, name)
			for _, lowered := range []bool{false, true} {
				floats, few := &weightSink{lowered: lowered}, &weightSink{lowered: lowered, kinds: allKinds}
				if err := loadInto(floats, openTensors(t, config, tensors), plan.QuantizeNone); err != nil {
					t.Fatal(err)
				}
				c := openTensors(t, config, tensors)
				if err := loadInto(few, c, plan.QuantizeNone); err != nil {
					t.Fatal(err)
				}
				i := slices.Index(few.names, "model.layers.0.self_attn.o_proj.weight")
				if got := few.formats[i].String(); got != format {
					t.Errorf("o_proj is resident as %s, want %s", got, format)
				}
				few.compare(t, floats, 0.008)
			}
		})
	}
}

// TestInt8Format: narrow models have smaller groups.
func TestInt8Format(t *testing.T) {
	for hidden, want := range map[int]string{64: "W8/32", 640: "W8/32", 768: "W8/64", 4096: "W8/64"} {
		if got := int8Format(&plan.Plan{Hidden: hidden}).String(); got != want {
			t.Errorf("%d: %s, want %s", hidden, got, want)
		}
	}
}

// TestQuantize: every format that can be asked for, of floats and of what is stored
// in few bits.
func TestQuantize(t *testing.T) {
	for _, tt := range []struct {
		name        string
		quantize    plan.Quantize
		table, o, k string // formats of the embedding, and of projections of 64 and 32 rows
		tolerance   float64
	}{
		{"fp8-block", plan.QuantizeInt8, "W8/32", "W8/32", "F8/32", 0.008},
		{"fp8-block", plan.QuantizeInt4, "W8/32", "W4/32 iq4nl", "F8/32", 0.2},
		{"ct-pack", plan.QuantizeInt8, "W8/32", "W4/16+min", "W4/16+min", 0.008},
		{"ct-int", plan.QuantizeInt4, "W8/32", "W4/32 iq4nl", "W8/row", 0.2},
	} {
		config, tensors := readTensors(t, tt.name)
		floats, few := &weightSink{}, &weightSink{kinds: allKinds}
		if err := loadInto(floats, openTensors(t, config, tensors), plan.QuantizeNone); err != nil {
			t.Fatal(err)
		}
		c := openTensors(t, config, tensors)
		if err := loadInto(few, c, tt.quantize); err != nil {
			t.Fatal(err)
		}
		format := func(name string) string { return few.formats[slices.Index(few.names, name)].String() }
		const layer = "model.layers.0.self_attn."
		if table, o, k := format("model.embed_tokens.weight"), format(layer+"o_proj.weight"), format(layer+"k_proj.weight"); table != tt.table || o != tt.o || k != tt.k {
			t.Errorf("%s: %s, %s, %s, want %s, %s, %s", tt.name, table, o, k, tt.table, tt.o, tt.k)
		}
		few.compare(t, floats, tt.tolerance)
		_, p, err := Plan(c, false)
		if err != nil {
			t.Fatal(err)
		}
		p.Quantize = tt.quantize
		sum := 0
		for _, data := range few.data {
			sum += len(data)
		}
		if n, err := WeightBytes(p, c); err != nil || n != int64(sum) {
			t.Errorf("%s: WeightBytes = %d, %v; want %d", tt.name, n, err, sum)
		}
	}
}

// TestMethodsRefuse: what does not fit is refused in a line that names the tensor.
func TestMethodsRefuse(t *testing.T) {
	const q = "model.layers.1.self_attn.q_proj"
	drop := func(suffix string) func(map[string]weightstest.Tensor) {
		return func(m map[string]weightstest.Tensor) { delete(m, q+suffix) }
	}
	put := func(suffix string, bytes ...byte) func(map[string]weightstest.Tensor) {
		return func(m map[string]weightstest.Tensor) { copy(m[q+suffix].Data, bytes) }
	}
	reshape := func(suffix string, shape ...int) func(map[string]weightstest.Tensor) {
		return func(m map[string]weightstest.Tensor) {
			x := m[q+suffix]
			x.Shape = shape
			m[q+suffix] = x
		}
	}
	nan32 := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(math.NaN())))
	for _, tt := range []struct {
		name   string
		change func(map[string]weightstest.Tensor)
		want   string
	}{
		{"awq", drop(".qzeros"), q + `.qzeros" is missing`},
		{"awq", drop(".scales"), q + `.scales" is missing`},
		{"awq", put(".scales", 0, 0x7e), q + `.scales": scale 0 is NaN`},
		{"awq", reshape(".qweight", 8, 64), q + `.qweight": config.json needs shape [64 8], found [8 64]`},
		{"gptq", put(".g_idx", 4, 0, 0, 0), q + `.g_idx": column 0 is in group 4 of 4`},
		{"gptq", put(".g_idx", 0, 0, 0, 0x80), q + `.g_idx": column 0 is in group -2147483648 of 4`},
		{"gptq", put(".qzeros", 0x33), q + `.qzeros": zero points differ from 8, though config.json says sym true`},
		{"gptq", put(".bias", 0, 0x3c), q + `.bias": a bias that the model has no use for`},
		{"gptq-act-order", drop(".scales"), q + `.scales" is missing`},
		{"fp8-block", drop(".weight_scale_inv"), q + `.weight_scale" is missing`},
		{"fp8-block", put(".weight_scale_inv", nan32...), q + `.weight_scale_inv": scale 0 is NaN`},
		{"fp8-block", reshape(".weight_scale_inv", 4), q + `.weight_scale_inv": config.json needs shape [2 2], found [4]`},
		{"ct-pack", reshape(".weight_packed", 16, 32), q + `.weight_packed": config.json needs shape [64 8], found [16 32]`},
		{"ct-int", put(".weight_scale", 0x80, 0x7f), q + `.weight_scale": scale 0 is +Inf`},
		{"ct-nvfp4", put(".weight_scale", 0x7f), q + `.weight_scale": scale 0 is NaN`},
		{"ct-nvfp4", put(".weight_global_scale", 0, 0, 0, 0), q + `.weight_global_scale": the scale of all is 0`},
		{"nvfp4-modelopt", drop(".weight_scale_2"), q + `.weight_scale_2" is missing`},
		{"bnb-nf4", reshape(".weight.absmax", 8, 8), q + `.weight": absmax [8 8] are of no block size`},
		{"bnb-nf4", drop(".weight.quant_map"), q + `.weight.quant_map" is missing`},
		{"bnb-nf4-double", put(".weight.quant_state.bitsandbytes__nf4", '['), q + `.weight.quant_state.bitsandbytes__nf4": nested_offset or nested_blocksize`},
		{"bnb-int8", drop(".SCB"), q + `.SCB" is missing`},
	} {
		config, tensors := readTensors(t, tt.name)
		tt.change(tensors)
		err := loadInto(&weightSink{kinds: allKinds}, openTensors(t, config, tensors), plan.QuantizeNone)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzMethods: whatever the bytes of a checkpoint's tensors are, it is loaded or
// refused.
func FuzzMethods(f *testing.F) {
	for name := range methodsTested {
		f.Add(name, uint16(3), uint16(40), byte(0xff))
	}
	f.Fuzz(func(t *testing.T, name string, tensor, at uint16, b byte) {
		if methodsTested[name] == "" {
			t.Skip()
		}
		config, tensors := readTensors(t, name)
		names := slices.Sorted(func(yield func(string) bool) {
			for n := range tensors {
				if !yield(n) {
					return
				}
			}
		})
		x := tensors[names[int(tensor)%len(names)]]
		for i := range 16 {
			x.Data[(int(at)+i)%len(x.Data)] = b
		}
		if err := loadInto(&weightSink{kinds: allKinds}, openTensors(t, config, tensors), plan.QuantizeNone); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want a line", err)
		}
	})
}
