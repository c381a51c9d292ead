package vision

import (
	"fmt"
	"slices"
	"strings"
)

// A canvas is an image made of another one: resized, and then placed on a ground of one
// colour, which cuts off what does not fit.
type canvas struct {
	from                      int // index of a canvas before it, or original
	scaledWidth, scaledHeight int // what from is resized to
	width, height             int
	left, top                 int // of what was resized, on the ground; negative: cut off
	ground                    [3]byte
}

// original in canvas.from is the decoded image.
const original = -1

// scaled is a canvas that is from, resized.
func scaled(from, width, height int) canvas {
	return canvas{from: from, scaledWidth: width, scaledHeight: height, width: width, height: height}
}

// draw makes c of px.
func (c *canvas) draw(px *Pixels, f *filter) *Pixels {
	px = resize(px, c.scaledWidth, c.scaledHeight, f)
	if c.left == 0 && c.top == 0 && c.width == px.Width && c.height == px.Height {
		return px
	}
	out := &Pixels{Width: c.width, Height: c.height, RGB: make([]byte, 3*c.width*c.height)}
	if c.ground != [3]byte{} {
		for i := 0; i < len(out.RGB); i += 3 {
			copy(out.RGB[i:], c.ground[:])
		}
	}
	first, last := max(c.left, 0), min(c.left+px.Width, c.width)
	for y := max(c.top, 0); y < min(c.top+px.Height, c.height); y++ {
		src := px.RGB[3*(px.Width*(y-c.top)+first-c.left):]
		copy(out.RGB[3*(c.width*y+first):3*(c.width*y+last)], src)
	}
	return out
}

// A Processor is the image processor of a checkpoint.
type Processor struct {
	Config Config

	filter *filter
	levels [3][256]float32 // what the tower reads for a byte of each channel
	place  positions
	window int // side of a window in merged patches, 0: there are none
	// arrange lays out an image of a width and a height: it sets Tiles, canvases, and if
	// they are not obvious Tokens, Order, Grid.
	arrange func(l *Layout) error
	// limit lowers the tokens of an image as far as the family allows; nil: not at all.
	limit func(tokens int)
	low   int // tokens of LowDetail, if there is limit
	// prompt writes the text of a layout.
	prompt func(l *Layout) string
	// finish joins a prompt up to its last image and what follows, where they are not just
	// joined; else nil.
	finish func(images, rest string) string
}

// positions says how a tower knows where a patch is.
type positions struct {
	table   bool // by a learned table, in order
	nearest int  // by the nearest row of a learned table with this many columns and rows; 0: not
	blend   int  // by the four nearest rows of such a table; 0: not
	axes    bool // by row and column
	class   int  // 1: there is a class token, which the table has first
}

// Limit makes images smaller than the checkpoint asks for, so that they have tokens image
// tokens at most and the tower needs less memory, as max_pixels does in transformers. It
// is called before any other method. Families whose images all have one size, and minimal
// sizes that checkpoints ask for, are errors if they are larger.
func (p *Processor) Limit(tokens int) error {
	if p.limit != nil && tokens > 0 && p.Config.MaxTokens > tokens {
		p.limit(tokens)
	}
	if p.Config.MaxTokens > tokens {
		return fmt.Errorf("an image may have %d tokens, which cannot be limited to %d for this model", p.Config.MaxTokens, tokens)
	}
	return nil
}

// lowSide is the side of the square whose pixels an image of low detail has at most, where
// images have any number of them: OpenAI's.
const lowSide = 512

// LowDetail makes images as small as clients ask for by the detail "low": where the
// family's images have any number of pixels, those of lowSide × lowSide at most, and where
// they are cut into tiles, as few of those as can be. It reports whether that changes
// anything. It is called before any other method but Limit.
func (p *Processor) LowDetail() bool {
	before := p.Config.MaxTokens
	if p.limit != nil && before > p.low {
		p.limit(p.low)
	}
	return p.Config.MaxTokens < before
}

// tile appends a tile of canvas, whose width and height are in pixels.
func (p *Processor) tile(l *Layout, canvas, left, top, width, height int) {
	size, merge := p.Config.PatchSize, p.Config.MergeSize
	t := Tile{
		Rows: height / size, Columns: width / size, Merge: merge * merge, Class: p.place.class,
		canvas: canvas, left: left, top: top,
	}
	t.Patches = t.Rows * t.Columns
	if p.window != 0 {
		for y := 0; y < t.Rows/merge; y += p.window {
			for x := 0; x < t.Columns/merge; x += p.window {
				high, wide := min(p.window, t.Rows/merge-y), min(p.window, t.Columns/merge-x)
				t.Windows = append(t.Windows, int32(high*wide*t.Merge))
			}
		}
	}
	l.Tiles = append(l.Tiles, t)
}

// Layout says what becomes of an image of width and height pixels.
func (p *Processor) Layout(width, height int) (*Layout, error) {
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return nil, fmt.Errorf("%w: %d×%d pixels", ErrShape, width, height)
	}
	l := &Layout{Width: width, Height: height}
	if err := p.arrange(l); err != nil {
		return nil, err
	}
	for i := range l.canvases {
		if c := &l.canvases[i]; max(c.width*c.height, c.scaledWidth*c.scaledHeight) > maxCanvas {
			return nil, fmt.Errorf("%w: %d×%d pixels would become more than %d", ErrShape, width, height, maxCanvas)
		}
	}
	if l.Order == nil {
		for i := range l.Tiles {
			l.Tokens += l.Tiles[i].Embeds()
		}
		if p.window != 0 {
			l.Order = p.unwindow(&l.Tiles[0])
		}
	} else {
		l.Tokens = len(l.Order)
	}
	l.Prompt = p.prompt(l)
	return l, nil
}

// visit calls do with each patch's row and column in the order in which the tower reads
// them: window by window, square of merged patches by square, row by row.
func (p *Processor) visit(t *Tile, do func(i, row, column int)) {
	merge := p.Config.MergeSize
	rows, columns := t.Rows/merge, t.Columns/merge
	side := p.window
	if side == 0 {
		side = max(rows, columns)
	}
	i := 0
	for top := 0; top < rows; top += side {
		for left := 0; left < columns; left += side {
			for y := top; y < min(top+side, rows); y++ {
				for x := left; x < min(left+side, columns); x++ {
					for k := range t.Merge {
						do(i, y*merge+k/merge, x*merge+k%merge)
						i++
					}
				}
			}
		}
	}
}

// unwindow is the order of embedding rows, row by row of the image.
func (p *Processor) unwindow(t *Tile) []int32 {
	merge := p.Config.MergeSize
	order := make([]int32, t.Embeds())
	p.visit(t, func(i, row, column int) {
		if i%t.Merge == 0 {
			order[row/merge*(t.Columns/merge)+column/merge] = int32(i / t.Merge)
		}
	})
	return order
}

// Process prepares px for the vision tower. It does not change px.
func (p *Processor) Process(px *Pixels) (*Image, error) {
	l, err := p.Layout(px.Width, px.Height)
	if err != nil {
		return nil, err
	}
	drawn := make([]*Pixels, len(l.canvases))
	for i := range l.canvases {
		c, from := &l.canvases[i], px
		if c.from != original {
			from = drawn[c.from]
		}
		drawn[i] = c.draw(from, p.filter)
	}
	img := &Image{Layout: l, Inputs: make([]Input, len(l.Tiles))}
	for i := range l.Tiles {
		t := &l.Tiles[i]
		p.fill(&img.Inputs[i], t, drawn[t.canvas])
	}
	return img, nil
}

// fill reads t out of px.
func (p *Processor) fill(in *Input, t *Tile, px *Pixels) {
	c := &p.Config
	in.Patches = make([]float32, t.Len()*c.PatchWidth)
	size := c.PatchSize
	p.visit(t, func(i, row, column int) {
		patch := in.Patches[i*c.PatchWidth:][:c.PatchWidth]
		for y := range size {
			src := px.RGB[3*(px.Width*(t.top+row*size+y)+t.left+column*size):][:3*size]
			if c.ChannelsLast {
				for j, v := range src {
					patch[3*y*size+j] = p.levels[j%3][v]
				}
				continue
			}
			for channel := range 3 {
				dst := patch[channel*c.Frames*size*size+y*size:][:size]
				for x := range dst {
					dst[x] = p.levels[channel][src[3*x+channel]]
				}
			}
		}
		if !c.ChannelsLast {
			for channel := range 3 {
				frames := patch[channel*c.Frames*size*size:][:c.Frames*size*size]
				for n := size * size; n < len(frames); n += size * size {
					copy(frames[n:], frames[:size*size])
				}
			}
		}
	})
	p.locate(in, t)
}

// locate sets the positions of t's patches.
func (p *Processor) locate(in *Input, t *Tile) {
	if p.place.axes {
		in.Axes = make([]int32, 2*t.Len())
		p.visit(t, func(i, row, column int) {
			in.Axes[2*i], in.Axes[2*i+1] = int32(row), int32(column)
		})
	}
	switch {
	case p.place.table:
		in.Pos = make([]int32, t.Len())
		p.visit(t, func(i, row, column int) {
			in.Pos[i] = int32(p.place.class + row*t.Columns + column)
		})
	case p.place.nearest != 0:
		side := p.place.nearest
		rows, columns := nearest(t.Rows, side), nearest(t.Columns, side)
		in.Pos = make([]int32, t.Len())
		p.visit(t, func(i, row, column int) {
			in.Pos[i] = rows[row]*int32(side) + columns[column]
		})
	case p.place.blend != 0:
		side := p.place.blend
		in.InterpRows = make([]int32, 4*t.Len())
		in.InterpWeights = make([]float32, 4*t.Len())
		p.visit(t, func(i, row, column int) {
			y, down := between(row, t.Rows, side)
			x, right := between(column, t.Columns, side)
			for k := range 4 {
				wy, wx := 1-down, 1-right
				if k/2 == 1 {
					wy = down
				}
				if k%2 == 1 {
					wx = right
				}
				in.InterpRows[4*i+k] = int32(min(y+k/2, side-1)*side + min(x+k%2, side-1))
				in.InterpWeights[4*i+k] = wy * wx
			}
		})
	}
}

// nearest maps n places of an axis to those of a table that has side of them, as Idefics 3
// does it: in float32, where the order of operations decides between neighbours.
func nearest(n, side int) []int32 {
	step := 1 / float64(side)
	var bounds []float32 // like torch.arange(step, 1, step)
	for i := 0; i < side && step+float64(i)*step < 1; i++ {
		bounds = append(bounds, float32(step+float64(i)*step))
	}
	at := make([]int32, n)
	for i := range at {
		x := min(float32(i)*(1/float32(n)), float32(1-1e-6))
		place, found := slices.BinarySearch(bounds, x)
		if found {
			place++
		}
		at[i] = int32(place)
	}
	return at
}

// between maps place i of n to the places of a table that has side of them, the ends to
// the ends: it lies after the place returned, by a part of the distance to the next.
func between(i, n, side int) (place int, part float32) {
	at := float32(i*(side-1)) / float32(max(n-1, 1))
	place = int(at)
	return place, at - float32(place)
}

// Expand replaces the placeholders of a prompt, one for each layout, in order. A prompt
// without images stays as it is.
func (p *Processor) Expand(prompt string, layouts []*Layout) (string, error) {
	mark, token := p.Config.Placeholder, p.Config.ImageToken
	if mark != token && strings.Contains(prompt, token) {
		return "", fmt.Errorf("%w: %q in the prompt stands for no image", ErrPlaceholders, token)
	}
	if n := strings.Count(prompt, mark); n != len(layouts) {
		return "", fmt.Errorf("%w: %d images, and %d times %q in the prompt", ErrPlaceholders, len(layouts), n, mark)
	}
	if len(layouts) == 0 {
		return prompt, nil
	}
	var b strings.Builder
	for _, l := range layouts {
		before, after, _ := strings.Cut(prompt, mark)
		b.WriteString(before)
		b.WriteString(l.Prompt)
		prompt = after
	}
	if p.finish != nil {
		return p.finish(b.String(), prompt), nil
	}
	b.WriteString(prompt)
	return b.String(), nil
}
