package vision

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Bounds of what a config may ask for, far above any model.
const (
	maxSide       = 1 << 15 // pixels along an edge of an image
	maxPixelCount = 1 << 28
	maxCanvas     = 1 << 25 // pixels of an image that is made of another one
	maxTiles      = 1 << 10
	maxRows       = 1 << 20 // patches of a tile, or tokens of an image
)

// New reads what a checkpoint says about images. What would change an image and is not
// supported is an error that names it.
func New(files Files) (*Processor, error) {
	var err error
	c := &checkpoint{err: &err}
	c.config = newSettings("config.json", files.Config, &err)
	c.tower = c.config.object("vision_config")
	c.processor = newSettings("processor_config.json", files.Processor, &err)
	c.tokenizer = newSettings("tokenizer_config.json", files.Tokenizer, &err)
	if c.processor.has("image_processor") {
		c.image = c.processor.object("image_processor") // as of transformers 5
	} else {
		c.image = newSettings("preprocessor_config.json", files.Preprocessor, &err)
	}
	name := c.config.text("model_type", "")
	f, ok := families[name]
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("config.json: images are not supported for model_type %q, only for %s",
			name, strings.Join(slices.Sorted(maps.Keys(families)), ", "))
	}
	p := &Processor{Config: Config{Family: name, Frames: 1, MergeSize: 1}}
	p.Config.ImageTokenID = int32(c.config.integer("image_token_id", c.config.integer("image_token_index", f.imageToken, 0, math.MaxInt32), 0, math.MaxInt32))
	f.read(c, p)
	c.image.refuse(name, harmless)
	c.processor.refuse(name, harmlessProcessor)
	if err != nil {
		return nil, err
	}
	if n := max(p.Config.MaxTokens, p.Config.MaxTile); n > maxRows {
		return nil, fmt.Errorf("an image may have %d patches or tokens, at most %d are supported", n, maxRows)
	}
	p.Config.PatchWidth = 3 * p.Config.Frames * p.Config.PatchSize * p.Config.PatchSize
	return p, nil
}

// checkpoint is what the files of a checkpoint say.
type checkpoint struct {
	config, tower, image, processor, tokenizer *settings

	mean []float64 // of colours, once read

	err *error
}

// A family reads a checkpoint of its kind.
type family struct {
	imageToken int // id of an image token, where config.json has none
	read       func(c *checkpoint, p *Processor)
}

// families are those whose images are supported, by model_type of config.json.
var families = map[string]family{
	"gemma3":       {262144, readGemma3},
	"gemma4":       {258880, readGemma4},
	"qwen2_vl":     {151655, readQwen},
	"qwen2_5_vl":   {151655, readQwen},
	"qwen3_vl":     {151655, readQwen},
	"qwen3_vl_moe": {151655, readQwen},
	"qwen3_5":      {248056, readQwen},
	"qwen3_5_moe":  {248056, readQwen},
	"idefics3":     {128257, readIdefics3},
	"smolvlm":      {128257, readIdefics3},
	"llava":        {32000, readLlava},
	"llava_next":   {32000, readLlavaNext},
	"internvl":     {151667, readInternVL},
	"paligemma":    {256000, readPaliGemma},
	"mistral3":     {10, readPixtral},
}

// harmless are keys of an image processor that change no pixel here: what transformers
// writes beside them, and how it batches images.
var harmless = setOf(
	"image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "use_fast", "_processor_class",
	"data_format", "input_data_format", "device", "disable_grouping", "return_tensors", "default_to_square",
	"do_convert_rgb", "_valid_processor_keys", "valid_processor_keys", "video_sampling", "return_row_col_info",
	"return_metadata", "model_input_names",
)

// harmlessProcessor are such keys of a processor: what is not about images, and texts
// that are read where they matter.
var harmlessProcessor = setOf(
	"processor_class", "auto_map", "chat_template", "tokenizer", "tokenizer_class", "video_processor", "feature_extractor",
	"audio_processor", "audio_seq_length", "audio_ms_per_token", "_processor_class", "image_processor_type", "num_image_tokens",
	"video_seq_length", "chat_template_kwargs", "version",
)

func setOf(keys ...string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, key := range keys {
		set[key] = true
	}
	return set
}

// special is the text of a special token that the tokenizer's config calls key.
func (c *checkpoint) special(key, def string) string {
	for _, place := range []string{"", "extra_special_tokens", "model_specific_special_tokens"} {
		values := c.tokenizer.values
		if place != "" {
			values = nil
			_ = json.Unmarshal(c.tokenizer.values[place], &values) // a list in some files
		}
		raw := values[key]
		var text string
		if json.Unmarshal(raw, &text) == nil && text != "" {
			return text
		}
		var token struct{ Content string }
		if json.Unmarshal(raw, &token) == nil && token.Content != "" {
			return token.Content
		}
	}
	return def
}

// kind reads which class of transformers the image processor is, one of kinds, by
// default the first.
func (c *checkpoint) kind(kinds ...string) string {
	old := strings.Replace(c.image.text("feature_extractor_type", kinds[0]), "FeatureExtractor", "ImageProcessor", 1)
	kind := c.image.text("image_processor_type", old)
	base := strings.TrimSuffix(strings.TrimSuffix(kind, "Fast"), "Pil")
	if !slices.Contains(kinds, base) {
		c.image.fail("image_processor_type", "%q is not supported for this model, only %s", kind, strings.Join(kinds, ", "))
	}
	return base
}

// The means and deviations that image processors share.
var (
	half     = []float64{0.5, 0.5, 0.5}
	clipMean = []float64{0.48145466, 0.4578275, 0.40821073}
	clipStd  = []float64{0.26862954, 0.26130258, 0.27577711}
)

// colours reads how bytes become floats. Without normalization the floats are from 0 to 1.
func (c *checkpoint) colours(p *Processor, mean, std []float64, normalize bool) {
	s := c.image
	rescale := s.boolean("do_rescale", true)
	factor := 1.0 / 255
	s.get("rescale_factor", "a number", &factor)
	normalize = s.boolean("do_normalize", normalize)
	s.get("image_mean", "a list of numbers", &mean)
	s.get("image_std", "a list of numbers", &std)
	if len(mean) != 3 || len(std) != 3 {
		s.fail("image_mean", "and image_std must be three numbers each")
		return
	}
	c.mean = mean
	if factor <= 0 || min(std[0], std[1], std[2]) <= 0 {
		s.fail("image_std", "and rescale_factor must be positive")
		return
	}
	for channel := range p.levels {
		// In float32, in transformers' order: mean and deviation take the factor.
		m, d := float32(mean[channel]), float32(std[channel])
		if rescale {
			m, d = m*float32(1/factor), d*float32(1/factor)
		}
		for v := range p.levels[channel] {
			switch {
			case normalize:
				p.levels[channel][v] = (float32(v) - m) / d
			case rescale:
				p.levels[channel][v] = float32(v) * float32(factor)
			default:
				p.levels[channel][v] = float32(v)
			}
		}
	}
}

// resample reads the filter of resizes.
func (c *checkpoint) resample(p *Processor, def *filter) {
	p.filter = def
	// Pillow's numbers.
	switch n := c.image.integer("resample", -1, 0, 5); n {
	case -1:
	case 1:
		p.filter = lanczos
	case 2:
		p.filter = bilinear
	case 3:
		p.filter = bicubic
	default:
		c.image.fail("resample", "%d is not supported, only 1 (Lanczos), 2 (bilinear) and 3 (bicubic)", n)
	}
	if !c.image.boolean("do_resize", true) {
		c.image.fail("do_resize", "false is not supported")
	}
}

// common reads what all image processors have.
func (c *checkpoint) common(p *Processor, def *filter, mean, std []float64) {
	c.resample(p, def)
	c.colours(p, mean, std, true)
}

// patch reads the side of a patch and of the images that the tower was trained on.
func (c *checkpoint) patch(p *Processor, imageSize, patchSize int) (side int) {
	p.Config.PatchSize = c.tower.square("patch_size", patchSize)
	side = c.tower.square("image_size", imageSize)
	if side/p.Config.PatchSize < 1 {
		c.tower.fail("image_size", "%d is smaller than patch_size %d", side, p.Config.PatchSize)
	}
	channels := c.tower.integer("num_channels", c.tower.integer("in_channels", 3, 1, 1<<10), 1, 1<<10)
	if channels != 3 {
		c.tower.fail("num_channels", "must be 3, found %d", channels)
	}
	return side
}

// repeat is a prompt of image tokens alone.
func (p *Processor) repeat(l *Layout) string {
	return strings.Repeat(p.Config.ImageToken, l.Tokens)
}

// tokens gives p the text of image tokens, which is the placeholder too.
func (p *Processor) tokens(text string) {
	p.Config.ImageToken, p.Config.Placeholder = text, text
}

// bound sets what one layout needs at most; tile is the patches of the largest tile.
func (p *Processor) bound(tile, tokens int) {
	p.Config.MaxTile, p.Config.MaxTokens = tile+p.place.class, tokens
}
