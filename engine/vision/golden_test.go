package vision

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden is testdata/goldens.json; goldens.py describes it.
type golden struct {
	Cases []struct {
		Name   string
		Files  map[string]json.RawMessage
		Images []goldenImage
	}
	Decoded []struct {
		Name          string
		Data, RGB     []byte
		Width, Height int
	}
	Nearest []struct {
		N, Side int
		Places  []int32
	}
	Qwen []struct {
		Rows, Columns, Side, Window int
		Axes, IDs, Order, Windows   []int32
		Weights                     []float32
	}
}

type goldenImage struct {
	Width, Height, Seed int
	File, Prompt, Raw   string
	Tiles               [3]int
	Values              [][2]float64
}

func readGolden(t testing.TB, folder string) *golden {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "goldens.json"))
	if err != nil {
		t.Fatal(err)
	}
	g := &golden{}
	if err := json.Unmarshal(text, g); err != nil {
		t.Fatal(err)
	}
	return g
}

// picture is pixels of goldens.py.
func picture(width, height, seed int) *Pixels {
	px := &Pixels{Width: width, Height: height, RGB: make([]byte, 3*width*height)}
	for i := range px.RGB {
		x, y := i/3%width, i/3/width
		slope := [3]int{x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)}[i%3]
		edge := 0
		if (x/7+y/5+seed)%3 == 0 {
			edge = 96
		}
		noise := (uint64(i) + uint64(seed)) * 2654435761 >> 13 & 63
		px.RGB[i] = byte(slope + edge + int(noise))
	}
	return px
}

func filesOf(files map[string]json.RawMessage) Files {
	return Files{
		Config: files["config.json"], Preprocessor: files["preprocessor_config.json"],
		Processor: files["processor_config.json"], Tokenizer: files["tokenizer_config.json"],
	}
}

// unpatched is a tile as [3][height][width], as transformers has it before it is cut up.
func unpatched(p *Processor, t *Tile, in *Input) []float32 {
	size := p.Config.PatchSize
	width, height := t.Columns*size, t.Rows*size
	out := make([]float32, 3*width*height)
	p.visit(t, func(i, row, column int) {
		patch := in.Patches[i*p.Config.PatchWidth:][:p.Config.PatchWidth]
		for channel := range 3 {
			for y := range size {
				for x := range size {
					at := channel*p.Config.Frames*size*size + y*size + x
					if p.Config.ChannelsLast {
						at = (y*size+x)*3 + channel
					}
					out[(channel*height+row*size+y)*width+column*size+x] = patch[at]
				}
			}
		}
	})
	return out
}

// runs writes runs of image tokens as {count}.
func runs(prompt, token string) string {
	var b strings.Builder
	for prompt != "" {
		n := 0
		for strings.HasPrefix(prompt, token) {
			prompt = prompt[len(token):]
			n++
		}
		if n > 0 {
			fmt.Fprintf(&b, "{%d}", n)
			continue
		}
		b.WriteByte(prompt[0])
		prompt = prompt[1:]
	}
	return b.String()
}

// Every family's pixels and prompts are those of transformers. MILLRACE_VISION_GOLDENS
// names a folder with more images than are committed.
func TestTransformers(t *testing.T) {
	folder, tolerance := "testdata", 1e-5
	if f := os.Getenv("MILLRACE_VISION_GOLDENS"); f != "" {
		folder, tolerance = f, 1e-3
	}
	for _, c := range readGolden(t, folder).Cases {
		t.Run(c.Name, func(t *testing.T) {
			p, err := New(filesOf(c.Files))
			if err != nil {
				t.Fatal(err)
			}
			largest, exact := 0.0, 0
			for _, want := range c.Images {
				diff, err := compare(p, folder, &want)
				if err != nil {
					t.Errorf("%d×%d %s: %v", want.Width, want.Height, want.File, err)
				}
				if diff > tolerance {
					t.Errorf("%d×%d %s: pixels differ by up to %.2g", want.Width, want.Height, want.File, diff)
				} else {
					exact++
				}
				largest = max(largest, diff)
			}
			t.Logf("%d images, %d within %v, largest difference %.2g", len(c.Images), exact, tolerance, largest)
		})
	}
}

// compare returns the largest difference to want, and fails for all else that differs.
func compare(p *Processor, folder string, want *goldenImage) (diff float64, err error) {
	var px *Pixels
	if want.File == "" {
		px = picture(want.Width, want.Height, want.Seed)
	} else {
		data, err := os.ReadFile(filepath.Join(folder, want.File))
		if err != nil {
			return 0, err
		}
		if px, err = Decode(data, Limits{}); err != nil {
			return 0, err
		}
	}
	img, err := p.Process(px)
	if err != nil {
		return 0, err
	}
	if got := runs(img.Prompt, p.Config.ImageToken); got != want.Prompt {
		return 0, fmt.Errorf("prompt %q, expected %q", got, want.Prompt)
	}
	if n := strings.Count(img.Prompt, p.Config.ImageToken); n != img.Tokens || n > p.Config.MaxTokens {
		return 0, fmt.Errorf("%d image tokens in the prompt, %d in the layout, at most %d", n, img.Tokens, p.Config.MaxTokens)
	}
	if len(img.Tiles) != want.Tiles[0] {
		return 0, fmt.Errorf("%d tiles, expected %d", len(img.Tiles), want.Tiles[0])
	}
	var got []float32
	for i := range img.Tiles {
		t := &img.Tiles[i]
		if size := p.Config.PatchSize; t.Rows*size != want.Tiles[1] || t.Columns*size != want.Tiles[2] {
			return 0, fmt.Errorf("tile of %d×%d patches, expected %d×%d pixels in whole ones", t.Columns, t.Rows, want.Tiles[2], want.Tiles[1])
		}
		if t.Len() > p.Config.MaxTile {
			return 0, fmt.Errorf("tile of %d rows, expected at most %d", t.Len(), p.Config.MaxTile)
		}
		// Idefics puts the whole image last, as here; others first, as here.
		got = append(got, unpatched(p, t, &img.Inputs[i])...)
	}
	values := want.Values
	if want.Raw != "" {
		raw, err := os.ReadFile(filepath.Join(folder, want.Raw))
		if err != nil {
			return 0, err
		}
		all := make([]float32, len(raw)/4)
		if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, all); err != nil {
			return 0, err
		}
		if len(all) != len(got) {
			return 0, fmt.Errorf("%d values, expected %d", len(got), len(all))
		}
		for i, v := range all {
			diff = max(diff, math.Abs(float64(v-got[i])))
		}
	}
	for _, v := range values {
		diff = max(diff, math.Abs(v[1]-float64(got[int(v[0])])))
	}
	return diff, nil
}

// Positions of patches are those that the towers compute in transformers.
func TestPositions(t *testing.T) {
	g := readGolden(t, "testdata")
	if len(g.Nearest) == 0 || len(g.Qwen) == 0 {
		t.Fatal("no goldens")
	}
	for _, n := range g.Nearest {
		if got := nearest(n.N, n.Side); !slices.Equal(got, n.Places) {
			t.Errorf("%d patches in a table of %d: %v, expected %v", n.N, n.Side, got, n.Places)
		}
	}
	for _, q := range g.Qwen {
		p := &Processor{Config: Config{PatchSize: 14, MergeSize: 2, Frames: 2}, place: positions{axes: true, blend: q.Side}}
		l := &Layout{}
		p.tile(l, 0, 0, 0, 14*q.Columns, 14*q.Rows)
		in := &Input{}
		p.locate(in, &l.Tiles[0])
		if !slices.Equal(in.Axes, q.Axes) || !slices.Equal(in.InterpRows, q.IDs) {
			t.Errorf("%d×%d patches: rows and columns %v of table rows %v, expected %v and %v", q.Rows, q.Columns, in.Axes, in.InterpRows, q.Axes, q.IDs)
		}
		for i, w := range q.Weights {
			if math.Abs(float64(w-in.InterpWeights[i])) > 2e-6 {
				t.Errorf("%d×%d patches: weight %d is %v, expected %v", q.Rows, q.Columns, i, in.InterpWeights[i], w)
				break
			}
		}

		p.window = q.Window
		l = &Layout{}
		p.tile(l, 0, 0, 0, 14*q.Columns, 14*q.Rows)
		order := make([]int32, len(q.Order)) // the inverse of transformers'
		for i, at := range q.Order {
			order[at] = int32(i)
		}
		if got := p.unwindow(&l.Tiles[0]); !slices.Equal(got, order) || !slices.Equal(l.Tiles[0].Windows, q.Windows) {
			t.Errorf("%d×%d patches: order %v, windows %v, expected %v and %v", q.Rows, q.Columns, got, l.Tiles[0].Windows, order, q.Windows)
		}
	}
}

// What files decode to is what Pillow reads, to the last bit.
func TestDecode(t *testing.T) {
	g := readGolden(t, "testdata")
	if len(g.Decoded) == 0 {
		t.Fatal("no goldens")
	}
	for _, c := range g.Decoded {
		px, err := Decode(c.Data, Limits{})
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if px.Width != c.Width || px.Height != c.Height {
			t.Errorf("%s: %d×%d pixels, expected %d×%d", c.Name, px.Width, px.Height, c.Width, c.Height)
			continue
		}
		for i, v := range c.RGB {
			if px.RGB[i] != v {
				t.Errorf("%s: byte %d is %d, expected %d", c.Name, i, px.RGB[i], v)
				break
			}
		}
	}
}
