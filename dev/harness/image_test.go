package harness_test

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/dev/harness"
)

// What platforms read from the image, and what it holds.
func TestImage(t *testing.T) {
	image, err := engine.Inspect(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	const binary = "/usr/local/bin/millrace"
	for name, want := range map[string]string{
		"com.amazonaws.sagemaker.capabilities.accept-bind-to-port":     "true",
		"com.amazonaws.sagemaker.capabilities.bidirectional-streaming": "true",
		"com.amazonaws.lambda.feature.snapstart":                       "Allow",
		"org.opencontainers.image.version":                             version,
		"org.opencontainers.image.revision":                            revision,
		"org.opencontainers.image.licenses":                            "Apache-2.0",
	} {
		if got := image.Config.Labels[name]; got != want {
			t.Errorf("label %s=%q; want %q", name, got, want)
		}
	}
	if label := "com.amazonaws.sagemaker.capabilities.multi-models"; image.Config.Labels[label] != "" {
		t.Errorf("label %s is set, but there are no multi-model endpoints", label)
	}
	c := image.Config
	if !slices.Equal(c.Entrypoint, []string{binary}) || c.Cmd != nil {
		t.Errorf("entry point %q, command %q; want %s alone, without a shell", c.Entrypoint, c.Cmd, binary)
	}
	if c.User != "" {
		t.Errorf("user %q; SageMaker asks for root, and Lambda sets its own", c.User)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok || len(c.ExposedPorts) != 1 {
		t.Errorf("exposed ports %v; want 8080", slices.Collect(maps.Keys(c.ExposedPorts)))
	}
	if !slices.Contains(c.Env, "HOME=/tmp") {
		t.Errorf("environment %v; want HOME=/tmp, the one place to write to", c.Env)
	}

	err = engine.Walk(t.Context(), tag, func(f *tar.Header, _ io.Reader) error {
		mode := f.FileInfo().Mode()
		switch {
		case f.Name == "tmp/":
			if mode.Perm() != 0o777 {
				t.Errorf("/tmp is %v; want writable for all", mode)
			}
		case mode.IsDir() && mode.Perm() != 0o755, f.Name == binary[1:] && mode != 0o755, mode.IsRegular() && mode.Perm()&0o444 != 0o444:
			t.Errorf("%s is %v; want readable for all", f.Name, mode)
		case mode&os.ModeSymlink != 0 && f.Name == binary[1:]:
			t.Errorf("the entry point is a symbolic link")
		}
		if f.ModTime.Unix() != 0 {
			t.Errorf("%s is of %v; want the epoch, so that the layer depends on nothing but its content", f.Name, f.ModTime)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Its binary is hardened as the one of `make build` is, with nothing beside it.
func TestImageHardened(t *testing.T) {
	missing, err := harness.Weaknesses(binaryOf(t, tag))
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range missing {
		t.Errorf("not so: %s", what)
	}
}

// The image is small.
func TestImageSize(t *testing.T) {
	size, err := engine.CompressedSize(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("image of %.1f MB compressed\n", float64(size)/1e6)
	if size > 60e6 {
		t.Errorf("the image has %d bytes compressed; want at most 60 MB", size)
	}
}

// A model gets a layer of its own behind the binary's, which stays as it is,
// readable for any user, whoever built it when.
func TestModelLayer(t *testing.T) {
	dir := readableModel(t)
	private := filepath.Join(dir, "model.safetensors")
	if err := os.Chmod(private, 0o600); err != nil {
		t.Fatal(err)
	}
	withModel := func(name string) []string {
		if err := engine.Build(t.Context(), root, "container/Dockerfile.model", dir, name, "--no-cache", "--build-arg", "IMAGE="+tag); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { engine.Forget(name) })
		return layers(t, name)
	}
	first := withModel("millrace-model:first")
	if err := os.Chtimes(filepath.Join(dir, "config.json"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	second := withModel("millrace-model:second")
	below := layers(t, tag)
	if n := len(below); len(first) != n+1 || !slices.Equal(first[:n], below) {
		t.Errorf("layers %v; want those of the image and one more: %v", first, below)
	}
	if !slices.Equal(first, second) {
		t.Errorf("layers %v, built again %v", first, second)
	}
	c := start(t, "millrace-model:first", 8080, hosted).ready()
	if text := c.ask("/invocations"); !strings.Contains(text, "Millrace is a server") {
		t.Errorf("the answer is %q", text)
	}
	if info := c.must("GET", "/info", "").body; !strings.Contains(info, `"model_id":"model"`) {
		t.Errorf("/info: %s; want the model of the layer", info)
	}
}

// The bills of materials name what is in the binary: each Go module that it
// says it was built from, and the crates of the Rust half.
func TestBillOfMaterials(t *testing.T) {
	const docs = "usr/share/doc/millrace/"
	var info *buildinfo.BuildInfo
	names := map[string]bool{} // of all components, with their versions
	err := engine.Walk(t.Context(), tag, func(f *tar.Header, content io.Reader) (err error) {
		switch f.Name {
		case "usr/local/bin/millrace":
			var binary []byte
			if binary, err = io.ReadAll(content); err == nil {
				info, err = buildinfo.Read(bytes.NewReader(binary))
			}
		case docs + "go.cdx.json", docs + "rust.cdx.json":
			var bill struct {
				BOMFormat  string
				Components []struct{ Name, Version string }
			}
			err = json.NewDecoder(content).Decode(&bill)
			if err == nil && bill.BOMFormat != "CycloneDX" {
				t.Errorf("%s has the format %q", f.Name, bill.BOMFormat)
			}
			for _, c := range bill.Components {
				names[c.Name+"@"+c.Version] = true
			}
		case docs + "LICENSE":
			names["LICENSE@"] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"LICENSE@", "tokenizers@0.22.2", "llguidance@1.9.1", "minijinja@3.1.0"}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	for _, name := range want {
		if !names[name] {
			t.Errorf("%s is in the image, and in no bill of materials", name)
		}
	}
}

// Built once more from nothing, the image has the same layers. This compiles
// everything once more: MILLRACE_TEST_IMAGE=all asks for it.
func TestReproducible(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_IMAGE") != "all" {
		t.Skip("MILLRACE_TEST_IMAGE is not all")
	}
	const once, again = "millrace:once", "millrace:again"
	err := errors.Join(build(t.Context(), once), build(t.Context(), again, "--no-cache"))
	if err != nil {
		t.Fatal(err)
	}
	if first, second := layers(t, once), layers(t, again); !slices.Equal(first, second) {
		t.Errorf("layers %v, built again %v", first, second)
	}
}

// layers are the digests of an image's layers.
func layers(t testing.TB, tag string) []string {
	t.Helper()
	image, err := engine.Inspect(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	return image.RootFS.Layers
}
