package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/vision"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// seeingFolder is a tiny checkpoint of a family that reads images, with a tokenizer of
// words w3 to w110 and an image processor for its images.
func seeingFolder(t *testing.T, name, preprocessor, processor string) string {
	t.Helper()
	files := map[string][]byte{"preprocessor_config.json": []byte(preprocessor), "processor_config.json": []byte(processor)}
	for _, file := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join("..", "engine", "testdata", name, file))
		if err != nil {
			t.Fatal(err)
		}
		files[file] = data
	}
	vocab := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	for id := 3; id <= 110; id++ {
		vocab[fmt.Sprintf("w%d", id)] = id
	}
	var added []map[string]any
	for text, id := range map[string]int{"<image>": 119, "<boi>": 117, "<eoi>": 118} {
		vocab[text] = id
		added = append(added, map[string]any{"id": id, "content": text, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	var err error
	files["tokenizer.json"], err = json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": added, "pre_tokenizer": map[string]any{"type": "WhitespaceSplit"},
		"model": map[string]any{"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
	})
	if err != nil {
		t.Fatal(err)
	}
	files["tokenizer_config.json"], err = json.Marshal(map[string]any{
		"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>",
		"chat_template": `{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}` +
			`{% if c.type == 'image' %} ` + placeholderOf[name] + ` {% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %} w9 {% endfor %}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	return weightstest.Folder(t, files)
}

var placeholderOf = map[string]string{"llava": "<image>", "gemma3-images": "<boi>"}

// picture is a data URI of a PNG that depends on a seed.
func picture(t *testing.T, seed int) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 20, 14))
	for y := range 14 {
		for x := range 20 {
			m.Set(x, y, color.RGBA{uint8(x * 12 * seed), uint8(y * 17), uint8(seed * 90), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())
}

// TestImages asks a server about images, from the JSON of requests to a tower that runs.
func TestImages(t *testing.T) {
	words := strings.TrimSpace(strings.Repeat("w10 w20 w30 w40 w50 ", 8))
	for _, tt := range []struct {
		name, preprocessor, processor string
		tokens                        int // of an image, with what is around it
	}{
		{
			"llava", `{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}`,
			`{"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"}`, 9,
		},
		{
			"gemma3-images", `{"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 16, "width": 16}, "image_seq_length": 4}`,
			`{"processor_class": "Gemma3Processor", "image_seq_length": 4}`, 6,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := seeingFolder(t, tt.name, tt.preprocessor, tt.processor)
			answers := map[string]string{}
			for _, device := range []string{"ref", "cpu"} {
				p := start(t, []string{"MILLRACE_DEVICE=" + device, "MODEL_ID=" + dir}, "--max-images", "2", "--no-image-fetch").ready()
				ask := func(content string) (status int, text string, tokens, cached int) {
					t.Helper()
					status, body := p.post("/v1/chat/completions", `{"temperature":0,"max_tokens":12,"messages":[{"role":"user","content":`+content+`}]}`)
					var answer struct {
						Choices []struct{ Message struct{ Content string } }
						Usage   struct {
							Prompt  int `json:"prompt_tokens"`
							Details struct {
								Cached int `json:"cached_tokens"`
							} `json:"prompt_tokens_details"`
						}
						Error string
					}
					if err := json.Unmarshal([]byte(body), &answer); err != nil {
						t.Fatalf("%v: %s", err, body)
					}
					if status != 200 {
						return status, answer.Error, 0, 0
					}
					return status, answer.Choices[0].Message.Content, answer.Usage.Prompt, answer.Usage.Details.Cached
				}
				chunk := func(url string) string {
					return `{"type":"image_url","image_url":{"url":"` + url + `","detail":"low"}}`
				}
				text := func(s string) string { return `{"type":"text","text":"` + s + `"}` }
				about := func(url string) string { return "[" + text("w5 ") + "," + chunk(url) + "," + text(words) + "]" }

				status, first, tokens, cached := ask(about(picture(t, 1)))
				if status != 200 || tokens != 1+tt.tokens+40+1 || cached != 0 {
					t.Fatalf("%s: %d %q with %d tokens, %d cached", device, status, first, tokens, cached)
				}
				if _, again, _, cached := ask(about(picture(t, 1))); again != first || cached < 32 {
					t.Errorf("%s: the second time %q, %d cached, want %q", device, again, cached, first)
				}
				if _, _, _, cached := ask(about(picture(t, 2))); cached != 0 {
					t.Errorf("%s: another image finds %d tokens of the first one's", device, cached)
				}
				_, body := p.post("/generate", `{"inputs":"w5 ![](`+picture(t, 1)+`)`+words+` w9","parameters":{"max_new_tokens":12}}`)
				if !strings.Contains(body, strings.TrimSpace(first)) {
					t.Errorf("%s: /generate answers %s, the chat %q", device, body, first)
				}
				_, body = p.post("/tokenize", `{"inputs":"w5 ![](`+picture(t, 1)+`) w6"}`)
				if n := strings.Count(body, `"id":119`); n != tt.tokens && n != tt.tokens-2 {
					t.Errorf("%s: /tokenize has %d image tokens: %s", device, n, body)
				}
				for content, want := range map[string]string{
					"[" + chunk(picture(t, 1)) + "," + chunk(picture(t, 2)) + "," + chunk(picture(t, 3)) + "]": "3 images, the limit is 2 (--max-images)",
					"[" + chunk("http://127.0.0.1/x.png") + "]":                                                "Could not fetch image",
					"[" + chunk("data:image/png;base64,AAAA") + "," + text("w7") + "]":                         "image",
					`"w5 <image> w6"`: "",
				} {
					if status, says, _, _ := ask(content); want != "" && (status != 422 || !strings.Contains(says, want)) || want == "" && status != 200 {
						t.Errorf("%s: %d %q, want %q", device, status, says, want)
					}
				}
				if _, _, _, cached := ask(about(picture(t, 1))); cached < 32 {
					t.Errorf("%s: %d tokens are cached after requests that failed", device, cached)
				}
				answers[device] = first
			}
			if answers["ref"] != answers["cpu"] {
				t.Errorf("ref %q\ncpu %q", answers["ref"], answers["cpu"])
			}
		})
	}
}

// TestImagesFromArchives: a model that reads images does so from S3, and from archives with
// its image processor's files before or after the weights.
func TestImagesFromArchives(t *testing.T) {
	const name, request = "llava", `{"temperature":0,"max_tokens":8,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"%s"}}]}]}`
	dir := seeingFolder(t, name, `{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}`,
		`{"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"}`)
	body := fmt.Sprintf(request, picture(t, 1))
	_, want := start(t, []string{"MODEL_ID=" + dir}).ready().post("/v1/chat/completions", body)
	_, want, _ = strings.Cut(want, `"choices"`)
	want, _, _ = strings.Cut(want, "usage")
	server := s3test.NewServer(t)
	files := map[string][]byte{}
	listed, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sorted []string
	for _, e := range listed {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
		server.Put("models", "seeing/"+e.Name(), files[e.Name()])
		sorted = append(sorted, e.Name())
	}
	archive := func(weightsLast bool) string {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		names := slices.Clone(sorted) // as in tar --sort=name: model.safetensors is the second
		if weightsLast {
			slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(filepath.Ext(a), filepath.Ext(b)) })
		}
		for _, name := range names {
			err := w.WriteHeader(&tar.Header{Name: "seeing/" + name, Mode: 0o644, Size: int64(len(files[name]))})
			if err == nil {
				_, err = w.Write(files[name])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "seeing.tar")
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, place := range []string{"s3://models/seeing/", archive(false), archive(true)} {
		p := start(t, append(s3Env(server.URL), "MODEL_ID="+place)).ready()
		if status, got := p.post("/v1/chat/completions", body); status != 200 || !strings.Contains(got, want) {
			t.Errorf("%s: %d %s, from a folder %s", place, status, got, want)
		}
	}

	// Without the files it answers text alone.
	delete(files, "preprocessor_config.json")
	delete(files, "processor_config.json")
	sorted = slices.DeleteFunc(sorted, func(name string) bool { return files[name] == nil })
	p := start(t, []string{"MODEL_ID=" + archive(false)}).ready()
	if status, got := p.post("/v1/chat/completions", body); status != 422 {
		t.Errorf("an image without a processor: %d %s", status, got)
	}
	if status, got := p.post("/v1/chat/completions", `{"max_tokens":3,"messages":[{"role":"user","content":"w5"}]}`); status != 200 {
		t.Errorf("a text without a processor: %d %s", status, got)
	}
}

// An image processor makes no tile that is larger than what the tower reserves memory for,
// and images of low detail smaller than others where the family has a range.
func TestProcessors(t *testing.T) {
	for _, tt := range []struct {
		name, config, preprocessor string
		tile                       int
		tokens, low                int // of an image of 6000×4000 pixels; 0: low detail is no different
	}{
		{
			"qwen2_vl", `{"model_type":"qwen2_vl","vision_config":{}}`,
			`{"image_processor_type":"Qwen2VLImageProcessor","min_pixels":3136,"max_pixels":51380224}`, mostPatches, 52 * 78, 14 * 22,
		},
		{
			"gemma3", `{"model_type":"gemma3","mm_tokens_per_image":256,"vision_config":{"image_size":896,"patch_size":14}}`,
			`{"image_processor_type":"Gemma3ImageProcessor","size":{"height":896,"width":896}}`, 4096, 256, 0,
		},
	} {
		p, low, err := processors(vision.Files{Config: []byte(tt.config), Preprocessor: []byte(tt.preprocessor)})
		if err != nil {
			t.Fatal(tt.name, err)
		}
		l, err := p.Layout(6000, 4000)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		if p.Config.MaxTile != tt.tile || l.Tokens != tt.tokens || (low != nil) != (tt.low > 0) {
			t.Errorf("%s: tiles of up to %d patches, an image has %d tokens, low detail %v", tt.name, p.Config.MaxTile, l.Tokens, low != nil)
		}
		if low == nil {
			continue
		}
		if l, err = low.Layout(6000, 4000); err != nil || l.Tokens != tt.low {
			t.Errorf("%s: %d tokens of low detail, want %d, %v", tt.name, l.Tokens, tt.low, err)
		}
	}
}
