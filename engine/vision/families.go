package vision

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// whole makes p resize every image to side × side, as one tile.
func (p *Processor) whole(side int) {
	p.arrange = func(l *Layout) error {
		l.canvases = []canvas{scaled(original, side, side)}
		p.tile(l, 0, 0, 0, side, side)
		return nil
	}
}

// merged checks that merge divides the patches along an edge of side pixels.
func (c *checkpoint) merged(p *Processor, key string, side, merge int) {
	if n := side / p.Config.PatchSize; n%merge != 0 {
		c.config.fail(key, "leaves a remainder: %d patches along an edge, merged by %d", n, merge)
		return
	}
	p.Config.MergeSize = merge
}

// same checks that the tower's config has under key what the image processor has; def is
// the tower's default.
func (c *checkpoint) same(key string, def, image int) {
	if n := c.tower.side(key, def); n != image {
		c.tower.fail(key, "is %d, but the image processor's is %d", n, image)
	}
}

// length checks that a tile has as many image tokens as the processor says under key.
func (c *checkpoint) length(s *settings, key string, tokens int) {
	if n := s.integer(key, tokens, 0, math.MaxInt32); n != tokens {
		s.fail(key, "is %d, but an image has %d tokens", n, tokens)
	}
}

// Gemma 3: one square, patches pooled by average. Pan and scan, which is off by default in
// transformers and which no checkpoint asks for, is not done.
func readGemma3(c *checkpoint, p *Processor) {
	c.kind("Gemma3ImageProcessor")
	for _, key := range []string{"pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate"} {
		delete(c.image.values, key)
	}
	delete(c.image.values, "do_pan_and_scan") // the processor sets it, whatever the file says
	c.common(p, bilinear, half, half)
	side := c.patch(p, 224, 16)
	c.sized(c.image.size("size", true, size{height: 224, width: 224}), side)
	tokens := c.config.integer("mm_tokens_per_image", 256, 1, maxPixelCount)
	edge := int(math.Sqrt(float64(tokens)))
	patches := side / p.Config.PatchSize
	if edge*edge != tokens || patches%edge != 0 {
		c.config.fail("mm_tokens_per_image", "%d is not a square that divides %d patches along an edge", tokens, patches)
		return
	}
	p.Config.MergeSize = patches / edge
	c.length(c.image, "image_seq_length", tokens)
	c.length(c.processor, "image_seq_length", tokens)

	p.place.table = true
	p.Config.Bidirectional = WithinImage
	p.Config.Placeholder = c.special("boi_token", "<start_of_image>")
	p.Config.ImageToken = c.special("image_token", "<image_soft_token>")
	end := c.special("eoi_token", "<end_of_image>")
	p.prompt = func(l *Layout) string {
		return "\n\n" + p.Config.Placeholder + p.repeat(l) + end + "\n\n"
	}
	p.whole(side)
	p.bound(patches*patches, tokens)
}

// sized checks that images become squares of the side that the tower was trained on.
func (c *checkpoint) sized(z size, side int) {
	if z != (size{height: side, width: side}) {
		c.image.fail("size", "must be %d×%d, as the vision tower's image_size", side, side)
	}
}

// PaliGemma: one square. Expand ends a prompt like its processor, with a line break, and
// begins the text with the beginning of a sequence.
func readPaliGemma(c *checkpoint, p *Processor) {
	c.kind("SiglipImageProcessor")
	c.common(p, bicubic, half, half)
	side := c.patch(p, 224, 14)
	c.sized(c.image.size("size", true, size{height: 224, width: 224}), side)
	patches := side / p.Config.PatchSize
	c.length(c.image, "image_seq_length", patches*patches)
	p.place.table = true
	p.Config.Bidirectional = WholePrompt
	p.Config.Prefixed = true
	p.tokens(c.special("image_token", "<image>"))
	begin := c.special("bos_token", "<bos>")
	p.prompt = p.repeat
	p.finish = func(images, rest string) string { return images + begin + rest + "\n" }
	p.whole(side)
	p.bound(patches*patches, patches*patches)
}

// Qwen 2 VL and those after it: an image keeps its shape, in steps of merged patches, and
// its number of pixels within limits.
func readQwen(c *checkpoint, p *Processor) {
	c.kind("Qwen2VLImageProcessor")
	family := p.Config.Family
	old := family == "qwen2_vl" || family == "qwen2_5_vl"
	patch := 16
	if old {
		patch = 14
	}
	c.common(p, bicubic, clipMean, clipStd)
	z := c.image.size("size", false, size{shortestEdge: 56 * 56, longestEdge: 28 * 28 * 1280})
	least := c.image.integer("min_pixels", max(z.shortestEdge, z.minPixels), 1, maxPixelCount)
	most := c.image.integer("max_pixels", max(z.longestEdge, z.maxPixels), 1, maxPixelCount)
	if z.height != 0 || least == 0 || most < least {
		c.image.fail("size", "must have shortest_edge and longest_edge, in pixels of area, the second not less")
		return
	}
	p.Config.PatchSize = c.image.side("patch_size", 14)
	p.Config.MergeSize = c.image.side("merge_size", 2)
	p.Config.Frames = c.image.integer("temporal_patch_size", 2, 1, 16)
	c.same("patch_size", patch, p.Config.PatchSize)
	c.same("spatial_merge_size", 2, p.Config.MergeSize)
	c.same("temporal_patch_size", 2, p.Config.Frames)
	if n := c.tower.integer("in_channels", c.tower.integer("in_chans", 3, 1, 1<<10), 1, 1<<10); n != 3 {
		c.tower.fail("in_channels", "must be 3, found %d", n)
	}
	factor := p.Config.PatchSize * p.Config.MergeSize

	p.place.axes = true
	switch {
	case family == "qwen2_5_vl":
		window := c.tower.side("window_size", 112)
		if p.window = window / p.Config.MergeSize / p.Config.PatchSize; p.window < 1 {
			c.tower.fail("window_size", "%d is smaller than a merged patch", window)
			return
		}
	case !old:
		rows := c.tower.integer("num_position_embeddings", 2304, 1, maxPixelCount)
		if p.place.blend = int(math.Sqrt(float64(rows))); p.place.blend*p.place.blend != rows {
			c.tower.fail("num_position_embeddings", "must be a square, found %d", rows)
		}
	}
	p.tokens(c.special("image_token", "<|image_pad|>"))
	p.prompt = p.repeat
	p.arrange = func(l *Layout) error {
		width, height, err := smartResize(l.Width, l.Height, factor, least, most)
		if err != nil {
			return err
		}
		l.canvases = []canvas{scaled(original, width, height)}
		p.tile(l, 0, 0, 0, width, height)
		l.Grid = [3]int{1, height / factor, width / factor}
		return nil
	}
	bound := func() {
		// The largest areas are those of an image so long that its short side is rounded up to
		// one step, and of one so small that both sides are rounded up.
		f, longest := float64(factor), math.Sqrt(maxAspect*float64(most))
		area := max(float64(most), f*longest, float64(least)+f*(maxAspect+1)/math.Sqrt(maxAspect)*math.Sqrt(float64(least))+f*f)
		tile := int(area) / p.Config.PatchSize / p.Config.PatchSize
		p.bound(tile, tile/p.Config.MergeSize/p.Config.MergeSize)
	}
	bound()
	p.limit = func(tokens int) {
		most = max(min(most, tokens*factor*factor), least)
		bound()
	}
	p.low = lowSide / factor * (lowSide / factor)
}

// maxAspect is how many times as long as wide an image for Qwen may be.
const maxAspect = 200

// smartResize rounds an image's sides to multiples of factor, its area within least and
// most, its shape as it was.
func smartResize(width, height, factor, least, most int) (w, h int, err error) {
	if max(width, height) > maxAspect*min(width, height) {
		return 0, 0, fmt.Errorf("%w: %d×%d pixels, one side is more than %d times the other", ErrShape, width, height, maxAspect)
	}
	f := float64(factor)
	h = int(math.RoundToEven(float64(height)/f)) * factor
	w = int(math.RoundToEven(float64(width)/f)) * factor
	if area := float64(height) * float64(width); h*w > most {
		beta := math.Sqrt(area / float64(most))
		h = max(factor, int(math.Floor(float64(height)/beta/f))*factor)
		w = max(factor, int(math.Floor(float64(width)/beta/f))*factor)
	} else if h*w < least {
		beta := math.Sqrt(float64(least) / area)
		h = int(math.Ceil(float64(height)*beta/f)) * factor
		w = int(math.Ceil(float64(width)*beta/f)) * factor
	}
	if h == 0 || w == 0 { // transformers fails here too, as nothing can be resized to it
		return 0, 0, fmt.Errorf("%w: %d×%d pixels, a side would be rounded to 0", ErrShape, width, height)
	}
	return w, h, nil
}

// Idefics 3 and SmolVLM: an image is cut into squares, which are followed by the whole
// image as one more. Each has its row and column in the prompt.
func readIdefics3(c *checkpoint, p *Processor) {
	c.kind("Idefics3ImageProcessor", "SmolVLMImageProcessor")
	c.common(p, lanczos, half, half)
	delete(c.image.values, "do_pad") // tiles are of one size
	z := c.image.size("size", true, size{longestEdge: 4 * 364})
	edge := z.longestEdge
	if (edge == 0) == (z.height == 0) || z.shortestEdge != 0 || z.minPixels != 0 {
		c.image.fail("size", "must have longest_edge, or height and width")
	}
	m := c.image.size("max_image_size", true, size{longestEdge: 364})
	side := m.longestEdge
	split := c.image.boolean("do_image_splitting", true)
	table := c.patch(p, 224, 32) / p.Config.PatchSize
	if side > maxSide || side < p.Config.PatchSize {
		c.image.fail("max_image_size", "must have longest_edge, from patch_size %d to %d", p.Config.PatchSize, maxSide)
		return
	}
	c.merged(p, "scale_factor", side, c.config.side("scale_factor", 2))
	patches := side / p.Config.PatchSize
	tokens := patches / p.Config.MergeSize * (patches / p.Config.MergeSize)
	c.length(c.processor, "image_seq_len", tokens)
	p.place.nearest = table
	p.tokens(c.special("image_token", "<image>"))
	around, global := "<fake_token_around_image>", "<global-img>"
	if p.Config.Family == "smolvlm" {
		around, global = c.special("fake_image_token", around), c.special("global_image_token", global)
	}

	p.arrange = func(l *Layout) error {
		width, height := z.width, z.height
		if edge != 0 {
			width, height = longest(l.Width, l.Height, edge)
		}
		l.canvases = []canvas{scaled(original, width, height)}
		columns, rows := 0, 0
		if split {
			// Up to whole squares, the longer side first.
			ratio := float64(width) / float64(height)
			if width >= height {
				width = up(width, side)
				height = up(int(float64(width)/ratio), side)
			} else {
				height = up(height, side)
				width = up(int(float64(height)*ratio), side)
			}
			if columns, rows = width/side, height/side; columns == 1 && rows == 1 {
				columns, rows = 0, 0
			}
			if rows*columns > maxTiles || min(height, width) == 0 {
				return fmt.Errorf("%w: %d×%d pixels would be cut into %d×%d squares", ErrShape, l.Width, l.Height, columns, rows)
			}
			l.canvases = append(l.canvases, scaled(0, width, height))
			for row := range rows {
				for column := range columns {
					p.tile(l, 1, column*side, row*side, side, side)
				}
			}
		}
		l.canvases = append(l.canvases, scaled(len(l.canvases)-1, side, side))
		p.tile(l, len(l.canvases)-1, 0, 0, side, side)
		l.columns = columns
		return nil
	}
	p.prompt = func(l *Layout) string {
		image := strings.Repeat(p.Config.ImageToken, tokens)
		if l.columns == 0 {
			return around + global + image + around
		}
		var b strings.Builder
		for i := range len(l.Tiles) - 1 {
			fmt.Fprintf(&b, "%s<row_%d_col_%d>%s", around, i/l.columns+1, i%l.columns+1, image)
			if (i+1)%l.columns == 0 {
				b.WriteByte('\n')
			}
		}
		return b.String() + "\n" + around + global + image + around
	}
	bound := func() {
		tiles := 1
		if split {
			tiles += up(max(edge, z.width), side) / side * (up(max(edge, z.height), side) / side)
		}
		p.bound(patches*patches, tiles*tokens)
	}
	bound()
	p.limit = func(int) {
		split = false
		bound()
	}
	p.low = tokens
}

// up is n rounded up to a multiple of step.
func up(n, step int) int { return (n + step - 1) / step * step }

// longest scales an image so that its longer side is edge, and the other one even; as
// Idefics 3 does, within 4096.
func longest(width, height, edge int) (w, h int) {
	const most = 4096
	ratio := float64(width) / float64(height)
	if width >= height {
		w = edge
		h = int(float64(w) / ratio)
		h += h % 2
	} else {
		h = edge
		w = int(float64(h) * ratio)
		w += w % 2
	}
	w, h = max(w, 1), max(h, 1)
	ratio = float64(w) / float64(h)
	if w >= h && w > most {
		w, h = most, int(most/ratio)
	} else if h > w && h > most {
		w, h = int(most*ratio), most
	}
	return max(w, 1), max(h, 1)
}

// InternVL: an image is cut into as many squares as suit its shape, followed by the whole
// image as one more.
func readInternVL(c *checkpoint, p *Processor) {
	c.kind("GotOcr2ImageProcessor")
	c.common(p, bicubic, clipMean, clipStd)
	delete(c.image.values, "crop_to_patches") // the processor sets it, whatever the file says
	side := c.patch(p, 448, 14)
	c.sized(c.image.size("size", true, size{height: 384, width: 384}), side)
	least := c.image.integer("min_patches", 1, 1, maxTiles)
	most := c.image.integer("max_patches", 12, 1, maxTiles)
	if least > most {
		c.image.fail("min_patches", "%d exceeds max_patches %d", least, most)
	}
	ratio := 0.5
	c.config.get("downsample_ratio", "a number", &ratio)
	merge := int(math.Round(1 / ratio))
	if ratio <= 0 || ratio > 1 || float64(merge)*ratio != 1 {
		c.config.fail("downsample_ratio", "must be 1 over a whole number, found %v", ratio)
		return
	}
	c.merged(p, "downsample_ratio", side, merge)
	if s := c.config.text("vision_feature_select_strategy", "default"); s != "default" {
		c.config.fail("vision_feature_select_strategy", "%q is not supported, only \"default\"", s)
	}
	patches := side / p.Config.PatchSize
	tokens := patches / merge * (patches / merge)
	c.length(c.processor, "image_seq_length", tokens)
	p.place.table, p.place.class = true, 1
	p.tokens(c.special("context_image_token", "<IMG_CONTEXT>"))
	begin, end := c.special("start_image_token", "<img>"), c.special("end_image_token", "</img>")
	p.prompt = func(l *Layout) string { return begin + p.repeat(l) + end }
	p.arrange = func(l *Layout) error {
		columns, rows := tiling(l.Width, l.Height, side, least, most)
		l.canvases = []canvas{scaled(original, columns*side, rows*side)}
		for row := range rows {
			for column := range columns {
				p.tile(l, 0, column*side, row*side, side, side)
			}
		}
		if columns*rows != 1 {
			l.canvases = append(l.canvases, scaled(original, side, side))
			p.tile(l, 1, 0, 0, side, side)
		}
		return nil
	}
	bound := func() {
		tiles := most
		if most > 1 {
			tiles++ // the whole image
		}
		p.bound(patches*patches, tiles*tokens)
	}
	bound()
	p.limit = func(limit int) {
		most = max(min(most, limit/tokens-1), least)
		bound()
	}
	p.low = tokens
}

// tiling is the grid of least to most squares whose shape is nearest to the image's. Of
// equals the larger one wins, unless it is more than twice the image.
func tiling(width, height, side, least, most int) (columns, rows int) {
	columns, rows = 1, 1
	ratio := float64(width) / float64(height)
	best := math.Inf(1)
	// By area, and then by width.
	for area := least; area <= most; area++ {
		for w := 1; w <= area; w++ {
			if area%w != 0 {
				continue
			}
			h := area / w
			diff := math.Abs(ratio - float64(w)/float64(h))
			if diff < best {
				best, columns, rows = diff, w, h
			} else if diff == best && float64(width*height) > 0.5*float64(side)*float64(side)*float64(w)*float64(h) {
				columns, rows = w, h
			}
		}
	}
	return columns, rows
}

// LLaVA: one square out of the middle of an image. With a Pixtral tower an image keeps its
// shape.
func readLlava(c *checkpoint, p *Processor) {
	tower := c.tower.text("model_type", "clip_vision_model")
	if tower == "pixtral" {
		readPixtral(c, p)
		return
	}
	kind := c.kind("LlavaImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor")
	if kind == "SiglipImageProcessor" {
		c.common(p, bicubic, half, half)
	} else {
		c.common(p, bicubic, clipMean, clipStd)
	}
	side := c.clip(p, tower)
	pad := c.image.boolean("do_pad", false)
	if pad && kind != "LlavaImageProcessor" {
		c.image.fail("do_pad", "true is not supported for %s", kind)
	}
	var ground [3]byte
	if pad && *c.err == nil {
		for i := range ground {
			ground[i] = byte(min(max(c.mean[i]*255, 0), 255))
		}
	}
	z, crop := c.cropped(kind != "SiglipImageProcessor")
	if crop != side {
		c.image.fail("crop_size", "must be %d×%d, as the vision tower's image_size", side, side)
	}
	p.prompt = p.repeat
	p.arrange = func(l *Layout) error {
		width, height, from := l.Width, l.Height, original
		if pad && width != height {
			edge := max(width, height)
			l.canvases = append(l.canvases, canvas{
				from: original, scaledWidth: width, scaledHeight: height, width: edge, height: edge,
				left: (edge - width) / 2, top: (edge - height) / 2, ground: ground,
			})
			width, height, from = edge, edge, 0
		}
		if z.shortestEdge != 0 {
			width, height = shortest(width, height, z.shortestEdge)
		} else {
			width, height = z.width, z.height
		}
		l.canvases = append(l.canvases, canvas{
			from: from, scaledWidth: width, scaledHeight: height, width: side, height: side,
			left: centre(width, side), top: centre(height, side),
		})
		p.tile(l, len(l.canvases)-1, 0, 0, side, side)
		return nil
	}
	patches := side / p.Config.PatchSize
	p.bound(patches*patches, patches*patches)
}

// centre is where something of length lies in a frame of side, in its middle: cut off on
// both sides, or with ground on both.
func centre(length, side int) int {
	if length >= side {
		return -((length - side) / 2)
	}
	return (side - length) / 2
}

// clip reads a CLIP or SigLIP tower whose class token, if there is one, is dropped.
func (c *checkpoint) clip(p *Processor, tower string) (side int) {
	strategy := c.config.text("vision_feature_select_strategy", "default")
	strategy = c.processor.text("vision_feature_select_strategy", strategy)
	imageSize, patchSize := 224, 16
	switch tower {
	case "clip_vision_model":
		imageSize, patchSize = 224, 32
		if len(c.tower.values) == 0 {
			imageSize, patchSize = 336, 14
		}
		p.place.class = 1
		if strategy != "default" {
			c.config.fail("vision_feature_select_strategy", "%q is not supported for %s, only \"default\"", strategy, tower)
		}
	case "siglip_vision_model":
		if strategy != "full" {
			c.config.fail("vision_feature_select_strategy", "%q is not supported for %s, only \"full\"", strategy, tower)
		}
	default:
		c.tower.fail("model_type", "%q is not supported for this model", tower)
	}
	p.place.table = true
	side = c.patch(p, imageSize, patchSize)
	c.length(c.processor, "patch_size", p.Config.PatchSize)
	if n := c.processor.integer("num_additional_image_tokens", p.place.class, 0, 16); n != p.place.class {
		c.processor.fail("num_additional_image_tokens", "is %d, but a %s has %d", n, tower, p.place.class)
	}
	p.tokens(c.special("image_token", c.processor.text("image_token", "<image>")))
	delete(c.processor.values, "image_token")
	return side
}

// cropped reads what images are resized to, and the side of the square that is then cut
// out of the middle.
func (c *checkpoint) cropped(crop bool) (z size, side int) {
	z = c.image.size("size", false, size{shortestEdge: 224})
	cut := c.image.square("crop_size", 224)
	if !c.image.boolean("do_center_crop", crop) {
		cut = z.height
	}
	if (z.shortestEdge == 0) == (z.height == 0) || z.longestEdge != 0 || z.minPixels != 0 || z.height != z.width {
		c.image.fail("size", "must have shortest_edge, or height and width that are equal")
	} else if cut == 0 {
		c.image.fail("do_center_crop", "false needs a size with height and width")
	}
	return z, cut
}

// shortest scales an image so that its shorter side is edge.
func shortest(width, height, edge int) (w, h int) {
	long := int(float64(edge) * float64(max(width, height)) / float64(min(width, height)))
	if width <= height {
		return edge, long
	}
	return long, edge
}

// LLaVA-NeXT: the whole image as one square, and then as many squares as the best of some
// resolutions has. Of those only what is not padding goes into the prompt, each line
// followed by a row that says so.
func readLlavaNext(c *checkpoint, p *Processor) {
	c.kind("LlavaNextImageProcessor")
	c.common(p, bicubic, clipMean, clipStd)
	for _, key := range []string{"do_pad", "aspect_ratio_setting"} { // of batches; of training
		delete(c.image.values, key)
	}
	side := c.clip(p, c.tower.text("model_type", "clip_vision_model"))
	z, crop := c.cropped(true)
	if crop != side || max(z.shortestEdge, z.height) != side {
		c.image.fail("crop_size", "and size must be %d, as the vision tower's image_size", side)
	}
	pinpoints := [][2]int{{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}}
	c.config.get("image_grid_pinpoints", "a list of heights and widths", &pinpoints)
	c.image.get("image_grid_pinpoints", "a list of heights and widths", &pinpoints)
	squares := func(r [2]int) int { return r[0] / side * (r[1] / side) }
	tiles := 0
	for _, r := range pinpoints {
		if min(r[0], r[1]) < 1 || max(r[0], r[1]) > maxSide || r[0]%side != 0 || r[1]%side != 0 {
			c.image.fail("image_grid_pinpoints", "must be multiples of %d, found %v", side, r)
			return
		}
		tiles = max(tiles, squares(r))
	}
	if tiles == 0 || tiles > maxTiles {
		c.image.fail("image_grid_pinpoints", "must have 1 to %d squares", maxTiles)
		return
	}
	patches := side / p.Config.PatchSize
	p.prompt = p.repeat
	p.arrange = func(l *Layout) error {
		wide, high, ok := best(l.Width, l.Height, pinpoints)
		if !ok {
			return fmt.Errorf("%w: %d×%d pixels suit no resolution of image_grid_pinpoints", ErrShape, l.Width, l.Height)
		}
		width, height := wide, high
		if scaleX, scaleY := float64(wide)/float64(l.Width), float64(high)/float64(l.Height); scaleX < scaleY {
			height = min(int(math.Ceil(float64(l.Height)*scaleX)), high)
		} else {
			width = min(int(math.Ceil(float64(l.Width)*scaleY)), wide)
		}
		l.canvases = []canvas{
			scaled(original, side, side),
			{
				from: original, scaledWidth: width, scaledHeight: height, width: wide, height: high,
				left: (wide - width) / 2, top: (high - height) / 2,
			},
		}
		p.tile(l, 0, 0, 0, side, side)
		for top := 0; top < high; top += side {
			for left := 0; left < wide; left += side {
				p.tile(l, 1, left, top, side, side)
			}
		}
		l.Order = unpadded(l.Width, l.Height, patches, wide/side, high/side)
		return nil
	}
	most := func(tiles int) int { return patches*patches + patches*patches*tiles + patches*tiles }
	p.bound(patches*patches, most(tiles))
	p.limit = func(tokens int) {
		// Those that fit, or the smallest if none does.
		least := tiles
		for _, r := range pinpoints {
			least = min(least, squares(r))
		}
		tiles = least
		pinpoints = slices.DeleteFunc(slices.Clone(pinpoints), func(r [2]int) bool {
			n := squares(r)
			fits := n == least || most(n) <= tokens
			if fits {
				tiles = max(tiles, n)
			}
			return !fits
		})
		p.bound(patches*patches, most(tiles))
	}
	p.low = 1 // the smallest
}

// best is the resolution that shows the most of an image and wastes the least.
func best(width, height int, pinpoints [][2]int) (w, h int, ok bool) {
	most, least := 0, math.MaxInt
	for _, r := range pinpoints {
		scale := min(float64(r[1])/float64(width), float64(r[0])/float64(height))
		shown := min(int(float64(width)*scale)*int(float64(height)*scale), width*height)
		wasted := r[0]*r[1] - shown
		if shown > most || shown == most && wasted < least && ok {
			most, least, w, h, ok = shown, wasted, r[1], r[0], true
		}
	}
	return w, h, ok
}

// unpadded is the order of embedding rows of an image that is one square, and then
// columns × rows squares of side × side rows.
func unpadded(width, height, side, columns, rows int) []int32 {
	wide, high := columns*side, rows*side
	left, top := 0, 0
	// What is within 5e-8 of a whole number is one, as transformers rounds to 7 digits. The
	// conversions keep products from being fused with sums.
	const nudge = 5e-8
	if float64(width)/float64(height) > float64(wide)/float64(high) {
		top = (high - int(float64(float64(height)*(float64(wide)/float64(width)))+nudge)) / 2
	} else {
		left = (wide - int(float64(float64(width)*(float64(high)/float64(height)))+nudge)) / 2
	}
	order := make([]int32, 0, side*side+(high-2*top)*(wide-2*left+1))
	for i := range side * side {
		order = append(order, int32(i))
	}
	for y := top; y < high-top; y++ {
		for x := left; x < wide-left; x++ {
			tile := 1 + y/side*columns + x/side
			order = append(order, int32(tile*side*side+y%side*side+x%side))
		}
		order = append(order, Newline)
	}
	return order
}

// Pixtral and Mistral 3: an image keeps its shape, in steps of merged patches. A token
// follows each line.
func readPixtral(c *checkpoint, p *Processor) {
	c.kind("PixtralImageProcessor")
	c.common(p, bicubic, clipMean, clipStd)
	delete(c.image.values, "do_pad")     // of batches
	delete(c.image.values, "patch_size") // the processor passes its own
	z := c.image.size("size", true, size{longestEdge: 1024})
	wide, high := max(z.longestEdge, z.width), max(z.longestEdge, z.height)
	if (z.longestEdge == 0) == (z.height == 0) || z.shortestEdge != 0 || z.minPixels != 0 {
		c.image.fail("size", "must have longest_edge, or height and width")
		return
	}
	imageSize, patchSize, merge := 1024, 16, 1
	if p.Config.Family == "mistral3" {
		merge = c.config.side("spatial_merge_size", 2)
		if len(c.tower.values) == 0 {
			imageSize, patchSize = 1540, 14
		}
	}
	side := c.patch(p, imageSize, patchSize)
	p.Config.MergeSize = merge
	c.length(c.processor, "patch_size", p.Config.PatchSize)
	c.length(c.processor, "spatial_merge_size", merge)
	step := p.Config.PatchSize * merge
	if edge := up(max(wide, high), step); edge/p.Config.PatchSize > up(side, step)/p.Config.PatchSize {
		c.image.fail("size", "%d exceeds the vision tower's image_size %d", max(wide, high), side)
		return
	}
	p.place.axes = true
	p.tokens(c.processor.text("image_token", "[IMG]"))
	line, end := c.processor.text("image_break_token", "[IMG_BREAK]"), c.processor.text("image_end_token", "[IMG_END]")
	p.arrange = func(l *Layout) error {
		width, height := l.Width, l.Height
		if ratio := max(float64(height)/float64(high), float64(width)/float64(wide)); ratio > 1 {
			height, width = int(float64(height)/ratio), int(float64(width)/ratio)
		}
		if min(width, height) < 1 {
			return fmt.Errorf("%w: %d×%d pixels, a side would be rounded to 0", ErrShape, l.Width, l.Height)
		}
		width, height = up(width, step), up(height, step)
		l.canvases = []canvas{scaled(original, width, height)}
		p.tile(l, 0, 0, 0, width, height)
		l.columns = width / step
		return nil
	}
	p.prompt = func(l *Layout) string {
		row := strings.Repeat(p.Config.ImageToken, l.columns)
		return strings.Repeat(row+line, l.Tokens/l.columns-1) + row + end
	}
	bound := func() {
		tokens := up(wide, step) / step * (up(high, step) / step)
		p.bound(tokens*merge*merge, tokens)
	}
	bound()
	p.limit = func(tokens int) {
		edge := max(int(math.Sqrt(float64(tokens))), 1) * step
		wide, high = min(wide, edge), min(high, edge)
		bound()
	}
	p.low = lowSide / step * (lowSide / step)
}

// Gemma 4: an image keeps its shape, with as many pixels as its number of tokens allows.
func readGemma4(c *checkpoint, p *Processor) {
	c.kind("Gemma4ImageProcessor")
	c.resample(p, bicubic)
	c.colours(p, []float64{0, 0, 0}, []float64{1, 1, 1}, false)
	for channel := range p.levels {
		for v := range p.levels[channel] { // the first thing that the model does
			p.levels[channel][v] = 2 * (p.levels[channel][v] - 0.5)
		}
	}
	p.Config.PatchSize = c.image.side("patch_size", 16)
	p.Config.MergeSize = c.image.side("pooling_kernel_size", 3)
	p.Config.ChannelsLast = true
	c.same("patch_size", p.Config.PatchSize, p.Config.PatchSize)
	c.same("pooling_kernel_size", p.Config.MergeSize, p.Config.MergeSize)
	tokens := c.image.integer("max_soft_tokens", 280, 1, maxPixelCount)
	delete(c.image.values, "image_seq_length")
	delete(c.processor.values, "image_seq_length") // each image has its own
	if text := c.config.object("text_config"); text.text("use_bidirectional_attention", "") == "vision" {
		p.Config.Bidirectional = WithinImageLocal
		if window := text.integer("sliding_window", 512, 1, maxPixelCount); tokens > window {
			c.image.fail("max_soft_tokens", "%d exceeds sliding_window %d of the language model: image tokens further apart would see each other", tokens, window)
		}
	}
	p.place.axes = true
	p.tokens(c.special("image_token", "<|image|>"))
	begin, end := c.special("boi_token", "<|image>"), c.special("eoi_token", "<image|>")
	p.prompt = func(l *Layout) string { return begin + p.repeat(l) + end }
	step := p.Config.PatchSize * p.Config.MergeSize
	p.arrange = func(l *Layout) error {
		area := float64(tokens) * float64(step) * float64(step)
		factor := math.Sqrt(area / (float64(l.Width) * float64(l.Height)))
		width := int(factor*float64(l.Width)/float64(step)) * step
		height := int(factor*float64(l.Height)/float64(step)) * step
		switch {
		case width == 0 && height == 0:
			return fmt.Errorf("%w: %d×%d pixels, a side would be rounded to 0", ErrShape, l.Width, l.Height)
		case height == 0:
			height, width = step, min(l.Width/l.Height, tokens)*step
		case width == 0:
			width, height = step, min(l.Height/l.Width, tokens)*step
		}
		if float64(width)*float64(height) > area {
			return fmt.Errorf("%w: %d×%d pixels have more than %d tokens", ErrShape, l.Width, l.Height, tokens)
		}
		l.canvases = []canvas{scaled(original, width, height)}
		p.tile(l, 0, 0, 0, width, height)
		return nil
	}
	bound := func() { p.bound(tokens*p.Config.MergeSize*p.Config.MergeSize, tokens) }
	bound()
	p.limit = func(limit int) {
		tokens = max(min(tokens, limit), 1)
		bound()
	}
	p.low = 70 // the least that its processor offers
}
