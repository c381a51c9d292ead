package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkStart measures the time from starting the process to the first
// token of a 1 GB checkpoint that lies in the page cache, and the memory that
// is then resident beside the weights.
func BenchmarkStart(b *testing.B) {
	dir, bytes := gigabyteFolder(b)
	args := []string{"--model-id", dir, "--max-batch-total-tokens", "4096"}
	firstToken := func() *process {
		p := start(b, nil, args...).ready()
		status, body := p.post("/generate", `{"inputs":"the quick","parameters":{"max_new_tokens":1}}`)
		if status != 200 {
			b.Fatalf("%d %s", status, body)
		}
		return p
	}
	stop := func(p *process) {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	stop(firstToken()) // reads the files into the page cache

	best, beside := time.Duration(math.MaxInt64), 0.0
	for b.Loop() {
		begin := time.Now()
		p := firstToken()
		best = min(best, time.Since(begin))
		beside = residentMB(b, p.cmd.Process.Pid) - float64(bytes)/(1<<20)
		stop(p)
	}
	b.ReportMetric(best.Seconds(), "best-s")
	b.ReportMetric(beside, "resident-beside-weights-MB")
	b.ReportMetric(0, "ns/op")
}

// gigabyteFolder writes a llama checkpoint of 1 GB of random bf16 weights.
func gigabyteFolder(b *testing.B) (dir string, size int64) {
	b.Helper()
	const hidden, inner, layers, heads, kvHeads = 1024, 4096, 30, 16, 4
	type tensor struct {
		name  string
		shape []int
	}
	tensors := []tensor{{"model.embed_tokens.weight", []int{tinyVocab, hidden}}, {"model.norm.weight", []int{hidden}}}
	const kv = hidden / heads * kvHeads
	for l := range layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		tensors = append(tensors,
			tensor{p + "input_layernorm.weight", []int{hidden}}, tensor{p + "post_attention_layernorm.weight", []int{hidden}},
			tensor{p + "self_attn.q_proj.weight", []int{hidden, hidden}}, tensor{p + "self_attn.o_proj.weight", []int{hidden, hidden}},
			tensor{p + "self_attn.k_proj.weight", []int{kv, hidden}}, tensor{p + "self_attn.v_proj.weight", []int{kv, hidden}},
			tensor{p + "mlp.gate_proj.weight", []int{inner, hidden}}, tensor{p + "mlp.up_proj.weight", []int{inner, hidden}},
			tensor{p + "mlp.down_proj.weight", []int{hidden, inner}})
	}

	dir = b.TempDir()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header := map[string]entry{}
	for _, t := range tensors {
		n := int64(2)
		for _, d := range t.shape {
			n *= int64(d)
		}
		header[t.name] = entry{"BF16", t.shape, [2]int64{size, size + n}}
		size += n
	}
	text, err := json.Marshal(header)
	check(err)
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	check(err)
	w := bufio.NewWriterSize(f, 1<<20)
	check(binary.Write(w, binary.LittleEndian, uint64(len(text))))
	_, err = w.Write(text)
	check(err)
	// Small random numbers, again and again: speed does not depend on the
	// values, as long as a compressor does not see them return.
	r := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 0, 48<<20)
	for len(block) < cap(block) {
		block = binary.LittleEndian.AppendUint16(block, uint16(math.Float32bits(float32(0.02*r.NormFloat64()))>>16))
	}
	for left := size; left > 0; {
		n, err := w.Write(block[:min(left, int64(len(block)))])
		check(err)
		left -= int64(n)
	}
	check(w.Flush())
	check(f.Close())

	for name, data := range tinyFiles(b) {
		if name == "config.json" {
			config := string(data)
			for old, new := range map[string]string{
				`"hidden_size":32`: fmt.Sprintf(`"hidden_size":%d`, hidden), `"intermediate_size":64`: fmt.Sprintf(`"intermediate_size":%d`, inner),
				`"num_hidden_layers":2`: fmt.Sprintf(`"num_hidden_layers":%d`, layers), `"num_attention_heads":4`: fmt.Sprintf(`"num_attention_heads":%d`, heads),
			} {
				config = strings.Replace(config, old, new, 1)
			}
			check(os.WriteFile(filepath.Join(dir, name), []byte(config), 0o600))
		} else if name != "model.safetensors" {
			check(os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
	}
	return dir, size
}
