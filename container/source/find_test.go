package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDefault(t *testing.T) {
	const extra = AdditionalDirs + "/"
	for _, tt := range []struct {
		name  string
		files []string
		want  string // below root, or part of the error
		fails bool
	}{
		{name: "nothing there"},
		{name: "no model there", files: []string{ModelDir + "/code/inference.py"}},
		{name: "GGUF", files: []string{ModelDir + "/llama/q4.gguf", ModelDir + "/llama/mmproj-f16.gguf"}, want: ModelDir + "/llama"},
		{name: "model in another form", files: []string{ModelDir + "/llama/model.pt"}, want: "llama/model.pt without a config.json", fails: true},
		{name: "weights alone", files: []string{ModelDir + "/model.safetensors"}, want: "model.safetensors without a config.json", fails: true},
		{name: "weights beside an archive", files: []string{ModelDir + "/pytorch_model.bin", ModelDir + "/model.tar.gz"}, want: "pytorch_model.bin without a config.json", fails: true},
		{name: "an adapter alone", files: []string{extra + "a/adapter_config.json", extra + "a/adapter_model.safetensors"}},
		{name: "folder", files: []string{ModelDir + "/config.json"}, want: ModelDir},
		{name: "folder in the folder", files: []string{ModelDir + "/a/llama/config.json"}, want: ModelDir + "/a/llama"},
		{name: "too deep", files: []string{ModelDir + "/a/b/c/config.json"}},
		{name: "uppermost counts", files: []string{ModelDir + "/config.json", ModelDir + "/draft/config.json"}, want: ModelDir},
		{name: "which one", files: []string{ModelDir + "/a/config.json", ModelDir + "/b/config.json"}, want: "several models: in a/, b/", fails: true},
		{name: "archive", files: []string{ModelDir + "/model.tar.gz"}, want: ModelDir + "/model.tar.gz"},
		{name: "two archives", files: []string{ModelDir + "/a.tar.gz", ModelDir + "/b.tar.zst"}, want: "several archives", fails: true},
		{name: "model data before additional ones", files: []string{ModelDir + "/config.json", extra + "draft/config.json"}, want: ModelDir},
		{name: "additional source", files: []string{extra + "base/config.json", extra + "adapter/adapter_config.json"}, want: extra + "base"},
		{name: "archive as additional source", files: []string{extra + "base/model.tar.gz"}, want: extra + "base/model.tar.gz"},
		{name: "several additional sources", files: []string{extra + "a/config.json", extra + "b/config.json"}, want: "choose one with --model-id", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range tt.files {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o400); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Default(root)
			switch {
			case tt.fails:
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %q, %v; want an error with %q", got, err, tt.want)
				}
			case err != nil || strings.TrimPrefix(got, root) != tt.want:
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
