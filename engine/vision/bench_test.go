package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// photograph is a picture of 12 million pixels, as an image of the standard library.
func photograph() image.Image {
	const width, height = 4000, 3000
	px := resize(picture(500, 375, 1), width, height, bicubic)
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(img.Pix[4*i:], px.RGB[3*i:3*i+3])
		img.Pix[4*i+3] = 255
	}
	return img
}

// go test ./engine/vision -run XXX -bench .
func BenchmarkDecode(b *testing.B) {
	img := photograph()
	var jpg, pnged bytes.Buffer
	if err := jpeg.Encode(&jpg, img, &jpeg.Options{Quality: 85}); err != nil {
		b.Fatal(err)
	}
	if err := png.Encode(&pnged, img); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
	}{{"jpeg", jpg.Bytes()}, {"png", pnged.Bytes()}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(c.data, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProcess(b *testing.B) {
	px := picture(1600, 1200, 1)
	for _, c := range readGolden(b, "testdata").Cases {
		p, err := New(filesOf(c.Files))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Process(px); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Damaged images neither crash nor take long: MILLRACE_VISION_MUTATED names a folder of
// images, of which ten thousand damaged ones are made. What they take is reported.
func TestMutated(t *testing.T) {
	folder := os.Getenv("MILLRACE_VISION_MUTATED")
	if folder == "" {
		t.Skip("MILLRACE_VISION_MUTATED is not set to a folder of images")
	}
	const (
		count = 10_000
		most  = 300 << 20 // bytes
		long  = 2 * time.Second
	)
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var seeds [][]byte
	for _, c := range readGolden(t, "testdata").Decoded {
		seeds = append(seeds, c.Data)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(data, Limits{}); err == nil {
			seeds = append(seeds, data)
		}
	}
	var slowest time.Duration
	var largest uint64
	kinds := map[string]int{}
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range count {
		data := mutate(rng, seeds[rng.IntN(len(seeds))], seeds[rng.IntN(len(seeds))])
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		_, err := Decode(data, Limits{})
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		// All that was allocated, whether it was in use at once or not.
		bytes := after.TotalAlloc - before.TotalAlloc
		slowest, largest = max(slowest, took), max(largest, bytes)
		if took > long || bytes > most {
			t.Errorf("image %d of %d bytes: %v, %d MB, %v", i, len(data), took, bytes>>20, err)
		}
		switch {
		case err == nil:
			kinds["decoded"]++
		case errors.Is(err, ErrTooLarge):
			kinds["too large"]++
		case errors.Is(err, ErrCorrupt):
			kinds["corrupt"]++
		default:
			kinds["unsupported"]++
		}
	}
	t.Logf("%d images of %d seeds: slowest %v, largest %d MB; %v", count, len(seeds), slowest, largest>>20, kinds)
}

// mutate damages an image: its bits, its length, its header, or what it goes on with.
func mutate(rng *rand.Rand, data, other []byte) []byte {
	data = bytes.Clone(data)
	for range 1 + rng.IntN(4) {
		at := rng.IntN(len(data))
		switch rng.IntN(8) {
		case 0:
			data = data[:max(at, 16)]
		case 1:
			data = append(data[:at:at], other[min(at, len(other)):]...)
		case 2: // the header, where sizes are
			head := min(len(data), 64)
			data[rng.IntN(head)] = byte(rng.UintN(256))
		case 3:
			if at+4 <= len(data) {
				binary.BigEndian.PutUint32(data[at:], rng.Uint32())
			}
		case 4:
			data = append(data[:at:at], append(bytes.Repeat(data[at:min(at+64, len(data))], 1+rng.IntN(50)), data[at:]...)...)
		default:
			data[at] ^= 1 << rng.IntN(8)
		}
		if len(data) < 16 {
			data = append(data, other...)
		}
	}
	if bytes.HasPrefix(data, []byte("\x89PNG")) { // past the checksums
		for rest := data[min(8, len(data)):]; len(rest) >= 12; {
			n := uint64(binary.BigEndian.Uint32(rest))
			if n+12 > uint64(len(rest)) {
				break
			}
			binary.BigEndian.PutUint32(rest[8+n:], crc32.ChecksumIEEE(rest[4:8+n]))
			rest = rest[n+12:]
		}
	}
	return data
}
