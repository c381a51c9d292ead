package gguf

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

// writer writes GGUF.
type writer struct{ bytes.Buffer }

func (w *writer) number(v any)    { _ = binary.Write(w, binary.LittleEndian, v) } //nolint:errcheck // memory
func (w *writer) string(s string) { w.number(uint64(len(s))); w.WriteString(s) }
func (w *writer) value(key string, kind uint32, v any) {
	w.string(key)
	w.number(kind)
	if s, ok := v.(string); ok {
		w.string(s)
		return
	}
	w.number(v)
}

// header begins a file with so many tensors and values.
func header(tensors, values uint64) *writer {
	w := &writer{}
	w.WriteString("GGUF")
	w.number(uint32(3))
	w.number(tensors)
	w.number(values)
	return w
}

func (w *writer) tensor(name string, kind uint32, offset uint64, shape ...uint64) {
	w.string(name)
	w.number(uint32(len(shape)))
	for _, n := range shape {
		w.number(n)
	}
	w.number(kind)
	w.number(offset)
}

func (w *writer) parse() (*Header, error) { return parseBytes(w.Bytes()) }

func parseBytes(data []byte) (*Header, error) {
	return Parse(int64(len(data)), func(p []byte, offset int64) error {
		copy(p, data[offset:])
		return nil
	})
}

// sample has a value of each kind and two tensors.
func sample() *writer {
	w := header(2, 8)
	w.value("a", typeUint8, uint8(200))
	w.value("b", typeInt8, int8(-3))
	w.value("c", typeFloat32, float32(0.5))
	w.value("d", typeBool, true)
	w.value("e", typeString, "text")
	w.value("f", typeInt64, int64(-1<<40))
	w.string("g")
	for _, n := range []any{uint32(typeArray), uint32(typeString), uint64(2)} {
		w.number(n)
	}
	w.string("x")
	w.string("")
	w.string("h")
	for _, n := range []any{uint32(typeArray), uint32(typeUint16), uint64(3), uint16(1), uint16(2), uint16(65535)} {
		w.number(n)
	}
	w.tensor("t", 8, 0, 64, 3) // Q8_0
	w.tensor("u", 0, 224, 5)   // F32, after 204 bytes and padding
	for w.Len()%32 != 0 {
		w.WriteByte(0)
	}
	w.Write(make([]byte, 224+20))
	return w
}

func TestParse(t *testing.T) {
	w := sample()
	h, err := w.parse()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(h.Values), "map[a:200 b:-3 c:0.5 d:true e:text f:-1099511627776 g:[x ] h:[1 2 65535]]"; got != want {
		t.Errorf("values %s, want %s", got, want)
	}
	end := int64(w.Len())
	if got, want := fmt.Sprint(h.Tensors), fmt.Sprintf("[{t {Q8_0 32 34} [3 64] %d 204} {u {F32 1 4} [5] %d 20}]", end-244, end-20); got != want {
		t.Errorf("tensors %s, want %s", got, want)
	}
}

// TestRefusals: what lies about itself is refused in one line, before memory is
// taken for it.
func TestRefusals(t *testing.T) {
	big := header(0, 0).Bytes()
	big[4], big[7] = 0, 3
	version := header(0, 0).Bytes()
	version[4] = 1
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "truncated"},
		{"another format", []byte("PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaa"), "not a GGUF file"},
		{"big-endian", big, "big-endian"},
		{"version 1", version, "version 1 is not supported"},
		{"2^63 tensors", header(1<<63, 0).Bytes(), "truncated"},
		{"2^63 values", header(0, 1<<63).Bytes(), "truncated"},
		{"a string of 2^63", func() []byte {
			w := header(0, 1)
			w.number(uint64(1 << 63))
			w.Write(make([]byte, 64))
			return w.Bytes()
		}(), "truncated"},
		{"an array of 2^62", func() []byte {
			w := header(0, 1)
			w.string("k")
			w.number(uint32(typeArray))
			w.number(uint32(typeFloat64))
			w.number(uint64(1 << 62))
			return w.Bytes()
		}(), `"k": truncated`},
		{"nested arrays", func() []byte {
			w := header(0, 1)
			w.string("k")
			w.number(uint32(typeArray))
			w.number(uint32(typeArray))
			w.number(uint64(1))
			return w.Bytes()
		}(), "array of arrays"},
		{"a key twice", func() []byte {
			w := header(0, 2)
			w.value("k", typeUint8, uint8(1))
			w.value("k", typeUint8, uint8(1))
			return w.Bytes()
		}(), "twice"},
		{"an unknown value", func() []byte { w := header(0, 1); w.value("k", 13, uint64(1)); return w.Bytes() }(), "type 13"},
		{"an alignment of 3", func() []byte {
			w := header(0, 1)
			w.value("general.alignment", typeUint32, uint32(3))
			return w.Bytes()
		}(), "power of two"},
		{"an unknown type", func() []byte { w := header(1, 0); w.tensor("t", 4, 0, 32); return w.Bytes() }(), "type 4 is not known"},
		{"no dimensions", func() []byte { w := header(1, 0); w.tensor("t", 0, 0); w.Write(make([]byte, 64)); return w.Bytes() }(), "0 dimensions"},
		{"2^63 elements", func() []byte {
			w := header(1, 0)
			w.tensor("t", 0, 0, 1<<33, 1<<30)
			w.Write(make([]byte, 64))
			return w.Bytes()
		}(), "dimension"},
		{"part of a block", func() []byte { w := header(1, 0); w.tensor("t", 8, 0, 40); w.Write(make([]byte, 64)); return w.Bytes() }(), "blocks of Q8_0"},
		{"an odd offset", func() []byte { w := header(1, 0); w.tensor("t", 0, 7, 1); w.Write(make([]byte, 64)); return w.Bytes() }(), "multiple of 32"},
		{"an offset past the end", func() []byte {
			w := header(1, 0)
			w.tensor("t", 0, 1<<40, 1)
			w.Write(make([]byte, 64))
			return w.Bytes()
		}(), "truncated"},
		{"tensors that overlap", func() []byte {
			w := header(2, 0)
			w.tensor("t", 0, 0, 16)
			w.tensor("u", 0, 32, 1)
			w.Write(make([]byte, 128))
			return w.Bytes()
		}(), `within tensor "t"`},
		{"a tensor twice", func() []byte {
			w := header(2, 0)
			w.tensor("t", 0, 0, 1)
			w.tensor("t", 0, 32, 1)
			w.Write(make([]byte, 128))
			return w.Bytes()
		}(), "twice"},
		{"cut short", sample().Bytes()[:sample().Len()-1], "truncated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := parseBytes(tt.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %v; want one line with %q", h, err, tt.want)
			}
		})
	}
}

func TestCheckSplit(t *testing.T) {
	h := &Header{Values: map[string]any{"split.count": int64(3), "split.no": int64(1)}}
	if err := h.CheckSplit(1, 3); err != nil {
		t.Error(err)
	}
	for _, of := range [][2]int{{0, 3}, {1, 2}, {0, 1}} {
		if err := h.CheckSplit(of[0], of[1]); err == nil {
			t.Errorf("file 1 of 3 passes as %d of %d", of[0], of[1])
		}
	}
	if err := (&Header{Values: map[string]any{}}).CheckSplit(0, 1); err != nil {
		t.Error(err)
	}
}

// open opens metadata and tensors as a model whose bytes are zero.
func open(values map[string]any, tensors ...Tensor) (*Model, error) {
	return Open([]*Header{{Values: values, Tensors: tensors}}, func(int, []byte, int64) error { return nil })
}

func TestOpenRefusals(t *testing.T) {
	embedding := Tensor{Name: "token_embd.weight", Type: types[0], Shape: []int{8, 16}}
	values := func(more map[string]any) map[string]any {
		v := map[string]any{"general.architecture": "llama", "llama.block_count": int64(1), "llama.attention.head_count": int64(2)}
		for key, value := range more {
			v[key] = value
		}
		return v
	}
	for _, tt := range []struct {
		values map[string]any
		want   string
	}{
		{map[string]any{}, `architecture "" is not supported, only apertus`},
		{values(map[string]any{"general.architecture": "clip"}), `architecture "clip"`},
		{values(map[string]any{"general.type": "adapter"}), "part of a model (adapter)"},
		{values(map[string]any{"llama.block_count": int64(1 << 40)}), "llama.block_count"},
		{values(map[string]any{"llama.block_count": "one"}), "must be a whole number"},
		{values(map[string]any{"llama.attention.head_count": int64(0)}), "head_count"},
		{values(map[string]any{"llama.attention.head_count": int64(3)}), "rows of 3 heads"},
	} {
		_, err := open(tt.values, embedding, Tensor{Name: "blk.0.attn_q.weight", Type: types[0], Shape: []int{16, 16}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want one line with %q", err, tt.want)
		}
	}
	if _, err := open(values(nil), embedding, Tensor{Name: "blk.0.strange.weight", Type: types[0], Shape: []int{16}}); err == nil || !strings.Contains(err.Error(), "blk.0.strange.weight") {
		t.Errorf("%v; want the name of the strange tensor", err)
	}
}

// FuzzOpen: no file ends in anything but a model or an error.
func FuzzOpen(f *testing.F) {
	f.Add(sample().Bytes())
	w := header(2, 5)
	w.value("general.architecture", typeString, "llama")
	w.value("llama.block_count", typeUint32, uint32(1))
	w.value("llama.attention.head_count", typeUint32, uint32(2))
	w.value("tokenizer.ggml.model", typeString, "gpt2")
	w.value("llama.rope.freq_base", typeFloat32, float32(math.NaN()))
	w.tensor("token_embd.weight", 0, 0, 8, 4)
	w.tensor("blk.0.attn_q.weight", 0, 128, 8, 8)
	w.Write(make([]byte, 512))
	f.Add(w.Bytes())
	kimi := header(4, 4)
	kimi.value("general.architecture", typeString, "kimi-linear")
	kimi.value("kimi-linear.block_count", typeUint32, uint32(1))
	kimi.value("kimi-linear.attention.head_count", typeUint32, uint32(2))
	kimi.value("kimi-linear.attention.head_count_kv", typeUint32, uint32(0))
	kimi.tensor("token_embd.weight", 0, 0, 8, 4)
	kimi.tensor("blk.0.ssm_a", 0, 128, 1, 2)
	kimi.tensor("blk.0.ssm_conv1d_q.weight", 0, 160, 4, 8)
	kimi.tensor("blk.0.attn_norm.weight", 0, 288, 8)
	kimi.Write(make([]byte, 512))
	f.Add(kimi.Bytes())
	head := header(4, 4)
	head.value("general.architecture", typeString, "deepseek2")
	head.value("deepseek2.block_count", typeUint32, uint32(2))
	head.value("deepseek2.nextn_predict_layers", typeUint32, uint32(1))
	head.value("deepseek2.attention.head_count", typeUint32, uint32(2))
	head.tensor("token_embd.weight", 0, 0, 8, 4)
	head.tensor("blk.1.nextn.eh_proj.weight", 0, 128, 16, 8)
	head.tensor("blk.1.attn_k_b.weight", 0, 640, 2, 2, 2)
	head.tensor("blk.1.attn_v_b.weight", 0, 672, 2, 2, 2)
	head.Write(make([]byte, 1024))
	f.Add(head.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseBytes(data)
		if err != nil {
			return
		}
		m, err := Open([]*Header{h}, func(_ int, p []byte, offset int64) error {
			copy(p, data[offset:])
			return nil
		})
		if err != nil {
			return
		}
		for name, text := range m.Texts {
			if data, err := text(); err == nil && !json.Valid(data) {
				t.Errorf("%s: %s", name, data)
			}
		}
		for _, v := range m.Tensors {
			rows := 0
			for _, r := range v.Rows {
				rows += r.N
				stored := rowsOf(m.Stored[r.From].Shape)
				if last := r.First + (r.N-1)*r.Step; !r.Transposed && (r.First < 0 || r.N < 1 || last >= stored) {
					t.Errorf("%s: rows %d to %d of %d", v.Name, r.First, last, stored)
				}
			}
			if rows != rowsOf(v.Shape) {
				t.Errorf("%s: %d rows for shape %v", v.Name, rows, v.Shape)
			}
		}
	})
}

// TestDocs: docs/models.md names every architecture.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/models.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## GGUF\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for name := range architectures {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("docs/models.md: %q is missing under GGUF", name)
		}
	}
}
