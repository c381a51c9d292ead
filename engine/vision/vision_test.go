package vision

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Layouts of all sizes hold together: what is counted, asked for and written agrees, and
// nothing exceeds what Config promises.
func TestLayouts(t *testing.T) {
	for _, c := range readGolden(t, "testdata").Cases {
		p, err := New(filesOf(c.Files))
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		refused := 0
		for range 300 {
			width, height := 1+rng.IntN(1<<rng.IntN(13)), 1+rng.IntN(1<<rng.IntN(13))
			l, err := p.Layout(width, height)
			if errors.Is(err, ErrShape) {
				refused++
				continue
			}
			if err != nil {
				t.Fatalf("%s: %d×%d: %v", c.Name, width, height, err)
			}
			embeds, windows := 0, 0
			for i := range l.Tiles {
				tile := &l.Tiles[i]
				embeds += tile.Embeds()
				if tile.Patches != tile.Rows*tile.Columns || tile.Patches%tile.Merge != 0 || tile.Patches == 0 || tile.Len() > p.Config.MaxTile {
					t.Fatalf("%s: %d×%d: tile %+v of at most %d rows", c.Name, width, height, tile, p.Config.MaxTile)
				}
				for _, n := range tile.Windows {
					windows += int(n)
				}
				if tile.Windows != nil && windows != tile.Patches {
					t.Fatalf("%s: %d×%d: %d patches in windows, of %d", c.Name, width, height, windows, tile.Patches)
				}
			}
			switch {
			case l.Tokens > p.Config.MaxTokens || l.Tokens == 0:
				t.Errorf("%s: %d×%d: %d tokens, at most %d", c.Name, width, height, l.Tokens, p.Config.MaxTokens)
			case strings.Count(l.Prompt, p.Config.ImageToken) != l.Tokens:
				t.Errorf("%s: %d×%d: %d tokens, prompt %q", c.Name, width, height, l.Tokens, runs(l.Prompt, p.Config.ImageToken))
			case l.Order == nil && embeds != l.Tokens, l.Order != nil && len(l.Order) != l.Tokens:
				t.Errorf("%s: %d×%d: %d tokens, %d rows, order of %d", c.Name, width, height, l.Tokens, embeds, len(l.Order))
			case l.Order != nil && (slices.Max(l.Order) >= int32(embeds) || slices.Min(l.Order) < Newline):
				t.Errorf("%s: %d×%d: %d rows, order %v", c.Name, width, height, embeds, l.Order)
			case l.Grid != [3]int{} && l.Grid[0]*l.Grid[1]*l.Grid[2] != l.Tokens:
				t.Errorf("%s: %d×%d: grid %v, %d tokens", c.Name, width, height, l.Grid, l.Tokens)
			}
		}
		if refused > 250 {
			t.Errorf("%s: %d of 300 sizes are refused", c.Name, refused)
		}
	}
}

// Limit bounds what Layout returns, or says that it does not.
func TestLimit(t *testing.T) {
	limited := 0
	for _, m := range published {
		for _, tokens := range []int{0, 1, 255, 256, 1000, 4000, 1 << 20} {
			p, err := New(Files{Config: []byte(m.config), Preprocessor: []byte(m.preprocessor)})
			if err != nil {
				t.Fatal(err)
			}
			before := p.Config.MaxTokens
			if err := p.Limit(tokens); err != nil {
				if !strings.Contains(err.Error(), "cannot be limited to") {
					t.Errorf("%s: %v", m.name, err)
				}
				continue
			}
			if p.Config.MaxTokens < before {
				limited++
			}
			for _, size := range [][2]int{{4000, 3000}, {3000, 4000}, {5000, 40}, {8, 8}} {
				l, err := p.Layout(size[0], size[1])
				if err != nil && (!errors.Is(err, ErrShape) || size[1] != 40) {
					t.Errorf("%s: %d×%d: %v", m.name, size[0], size[1], err)
				} else if err == nil && (l.Tokens > tokens || l.Tiles[0].Len() > p.Config.MaxTile) {
					t.Errorf("%s: %d×%d: %d tokens of a tile of %d, the limit is %d of %d", m.name, size[0], size[1], l.Tokens, l.Tiles[0].Len(), tokens, p.Config.MaxTile)
				}
			}
		}
	}
	if limited < 10 {
		t.Errorf("%d limits", limited)
	}
}

// Low detail is less where the family has a range, and holds what it promises.
func TestLowDetail(t *testing.T) {
	less := map[string]bool{}
	for _, m := range published {
		low, err := New(Files{Config: []byte(m.config), Preprocessor: []byte(m.preprocessor)})
		if err != nil {
			t.Fatal(err)
		}
		before := low.Config.MaxTokens
		changed := low.LowDetail()
		if less[low.Config.Family] = changed; changed != (low.Config.MaxTokens < before) {
			t.Errorf("%s: at most %d tokens, before %d", m.name, low.Config.MaxTokens, before)
		}
		for _, size := range [][2]int{{4000, 3000}, {768, 1024}, {60, 60}} {
			l, err := low.Layout(size[0], size[1])
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			pixels := 0
			for i := range l.Tiles {
				pixels += l.Tiles[i].Patches * low.Config.PatchSize * low.Config.PatchSize
			}
			if l.Tokens > low.Config.MaxTokens || changed && pixels > 3*448*448 {
				t.Errorf("%s: %d×%d become %d pixels and %d tokens, at most %d", m.name, size[0], size[1], pixels, l.Tokens, low.Config.MaxTokens)
			}
		}
	}
	for family, want := range map[string]bool{"qwen2_vl": true, "qwen3_vl": true, "idefics3": true, "gemma3": false} {
		if got, ok := less[family]; !ok || got != want {
			t.Errorf("%s: low detail is less: %v, want %v", family, got, want)
		}
	}
}

func TestExpand(t *testing.T) {
	cases := map[string]Files{}
	for _, c := range readGolden(t, "testdata").Cases {
		cases[c.Name] = filesOf(c.Files)
	}
	for _, c := range []struct {
		family, prompt string
		images         int
		want, err      string
	}{
		{"qwen2_vl", "a<|image_pad|>b<|image_pad|>c", 2, "a{4}b{4}c", ""},
		{"qwen2_vl", "text", 0, "text", ""},
		{"qwen2_vl", "a<|image_pad|>b", 2, "", `images and placeholders differ: 2 images, and 1 times "<|image_pad|>" in the prompt`},
		{"qwen2_vl", "a<|image_pad|>b", 0, "", `0 images, and 1 times`},
		{"gemma3", "a<start_of_image>b", 1, "a\n\n<start_of_image>{16}<end_of_image>\n\nb", ""},
		{"gemma3", "a<start_of_image>b<image_soft_token>", 1, "", `"<image_soft_token>" in the prompt stands for no image`},
		{"paligemma", "<image>caption", 1, "{64}<bos>caption\n", ""},
		{"paligemma", "caption", 0, "caption", ""},
	} {
		p, err := New(cases[c.family])
		if err != nil {
			t.Fatal(err)
		}
		var layouts []*Layout
		for range c.images {
			l, err := p.Layout(56, 56)
			if err != nil {
				t.Fatal(err)
			}
			layouts = append(layouts, l)
		}
		got, err := p.Expand(c.prompt, layouts)
		if c.err != "" {
			if !errors.Is(err, ErrPlaceholders) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %q: %v, expected %q", c.family, c.prompt, err, c.err)
			}
		} else if got = runs(got, p.Config.ImageToken); err != nil || got != c.want {
			t.Errorf("%s: %q: %q, %v, expected %q", c.family, c.prompt, got, err, c.want)
		}
	}
}

// What would change an image and is not understood is refused by name.
func TestRefused(t *testing.T) {
	cases := map[string]map[string]json.RawMessage{}
	for _, c := range readGolden(t, "testdata").Cases {
		cases[c.Name] = c.Files
	}
	const image, processor, config = "preprocessor_config.json", "processor_config.json", "config.json"
	for _, c := range []struct {
		family, file, key, value, err string
	}{
		{"gemma3", image, "do_sharpen", "true", "preprocessor_config.json: do_sharpen true is not supported for gemma3"},
		{"gemma3", image, "do_sharpen", "false", ""},
		{"gemma3", image, "do_pan_and_scan", "true", ""},
		{"gemma3", image, "size", `{"height": 224, "width": 224}`, "size must be 112×112"},
		{"gemma3", image, "size", `112`, ""},
		{"gemma3", image, "size", `[112, 112]`, ""},
		{"gemma3", image, "size", `"large"`, `size must be a whole number, found "large"`},
		{"gemma3", image, "resample", "0", "resample 0 is not supported"},
		{"gemma3", image, "do_resize", "false", "do_resize false is not supported"},
		{"gemma3", image, "image_std", "[0.5, 0.5, 0]", "image_std and rescale_factor must be positive"},
		{"gemma3", image, "image_mean", "[0.5]", "image_mean and image_std must be three numbers each"},
		{"gemma3", image, "image_processor_type", `"SiglipImageProcessor"`, `"SiglipImageProcessor" is not supported for this model, only Gemma3ImageProcessor`},
		{"gemma3", processor, "image_seq_length", "17", "image_seq_length is 17, but an image has 16 tokens"},
		{"gemma3", processor, "crop_to_patches", "true", "processor_config.json: crop_to_patches true is not supported"},
		{"gemma3", config, "mm_tokens_per_image", "15", "mm_tokens_per_image 15 is not a square"},
		{"gemma3", config, "vision_config", `{"image_size": 112, "patch_size": 0}`, "patch_size must be a whole number from 1"},
		{"gemma3", config, "model_type", `"mllama"`, `images are not supported for model_type "mllama", only for gemma3, gemma4`},
		{"qwen2_vl", image, "min_pixels", "0", "min_pixels must be a whole number from 1"},
		{"qwen2_vl", image, "max_pixels", "100", "size must have shortest_edge and longest_edge"},
		{"qwen2_vl", image, "merge_size", "3", "spatial_merge_size is 2, but the image processor's is 3"},
		{"qwen2_vl", image, "max_pixels", "268435456", "an image may have"},
		{"qwen2_5_vl", config, "vision_config", `{"window_size": 14}`, "window_size 14 is smaller than a merged patch"},
		{"idefics3", image, "max_image_size", `{"height": 100, "width": 100}`, "max_image_size must have longest_edge, from patch_size 14"},
		{"idefics3", config, "scale_factor", "3", "scale_factor leaves a remainder: 8 patches along an edge, merged by 3"},
		{"llava", processor, "vision_feature_select_strategy", `"full"`, `"full" is not supported for clip_vision_model`},
		{"llava", processor, "num_additional_image_tokens", "0", "num_additional_image_tokens is 0, but a clip_vision_model has 1"},
		{"llava", image, "do_pad", "true", "do_pad true is not supported for CLIPImageProcessor"},
		{"llava", image, "crop_size", "98", "crop_size must be 112×112"},
		{"llava_next", image, "image_grid_pinpoints", "[[112, 113]]", "image_grid_pinpoints must be multiples of 112"},
		{"llava_next", image, "image_grid_pinpoints", "[]", "image_grid_pinpoints must have 1 to"},
		{"internvl", config, "downsample_ratio", "0.3", "downsample_ratio must be 1 over a whole number"},
		{"internvl", image, "min_patches", "7", "min_patches 7 exceeds max_patches 6"},
		{"pixtral", image, "size", `{"longest_edge": 512}`, "size 512 exceeds the vision tower's image_size 256"},
		{"pixtral", processor, "patch_size", "8", "patch_size is 8, but an image has 16"},
		{"gemma4", config, "text_config", `{"use_bidirectional_attention": "vision", "sliding_window": 69}`, "max_soft_tokens 70 exceeds sliding_window 69"},
	} {
		files := maps.Clone(cases[c.family])
		var values map[string]json.RawMessage
		if err := json.Unmarshal(files[c.file], &values); err != nil {
			t.Fatal(err)
		}
		values[c.key] = json.RawMessage(c.value)
		text, err := json.Marshal(values)
		if err != nil {
			t.Fatal(err)
		}
		files[c.file] = text
		_, err = New(filesOf(files))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %s %s: %v, expected %q", c.family, c.key, c.value, err, c.err)
		}
	}
	if _, err := New(Files{}); err == nil {
		t.Error("no files are accepted")
	}
	if _, err := New(Files{Config: []byte(`[]`)}); err == nil || !strings.Contains(err.Error(), "config.json: not a JSON object") {
		t.Errorf("a list: %v", err)
	}
}

// sizedPNG is a PNG's header that promises an image, and no more.
func sizedPNG(width, height uint32) []byte {
	out := []byte("\x89PNG\r\n\x1a\n")
	return chunk(out, "IHDR", binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height), 8, 2, 0, 0, 0)
}

func chunk(out []byte, name string, body []byte, more ...byte) []byte {
	body = append(append([]byte(name), body...), more...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)-4))
	return binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
}

// sizedJPEG is a JPEG's header.
func sizedJPEG(width, height uint16, marker byte) []byte {
	out := binary.BigEndian.AppendUint16([]byte{0xff, markSOI, 0xff, marker, 0, 17, 8}, height)
	return append(binary.BigEndian.AppendUint16(out, width), 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0)
}

// Images that are too large are refused by their headers alone, and damage is named.
func TestDecodeRefuses(t *testing.T) {
	files := map[string][]byte{}
	for _, c := range readGolden(t, "testdata").Decoded {
		files[c.Name] = c.Data
	}
	cut := func(name string, n int) []byte { return files[name][:len(files[name])-n] }
	// 100 scans of a progressive image, all of them of no bits at all.
	scans := bytes.Clone(files["2p.jpg"])
	at := bytes.Index(scans, []byte{0xff, markSOS})
	n := bytes.Index(scans[at+2:], []byte{0xff, markDHT})
	scans = slices.Concat(scans[:at], bytes.Repeat(scans[at:at+2+n], 500), scans[at:])
	for _, c := range []struct {
		name   string
		data   []byte
		limits Limits
		kind   error
		err    string
	}{
		{"nothing", nil, Limits{}, ErrFormat, "expected PNG, JPEG, WebP, GIF or BMP"},
		{"text", []byte("hello, image"), Limits{}, ErrFormat, "expected PNG, JPEG, WebP, GIF or BMP"},
		{"HEIC", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"), Limits{}, ErrFormat, "HEIC, expected PNG"},
		{"TIFF", []byte("II*\x00\x08\x00\x00\x00"), Limits{}, ErrFormat, "TIFF, expected PNG"},
		{"SVG", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), Limits{}, ErrFormat, "SVG, expected PNG"},
		{"bytes", files["rgb.png"], Limits{Bytes: 10}, ErrTooLarge, "bytes exceed the limit of 10"},
		{"pixels", files["rgb.png"], Limits{Pixels: 23*17 - 1}, ErrTooLarge, "23×17 pixels exceed the limit of 390"},
		{"memory", files["0p.jpg"], Limits{Memory: 23 * 17 * 10}, ErrTooLarge, "decoding 23×17 pixels takes 4692 bytes of memory"},
		{"turned PNG", slices.Concat(files["rgb.png"][:33], chunk(nil, "eXIf", []byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00")), files["rgb.png"][33:]), Limits{Memory: 23 * 17 * 9}, ErrTooLarge, "decoding 23×17 pixels takes 3910 bytes of memory"},
		{"huge PNG", sizedPNG(1<<31-1, 1<<31-1), Limits{}, ErrCorrupt, "PNG"},
		{"large PNG", sizedPNG(65535, 65535), Limits{}, ErrTooLarge, "65535×65535 pixels exceed"},
		{"PNG of nothing", sizedPNG(4000, 4000), Limits{}, ErrCorrupt, "PNG"},
		{"large JPEG", sizedJPEG(65535, 65535, markSOF0), Limits{}, ErrTooLarge, "65535×65535 pixels exceed"},
		{"large progressive JPEG", sizedJPEG(6900, 6900, markSOF2), Limits{}, ErrTooLarge, "bytes of memory"},
		{"JPEG of nothing", sizedJPEG(4000, 4000, markSOF2), Limits{}, ErrCorrupt, "no image data"},
		{"empty JPEG", sizedJPEG(0, 0, markSOF0), Limits{}, ErrCorrupt, "0×0 pixels"},
		{"arithmetic JPEG", sizedJPEG(16, 16, 0xc9), Limits{}, ErrFormat, "JPEG of type SOF9"},
		{"lossless JPEG", sizedJPEG(16, 16, 0xc3), Limits{}, ErrFormat, "JPEG of type SOF3"},
		{"JPEG of 500 scans", scans, Limits{}, ErrTooLarge, "JPEG with more scans than an encoder writes"},
		{"cut PNG", cut("rgb.png", 40), Limits{}, ErrCorrupt, "PNG"},
		{"cut JPEG", cut("0.jpg", 200), Limits{}, ErrCorrupt, "JPEG: ends early"},
		{"cut WebP", cut("lossy.webp", 100), Limits{}, ErrCorrupt, "WebP"},
		{"cut GIF", cut("rgb.gif", 100), Limits{}, ErrCorrupt, "GIF"},
		{"cut BMP", cut("rgb.bmp", 100), Limits{}, ErrCorrupt, "BMP"},
	} {
		if _, err := Decode(c.data, c.limits); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.err)
		}
	}
}

// Colour profiles and EXIF, hostile or not, change nothing but the orientation.
func TestHostileMetadata(t *testing.T) {
	var plain []byte
	for _, c := range readGolden(t, "testdata").Decoded {
		if c.Name == "rgb.png" {
			plain = c.Data
		}
	}
	want, err := Decode(plain, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	const header = 33 // magic and IHDR
	profile := append([]byte("x\x00\x00"), bytes.Repeat([]byte{0xff}, 1<<20)...)
	for name, c := range map[string][]byte{
		"profile":       chunk(nil, "iCCP", profile),
		"directory":     chunk(nil, "eXIf", []byte("II*\x00\xff\xff\xff\xff")),
		"entries":       chunk(nil, "eXIf", []byte("MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12\x00\x03\x00\x00\x00\x09")),
		"itself":        chunk(nil, "eXIf", []byte("MM\x00*\x00\x00\x00\x00")),
		"orientation 9": chunk(nil, "eXIf", []byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x09\x00\x00")),
		"short":         chunk(nil, "eXIf", []byte("MM")),
		"text bomb":     chunk(nil, "zTXt", append([]byte("x\x00\x00"), bytes.Repeat([]byte{0}, 1<<16)...)),
	} {
		px, err := Decode(slices.Concat(plain[:header], c, plain[header:]), Limits{})
		if err != nil || px.Width != want.Width || !bytes.Equal(px.RGB, want.RGB) {
			t.Errorf("%s: %v, or other pixels", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range readGolden(f, "testdata").Decoded {
		f.Add(c.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		px, err := Decode(data, Limits{Pixels: 1 << 16})
		if err == nil && (px.Width < 1 || px.Height < 1 || len(px.RGB) != 3*px.Width*px.Height) {
			t.Errorf("%d×%d pixels of %d bytes", px.Width, px.Height, len(px.RGB))
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("unexpected kind of error: %v", err)
		}
		if err != nil && strings.Contains(err.Error(), "runtime error") {
			t.Errorf("the decoder panicked: %v", err)
		}
	})
}

func FuzzNew(f *testing.F) {
	for _, c := range readGolden(f, "testdata").Cases {
		x := filesOf(c.Files)
		f.Add(x.Config, x.Preprocessor, x.Processor, x.Tokenizer, uint16(300), uint16(20))
	}
	f.Fuzz(func(t *testing.T, config, image, processor, tokenizer []byte, width, height uint16) {
		p, err := New(Files{Config: config, Preprocessor: image, Processor: processor, Tokenizer: tokenizer})
		if err != nil {
			return
		}
		l, err := p.Layout(int(width), int(height))
		if err != nil {
			return
		}
		for i := range l.Tiles {
			if l.Tiles[i].Patches == 0 {
				t.Errorf("a tile without patches: %+v", l)
			}
		}
	})
}
