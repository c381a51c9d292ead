package handler

import (
	"context"
	"crypto/sha256"
	"errors"
	"regexp"
	"slices"
	"sync"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/vision"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/handler/imagefetch"
)

// Vision is how a model reads images.
type Vision struct {
	Processor *vision.Processor // none of its tiles is too large for the tower
	Low       *vision.Processor // for images of low detail; nil: Processor
}

// processor returns that of an image of which so much detail is wanted.
func (v *Vision) processor(detail string) *vision.Processor {
	if detail == "low" && v.Low != nil {
		return v.Low
	}
	return v.Processor
}

// imageMarkdown is an image in the text of a prompt, TGI's expression.
var imageMarkdown = regexp.MustCompile(`!\[\]\(([^)]*)\)`)

// picture is an image of a request.
type picture struct {
	data      []byte // the file
	hash      [sha256.Size]byte
	processor *vision.Processor
	layout    *vision.Layout
	pixels    *vision.Pixels // nil: it is decoded when the tower reads it, if it does
}

// sizes are the widths and heights of images that were decoded lately, by the hash of
// their files: of these the size is all that a request needs to know, unless the tower is
// to read them once more. They are two generations, of which the older one goes when the
// newer one is full.
type sizes struct {
	mu         sync.Mutex
	newer, old map[[sha256.Size]byte][2]int
}

const sizesPerGeneration = 2048

func (s *sizes) of(hash [sha256.Size]byte) (size [2]int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok = s.newer[hash]; !ok {
		if size, ok = s.old[hash]; ok {
			s.add(hash, size)
		}
	}
	return size, ok
}

func (s *sizes) note(hash [sha256.Size]byte, size [2]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(hash, size)
}

func (s *sizes) add(hash [sha256.Size]byte, size [2]int) {
	if s.newer == nil || len(s.newer) == sizesPerGeneration {
		s.newer, s.old = make(map[[sha256.Size]byte][2]int), s.newer
	}
	s.newer[hash] = size
}

// Memory that decoding an image takes: for most images little, and for others as much as
// the largest.
const (
	usualPixels   = 4 << 20
	bytesPerPixel = 8 // of the decoder's planes and of what it makes of them
)

// refuseImages refuses messages with images if the model reads none, and too many.
func (s *Server) refuseImages(m *model, messages []chat.Message) error {
	n := 0
	for i, message := range messages {
		for at, c := range message.Content.Chunks {
			if c.Image == "" {
				continue
			}
			if m.vision == nil {
				return invalid("messages[%d].content[%d] is an image, and the model %s reads no images", i, at, s.opt.ModelID)
			}
			n++
		}
	}
	return s.checkImages(n)
}

// checkImages refuses too many images.
func (s *Server) checkImages(n int) error {
	if n > s.opt.MaxImages {
		return invalid("the request has %d images, the limit is %d (--max-images)", n, s.opt.MaxImages)
	}
	return nil
}

// markdownImages takes the images out of a prompt in which they are Markdown, and leaves
// the model's placeholders. A model that reads no images gets the text as it is.
func (m *model) markdownImages(text string) (placed string, images []chat.Image) {
	if m.vision == nil {
		return text, nil
	}
	placed = imageMarkdown.ReplaceAllStringFunc(text, func(found string) string {
		images = append(images, chat.Image{URL: imageMarkdown.FindStringSubmatch(found)[1]})
		return m.vision.Processor.Config.Placeholder
	})
	return placed, images
}

// see fetches images, in order, and decodes those that it does not know.
func (s *Server) see(x *exchange, m *model, images []chat.Image) (seen []picture, err error) {
	if err := s.checkImages(len(images)); err != nil {
		return nil, err
	}
	for i, image := range images {
		var p picture
		if p, err = s.seeOne(x, m, image); err != nil {
			return nil, imageError(err, i, len(images))
		}
		seen = append(seen, p)
	}
	return seen, nil
}

// imageError is what a client hears of an image, which is named if there are several.
func imageError(err error, i, of int) error {
	var e *Error
	if errors.As(err, &e) || errors.Is(err, errClientGone) {
		return err
	}
	if of > 1 {
		return invalid("%v (image %d of %d)", err, i+1, of)
	}
	return invalid("%v", err)
}

func (s *Server) seeOne(x *exchange, m *model, image chat.Image) (p picture, err error) {
	p.processor = m.vision.processor(image.Detail)
	p.data, err = s.images.Fetch(x.r.Context(), image.URL)
	switch {
	case x.r.Context().Err() != nil:
		return p, errClientGone
	case err != nil:
		return p, err
	}
	if err = x.hold(int64(len(p.data))); err != nil {
		return p, err
	}
	p.hash = sha256.Sum256(p.data)
	size, known := s.sizes.of(p.hash)
	if !known {
		if p.pixels, err = s.decode(x, p.data); err != nil {
			return p, err
		}
		size = [2]int{p.pixels.Width, p.pixels.Height}
		s.sizes.note(p.hash, size)
	}
	if p.layout, err = p.processor.Layout(size[0], size[1]); err != nil {
		return p, err
	}
	if p.processor != m.vision.Processor { // other rows of the same file
		p.hash = sha256.Sum256(append(p.hash[:], image.Detail...))
	}
	if known {
		return p, nil
	}
	return p, x.hold(int64(len(p.pixels.RGB)))
}

// decode decodes an image when it is its turn: for the memory of usual ones, or else of
// the largest.
func (s *Server) decode(x *exchange, data []byte) (px *vision.Pixels, err error) {
	for _, pixels := range []int{usualPixels, s.mostPixels()} {
		pixels = min(pixels, s.mostPixels())
		var failed error
		err = s.work(x, "images", int64(pixels)*bytesPerPixel, func() error {
			px, failed = vision.Decode(data, s.imageLimits(pixels))
			return nil
		})
		if err != nil || !errors.Is(failed, vision.ErrTooLarge) {
			return px, errors.Join(err, failed)
		}
		err = failed
	}
	return nil, err
}

// mostPixels is how many an image may have.
func (s *Server) mostPixels() int {
	return min(vision.MaxPixels, int(s.memory.turns.longest()/bytesPerPixel))
}

func (s *Server) imageLimits(pixels int) vision.Limits {
	return vision.Limits{Pixels: pixels, Bytes: s.opt.MaxImageBytes}
}

// expand replaces the placeholders of a prompt by the image tokens of images.
func (m *model) expand(prompt string, seen []picture) (string, error) {
	if m.vision == nil || len(seen) == 0 {
		return prompt, nil
	}
	layouts := make([]*vision.Layout, len(seen))
	for i := range seen {
		layouts[i] = seen[i].layout
	}
	text, err := m.vision.Processor.Expand(prompt, layouts)
	if err != nil {
		return "", invalid("%v", err)
	}
	return text, nil
}

// addSpecial reports whether the tokenizer adds special tokens to a prompt with images,
// where it would to one without.
func (m *model) addSpecial(add bool, seen []picture) bool {
	return add && (len(seen) == 0 || !m.vision.Processor.Config.Prefixed)
}

// place finds the image tokens of images in a prompt.
func (m *model) place(ids []int32, seen []picture) ([]engine.Image, error) {
	if len(seen) == 0 {
		return nil, nil
	}
	token := m.vision.Processor.Config.ImageTokenID
	images := make([]engine.Image, len(seen))
	at, found := 0, 0
	for i := range seen {
		layout := seen[i].layout
		image := engine.Image{Hash: seen[i].hash, Grid: layout.Grid, First: -1}
		for n := layout.Tokens; n > 0 && at < len(ids); at++ {
			if ids[at] != token {
				continue
			}
			if image.First < 0 {
				image.First = at
			}
			n--
			found++
			image.Count = at + 1 - image.First
		}
		images[i] = image
	}
	want := 0
	for i := range seen {
		want += seen[i].layout.Tokens
	}
	for _, id := range ids[min(at, len(ids)):] {
		if id == token {
			found++
		}
	}
	if found != want {
		return nil, invalid("the prompt has %d image tokens, and the images have %d: the text may not have any of its own", found, want)
	}
	return images, nil
}

// truncateImages is truncate for a prompt with images, of which it keeps or drops each as
// a whole.
func (m *model) truncateImages(ids []int32, images []engine.Image, seen []picture, p *parameters) ([]int32, []engine.Image, []picture) {
	whole := len(ids)
	if short := m.truncate(ids, p); len(short) == whole || len(images) == 0 {
		return short, images, seen
	}
	leading := min(m.tok.LeadingSpecial(), int(p.truncate.v))
	cut := whole - (int(p.truncate.v) - leading) // the first token that stays after the leading ones
	kept := len(images)
	for i := range images {
		if end := images[i].First + images[i].Count; images[i].First >= cut {
			kept = min(kept, i)
		} else if end > cut {
			cut = end
		}
	}
	ids = slices.Concat(ids[:leading], ids[cut:])
	images = slices.Clone(images[kept:])
	for i := range images {
		images[i].First -= cut - leading
	}
	return ids, images, seen[kept:]
}

// process makes of images what the vision tower reads, or leaves it to the tower where it
// may not have to.
func (s *Server) process(x *exchange, images []engine.Image, seen []picture) error {
	for i := range images {
		p := &seen[i]
		if p.pixels == nil {
			images[i].Input = s.later(p)
			continue
		}
		var (
			img    *vision.Image
			failed error
		)
		err := s.work(x, "images", p.inputBytes(), func() error {
			img, failed = p.processor.Process(p.pixels)
			return nil
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return imageError(err, i, len(images))
		}
		images[i].Input = func(context.Context) (*vision.Image, error) { return img, nil }
		images[i].Bytes = img.Bytes()
		p.pixels = nil
	}
	return nil
}

// inputBytes is what the tower's input takes.
func (p *picture) inputBytes() (n int64) {
	for i := range p.layout.Tiles {
		n += 4 * int64(p.layout.Tiles[i].Len()) * int64(p.processor.Config.PatchWidth)
	}
	return n
}

// later returns what decodes and processes an image that was decoded before, when it is
// its turn.
func (s *Server) later(p *picture) func(context.Context) (*vision.Image, error) {
	data, processor := p.data, p.processor
	pixels := min(max(p.layout.Width*p.layout.Height, usualPixels), s.mostPixels())
	return func(ctx context.Context) (img *vision.Image, err error) {
		err = s.memory.turns.do(ctx, int64(pixels)*bytesPerPixel, func() error {
			px, err := vision.Decode(data, s.imageLimits(pixels))
			if err == nil {
				img, err = processor.Process(px)
			}
			return err
		})
		return img, err
	}
}

// readImages fetches the images in the text of a prompt, and returns what to tokenize.
func (s *Server) readImages(x *exchange, m *model, inputs string) (text string, seen []picture, err error) {
	text, images := m.markdownImages(inputs)
	if seen, err = s.see(x, m, images); err == nil {
		text, err = m.expand(text, seen)
	}
	return text, seen, err
}

// newImageJob is newJob for a prompt that is still to be truncated, and may have images.
func (s *Server) newImageJob(x *exchange, m *model, p *parameters, inputs string, ids []int32, seen []picture, sequences int) (*job, error) {
	images, err := m.place(ids, seen)
	if err != nil {
		return nil, err
	}
	ids, images, seen = m.truncateImages(ids, images, seen, p)
	j, err := s.newJob(x, m, p, inputs, ids, sequences)
	if err != nil || len(images) == 0 {
		return j, err
	}
	j.req.Images = images
	return j, s.process(x, images, seen)
}

// newImageFetcher returns what fetches images; without one, data URIs alone are read.
func newImageFetcher(o *Options) *imagefetch.Fetcher {
	if o.ImageFetcher != nil {
		return o.ImageFetcher
	}
	f, err := imagefetch.New(imagefetch.Options{Disabled: true, MaxBytes: o.MaxImageBytes})
	if err != nil {
		panic(err) // of a proxy, and there is none
	}
	return f
}

// placeholder is the text that stands for an image in a prompt, "" if the model reads none.
func (m *model) placeholder() string {
	if m.vision == nil {
		return ""
	}
	return m.vision.Processor.Config.Placeholder
}
