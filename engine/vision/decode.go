package vision

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/gif"
	"image/png"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"
)

// MaxPixels is the default of Limits.Pixels.
const MaxPixels = 48 << 20

// The other defaults of Limits. MaxPixels and defaultMemory let photographs of 48 million pixels
// through as JPEGs of the usual kind, and of 20 million as any file: noise of the worst kind
// takes less than two seconds of a processor then. (Pillow warns from 89 million on; Claude's API
// takes 8000×8000.)
const (
	defaultBytes  = 20 << 20
	defaultMemory = 256 << 20
)

// format is a kind of image file.
type format struct {
	name  string
	magic string // '?' is any byte
	read  func(data []byte, limits *Limits) (*Pixels, error)
}

var formats = []format{
	{"PNG", "\x89PNG\r\n\x1a\n", readPNG},
	{"JPEG", "\xff\xd8\xff", readJPEG},
	{"WebP", "RIFF????WEBP", readWebP},
	{"GIF", "GIF8?a", readGIF},
	{"BMP", "BM", readBMP},
	// To name what is not read.
	{"AVIF", "????ftypavif", nil},
	{"AVIF", "????ftypavis", nil},
	{"HEIC", "????ftyphe", nil},
	{"HEIC", "????ftypmif1", nil},
	{"TIFF", "II*\x00", nil},
	{"TIFF", "MM\x00*", nil},
	{"JPEG XL", "\xff\x0a", nil},
	{"JPEG XL", "\x00\x00\x00\x0cJXL ", nil},
	{"JPEG 2000", "\x00\x00\x00\x0cjP  ", nil},
	{"PDF", "%PDF", nil},
	{"SVG", "<svg", nil},
	{"SVG or HTML", "<", nil},
}

// matches reports whether data begins with f's magic.
func (f *format) matches(data []byte) bool {
	if len(data) < len(f.magic) {
		return false
	}
	for i := range len(f.magic) {
		if f.magic[i] != '?' && f.magic[i] != data[i] {
			return false
		}
	}
	return true
}

// Decode reads a PNG, JPEG, WebP, GIF or BMP image, of animations the first frame. Which
// it is, its first bytes say. Colours are as Pillow converts them to RGB, transparency
// lies on white, colour profiles are ignored, and EXIF turns the image upright.
func Decode(data []byte, limits Limits) (px *Pixels, err error) {
	for _, l := range []struct {
		limit *int
		def   int
	}{{&limits.Bytes, defaultBytes}, {&limits.Pixels, MaxPixels}, {&limits.Memory, defaultMemory}} {
		if *l.limit == 0 {
			*l.limit = l.def
		}
	}
	if len(data) > limits.Bytes {
		return nil, fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrTooLarge, len(data), limits.Bytes)
	}
	for i := range formats {
		f := &formats[i]
		if !f.matches(data) {
			continue
		}
		if f.read == nil {
			return nil, fmt.Errorf("%w: %s, expected PNG, JPEG, WebP, GIF or BMP", ErrFormat, f.name)
		}
		defer func() {
			// A decoder that panics has met data that it does not expect.
			if r := recover(); r != nil {
				px, err = nil, fmt.Errorf("%w: %s: %v", ErrCorrupt, f.name, r)
			}
		}()
		return f.read(data, &limits)
	}
	return nil, fmt.Errorf("%w: expected PNG, JPEG, WebP, GIF or BMP", ErrFormat)
}

// perTurned is what turning an image upright takes, in bytes for a pixel.
const perTurned = 3

func corrupt(format string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, format, err)
}

// check refuses an image that is too large before memory is allocated. perPixel is what
// decoding takes in bytes, without the Pixels.
func (l *Limits) check(width, height int, perPixel float64) error {
	if width < 1 || height < 1 {
		return fmt.Errorf("%w: %d×%d pixels", ErrCorrupt, width, height)
	}
	if width > l.Pixels/height {
		return fmt.Errorf("%w: %d×%d pixels exceed the limit of %d", ErrTooLarge, width, height, l.Pixels)
	}
	if need := (perPixel + 3) * float64(width) * float64(height); need > float64(l.Memory) {
		return fmt.Errorf("%w: decoding %d×%d pixels takes %d bytes of memory, the limit is %d", ErrTooLarge, width, height, int(need), l.Memory)
	}
	return nil
}

func readPNG(data []byte, limits *Limits) (*Pixels, error) {
	c, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("PNG", err)
	}
	// The header follows the magic and the chunk's length and name.
	const depthAt, interlaceAt = 24, 28
	if len(data) <= interlaceAt {
		return nil, fmt.Errorf("%w: PNG: ends in its header", ErrCorrupt)
	}
	perPixel := 4.0
	if data[depthAt] == 16 {
		perPixel = 8
	}
	if data[interlaceAt] != 0 {
		perPixel *= 1.5
	}
	orientation := pngOrientation(data)
	if orientation != 1 {
		perPixel += perTurned
	}
	if err := limits.check(c.Width, c.Height, perPixel); err != nil {
		return nil, err
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("PNG", err)
	}
	return upright(toRGB(img), orientation), nil
}

func readGIF(data []byte, limits *Limits) (*Pixels, error) {
	c, err := gif.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("GIF", err)
	}
	if err := limits.check(c.Width, c.Height, 2); err != nil {
		return nil, err
	}
	img, err := gif.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("GIF", err)
	}
	frame, ok := img.(*image.Paletted)
	if !ok || len(frame.Palette) == 0 {
		return nil, fmt.Errorf("%w: GIF: no palette", ErrCorrupt)
	}
	screen := image.Rect(0, 0, c.Width, c.Height)
	if frame.Bounds() == screen {
		return toRGB(frame), nil
	}
	// The rest of the screen is transparent or, as in Pillow, the palette's first colour.
	whole := image.NewPaletted(screen, frame.Palette)
	if i := transparent(frame.Palette); i >= 0 {
		for j := range whole.Pix {
			whole.Pix[j] = byte(i)
		}
	}
	for y := frame.Rect.Min.Y; y < min(frame.Rect.Max.Y, c.Height); y++ {
		n := min(frame.Rect.Max.X, c.Width) - frame.Rect.Min.X
		if n > 0 {
			copy(whole.Pix[whole.PixOffset(frame.Rect.Min.X, y):][:n], frame.Pix[frame.PixOffset(frame.Rect.Min.X, y):])
		}
	}
	return toRGB(whole), nil
}

func readBMP(data []byte, limits *Limits) (*Pixels, error) {
	c, err := bmp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("BMP", err)
	}
	if err := limits.check(c.Width, c.Height, 4); err != nil {
		return nil, err
	}
	img, err := bmp.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, corrupt("BMP", err)
	}
	return toRGB(img), nil
}

func readWebP(data []byte, limits *Limits) (*Pixels, error) {
	still, orientation, err := stillWebP(data)
	if err != nil {
		return nil, err
	}
	c, err := webp.DecodeConfig(bytes.NewReader(still))
	if err != nil {
		return nil, corrupt("WebP", err)
	}
	// What the lossless decoder takes, which also reads a lossy image's transparency.
	perPixel := 10.0
	if orientation != 1 {
		perPixel += perTurned
	}
	if err := limits.check(c.Width, c.Height, perPixel); err != nil {
		return nil, err
	}
	img, err := webp.Decode(bytes.NewReader(still))
	if err != nil {
		return nil, corrupt("WebP", err)
	}
	return upright(toRGB(img), orientation), nil
}

// stillWebP returns a WebP file without animation: data, or the first frame of it as a
// file of its own. It also looks for the orientation.
func stillWebP(data []byte) (still []byte, orientation int, err error) {
	orientation = 1
	still = data
	for rest := data[12:]; len(rest) >= 8; {
		n := int(binary.LittleEndian.Uint32(rest[4:]))
		if n > len(rest)-8 {
			break // the decoder says what is missing
		}
		body := rest[8:][:n]
		switch string(rest[:4]) {
		case "ANMF":
			const header = 16 // where the frame is, and how long it is shown
			if len(still) != len(data) || n < header {
				break
			}
			if x, y := frameOffset(body); x != 0 || y != 0 {
				return nil, 0, fmt.Errorf("%w: WebP: an animation whose first frame does not begin at its corner", ErrFormat)
			}
			still = loneFrame(body[header:], body[6:12])
		case "EXIF":
			orientation = exifOrientation(bytes.TrimPrefix(body, []byte("Exif\x00\x00")))
		}
		rest = rest[8+min(n+n%2, len(rest)-8):]
	}
	return still, orientation, nil
}

// frameOffset is where a frame of an animated WebP lies.
func frameOffset(frame []byte) (x, y int) {
	return int(frame[0]) | int(frame[1])<<8 | int(frame[2])<<16, int(frame[3]) | int(frame[4])<<8 | int(frame[5])<<16
}

// loneFrame makes a file of the chunks of a frame; size is its width and height less one,
// three bytes each.
func loneFrame(chunks, size []byte) []byte {
	const alphaFlag = 1 << 4
	header := []byte("VP8X\x0a\x00\x00\x00\x00\x00\x00\x00")
	if bytes.HasPrefix(chunks, []byte("ALPH")) {
		header[8] |= alphaFlag
	}
	header = append(header, size...)
	out := []byte("RIFF\x00\x00\x00\x00WEBP")
	binary.LittleEndian.PutUint32(out[4:], uint32(4+len(header)+len(chunks)))
	return append(append(out, header...), chunks...)
}
