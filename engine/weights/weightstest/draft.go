package weightstest

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// DraftGolden is a head that predicts one more token, and what it drafts;
// engine/testdata/drafts.py describes and makes it.
type DraftGolden struct {
	Base    string
	Config  map[string]any
	Tokens  []int32
	Prompt  int
	Drafts  [][]int32
	Margins [][]float64
}

// WithDraft joins a head in the folder drafts of testdata with its checkpoint, in a folder
// of the test's.
func WithDraft(t testing.TB, testdata, name string) (string, *DraftGolden) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	from, dir := filepath.Join(testdata, "drafts", name), t.TempDir()
	read := func(v any, path ...string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(path...))
		must(err)
		if v != nil {
			must(json.Unmarshal(data, v))
		}
		return data
	}
	write := func(file string, data []byte) {
		t.Helper()
		must(os.WriteFile(filepath.Join(dir, file), data, 0o644))
	}
	marshal := func(v any) []byte {
		t.Helper()
		data, err := json.Marshal(v)
		must(err)
		return data
	}
	var g DraftGolden
	read(&g, from, "golden.json")
	var config map[string]any
	read(&config, testdata, g.Base, "config.json")
	maps.Copy(config, g.Config)
	write("config.json", marshal(config))
	files := map[string]string{}
	for shard, data := range map[string][]byte{
		"model-00001-of-00002.safetensors": read(nil, testdata, g.Base, "model.safetensors"),
		"model-00002-of-00002.safetensors": read(nil, from, "mtp.safetensors"),
	} {
		write(shard, data)
		var header map[string]json.RawMessage
		must(json.Unmarshal(data[8:8+binary.LittleEndian.Uint64(data)], &header))
		for tensor := range header {
			if tensor != "__metadata__" {
				files[tensor] = shard
			}
		}
	}
	write("model.safetensors.index.json", marshal(map[string]any{"metadata": map[string]any{}, "weight_map": files}))
	return dir, &g
}
