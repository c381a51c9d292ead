package handler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/vision"
)

// seeingProcessor is that of a model whose images have four tokens, each one of the
// tokenizer's special ones.
func seeingProcessor(t testing.TB) *vision.Processor {
	t.Helper()
	p, err := vision.New(vision.Files{
		Config:       []byte(`{"model_type":"llava","image_token_index":641,"vision_config":{"model_type":"clip_vision_model","image_size":28,"patch_size":14}}`),
		Preprocessor: []byte(`{"image_processor_type":"CLIPImageProcessor","size":{"shortest_edge":28},"crop_size":{"height":28,"width":28}}`),
		Processor:    []byte(`{"patch_size":14,"vision_feature_select_strategy":"default","num_additional_image_tokens":1,"image_token":"<|end_of_text|>"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// seeingServer serves a model that reads images.
func seeingServer(t testing.TB, gen *fake, edit ...func(*Options)) *Server {
	t.Helper()
	s := newTestServer(gen, edit...)
	p := seeingProcessor(t)
	if id, ok := testTokenizer().ID(p.Config.ImageToken); !ok || id != p.Config.ImageTokenID {
		t.Fatalf("%q is token %d, %v", p.Config.ImageToken, id, ok)
	}
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Vision: &Vision{Processor: p}})
	return s
}

// dataURI is an image of one colour.
func dataURI(t testing.TB, width, height int, c color.Color) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())
}

// Images in the text of a prompt become image tokens, in order, with the bytes' hash
// and what the tower reads.
func TestMarkdownImages(t *testing.T) {
	gen := &fake{}
	s := seeingServer(t, gen)
	red, blue := dataURI(t, 30, 30, color.RGBA{255, 0, 0, 255}), dataURI(t, 50, 28, color.RGBA{0, 0, 255, 255})
	r := post(t, s, "/generate", `{"inputs":"a ![](`+red+`) b ![](`+blue+`)![](`+red+`) c","parameters":{"max_new_tokens":2,"details":true}}`)
	if r.status != 200 {
		t.Fatal(r.body)
	}
	images := gen.last.Images
	if len(images) != 3 || images[0].Hash != images[2].Hash || images[0].Hash == images[1].Hash {
		t.Fatalf("images %v", images)
	}
	for i, m := range images {
		tokens := gen.last.Tokens[m.First:][:m.Count]
		if m.Count != 4 || slices.ContainsFunc(tokens, func(id int32) bool { return id != 641 }) {
			t.Errorf("image %d has tokens %v", i, tokens)
		}
		if in, err := m.Input(t.Context()); err != nil || len(in.Inputs) != 1 || len(in.Inputs[0].Patches) == 0 {
			t.Errorf("image %d has no input for the tower, %v", i, err)
		}
	}
	if images[2].First != images[1].First+4 {
		t.Errorf("images begin at %d and %d", images[1].First, images[2].First)
	}

	// A model that reads none takes them for text.
	plain := &fake{}
	if r := post(t, newTestServer(plain), "/generate", `{"inputs":"a ![](http://x/y.png)","parameters":{"max_new_tokens":1}}`); r.status != 200 || len(plain.last.Images) > 0 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// A text completion reads them, too, as TGI's does; not in prompts of tokens.
func TestCompletionImages(t *testing.T) {
	gen := &fake{}
	s := seeingServer(t, gen)
	uri := dataURI(t, 30, 30, color.White)
	if r := post(t, s, "/v1/completions", `{"prompt":["b","a ![](`+uri+`) c"],"max_tokens":1,"echo":true}`); r.status != 200 || !strings.Contains(r.body, "![](data:") {
		t.Fatal(r.body)
	}
	if m := gen.last.Images; len(m) != 1 || m[0].Count != 4 || gen.last.Tokens[m[0].First] != 641 {
		t.Errorf("images %v of tokens %v", m, gen.last.Tokens)
	}
	if r := post(t, s, "/v1/completions", `{"prompt":"![](`+uri+`) and a text","max_tokens":1,"truncate_prompt_tokens":3}`); r.status != 200 || len(gen.last.Images) != 0 || len(gen.last.Tokens) > 3 {
		t.Errorf("%d %s: %v", r.status, r.body, gen.last.Tokens)
	}
}

// An image that was decoded before is not decoded again for its tokens, but when the tower
// reads it: to the same as the first time. One of low detail is another image
// (row "detail of images").
func TestKnownImages(t *testing.T) {
	gen := &fake{}
	s := newTestServer(gen)
	s.SetReady(Model{
		Generator: gen, Tokenizer: testTokenizer(), Vision: &Vision{Processor: seeingProcessor(t), Low: seeingProcessor(t)},
		Template: loadTemplate(t, `{% for c in messages[0].content %}{% if c.type == 'image' %}<|end_of_text|>{% else %}{{ c.text }}{% endif %}{% endfor %}`),
	})
	data := dataURI(t, 30, 50, color.RGBA{200, 10, 60, 255})
	ask := func(detail string) engine.Image {
		t.Helper()
		r := post(t, s, "/generate", `{"inputs":"a ![](`+data+`)","parameters":{"max_new_tokens":1}}`)
		if detail != "" {
			r = post(t, s, "/v1/chat/completions", `{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"`+data+`","detail":"`+detail+`"}}]}]}`)
		}
		if r.status != 200 {
			t.Fatal(r.body)
		}
		return gen.last.Images[0]
	}
	first, second := ask(""), ask("")
	if first.Bytes == 0 || second.Bytes != 0 || first.Hash != second.Hash {
		t.Errorf("the first holds %d bytes of the tower's input, the second %d", first.Bytes, second.Bytes)
	}
	a, err := first.Input(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Input(t.Context())
	if err != nil || !slices.Equal(a.Inputs[0].Patches, b.Inputs[0].Patches) || len(b.Inputs[0].Patches) == 0 {
		t.Errorf("other pixels the second time, %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ask("").Input(ended); err == nil {
		t.Error("an image that nobody waits for is decoded")
	}
	if ask("high").Hash != first.Hash || ask("auto").Hash != first.Hash || ask("low").Hash == first.Hash {
		t.Error("detail does not tell images apart that are read in different ways, or tells others apart")
	}

	var known sizes
	for i := range byte(3) {
		for j := range sizesPerGeneration {
			known.note(sha256.Sum256([]byte{i, byte(j), byte(j >> 8)}), [2]int{int(i), j})
			known.of(sha256.Sum256([]byte{0, 0, 0})) // which keeps it
		}
	}
	if _, ok := known.of(sha256.Sum256([]byte{0, 0, 0})); !ok {
		t.Error("a size that is used is forgotten")
	}
	if _, ok := known.of(sha256.Sum256([]byte{0, 1, 0})); ok || len(known.newer)+len(known.old) > 2*sizesPerGeneration {
		t.Errorf("%d sizes are kept", len(known.newer)+len(known.old))
	}
}

// A prompt with images is scored, and its image tokens have null in each form of the scores
// (row "scores of images").
func TestScoredImages(t *testing.T) {
	s := seeingServer(t, &fake{})
	inputs := "x![](" + dataURI(t, 30, 30, color.White) + ")x"
	const names = `"<|end_of_text|>","<|end_of_text|>","<|end_of_text|>","<|end_of_text|>"`
	for _, tt := range []struct{ path, body, want string }{
		{"/generate", `{"inputs":"` + inputs + `","parameters":{"max_new_tokens":1,"decoder_input_details":true}}`,
			`"logprob":-1.0}` + strings.Repeat(`,{"id":641,"text":"<|end_of_text|>","logprob":null}`, 4) + `,{"id":87,"text":"x","logprob":-6.0}],"tokens"`},
		{completionsPath, `{"prompt":"` + inputs + `","max_tokens":1,"echo":true,"logprobs":1}`,
			`{"tokens":["<|begin_of_text|>","x",` + names + `,"x"," a"],"token_logprobs":[null,-1.0,null,null,null,null,-6.0,-0.25],` +
				`"top_logprobs":[null,{"y":-0.5,"x":-1.0},null,null,null,null,{"y":-5.5,"x":-6.0},`},
		{completionsPath, `{"prompt":"` + inputs + `","max_tokens":1,"prompt_logprobs":0}`,
			`"prompt_logprobs":[null,{"87":{"logprob":-1.0,"rank":null,"decoded_token":"x"}},null,null,null,null,{"87":{"logprob":-6.0,"rank":null,"decoded_token":"x"}}]`},
	} {
		if r := post(t, s, tt.path, tt.body); r.status != 200 || !strings.Contains(r.body, tt.want) {
			t.Errorf("%s: %d %s\nwant %s", tt.path, r.status, r.body, tt.want)
		}
	}
}

// What is wrong with an image is told with its number (row "fetching images").
func TestImagesRefused(t *testing.T) {
	s := seeingServer(t, &fake{}, func(o *Options) { o.MaxImages = 3 })
	ok := dataURI(t, 30, 30, color.White)
	for _, tt := range []struct{ inputs, want string }{
		{strings.Repeat("![]("+ok+")", 4), "the request has 4 images, the limit is 3 (--max-images)"},
		{"![](data:image/png;base64,!!)", "invalid image content"},
		{"![](" + ok + ")![](data:image/png;base64,AAAA)", "(image 2 of 2)"},
		{"![](http://example.com/x.png)", "Could not fetch image"},
		{"![](" + ok + ") <|end_of_text|>", "2 times"},
	} {
		r := post(t, s, "/generate", `{"inputs":"`+tt.inputs+`","parameters":{"max_new_tokens":1}}`)
		if r.status != 422 || !strings.Contains(r.body, tt.want) {
			t.Errorf("%.60s: %d %s, want %q", tt.inputs, r.status, r.body, tt.want)
		}
	}
}

// An image that `truncate` would cut is dropped as a whole.
func TestTruncateImages(t *testing.T) {
	gen := &fake{}
	s := seeingServer(t, gen)
	uri := dataURI(t, 30, 30, color.White)
	all := 0
	for n := 13; n > 0; n-- {
		body := `{"inputs":"a![](` + uri + `)bc![](` + uri + `)de","parameters":{"max_new_tokens":1,"truncate":` + strconv.Itoa(n) + `}}`
		if r := post(t, s, "/generate", body); r.status != 200 {
			t.Fatal(r.body)
		}
		req := gen.last
		if n == 13 {
			all = len(req.Tokens)
		}
		if len(req.Tokens) > n || req.Tokens[0] != 640 && n > 1 {
			t.Errorf("truncate %d: %v", n, req.Tokens)
		}
		tokens := 0
		for _, id := range req.Tokens {
			if id == 641 {
				tokens++
			}
		}
		if tokens != 4*len(req.Images) {
			t.Errorf("truncate %d: %d image tokens, %d images: %v", n, tokens, len(req.Images), req.Tokens)
		}
		for _, m := range req.Images {
			if req.Tokens[m.First] != 641 || req.Tokens[m.First+m.Count-1] != 641 || m.Count != 4 {
				t.Errorf("truncate %d: image from %d on, %d tokens, of %v", n, m.First, m.Count, req.Tokens)
			}
		}
	}
	if all != 13 {
		t.Errorf("the whole prompt has %d tokens", all)
	}
}

// Image tokens count where tokens do.
func TestImageTokensCount(t *testing.T) {
	gen := &fake{limits: engine.Limits{MaxInput: 12, MaxTotal: 14, MaxTopN: 32, Vocab: 1000, MaxWaiting: 128}}
	s := seeingServer(t, gen)
	uri := dataURI(t, 30, 30, color.White)
	for n, want := range map[int]int{2: 200, 3: 422} {
		r := post(t, s, "/generate", `{"inputs":"a`+strings.Repeat("![]("+uri+")", n)+`","parameters":{"max_new_tokens":1}}`)
		if r.status != want {
			t.Errorf("%d images: %d %s", n, r.status, r.body)
		}
	}
	if r := post(t, s, "/tokenize", `{"inputs":"a![](`+uri+`)"}`); strings.Count(r.body, `"id":641`) != 4 {
		t.Error(r.body)
	}
	if r := ask(t, s, "GET", "/info", ""); !strings.Contains(r.body, `"max_images":16`) {
		t.Error(r.body)
	}
}
