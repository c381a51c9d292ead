package vision

import (
	"math"
	"runtime"
	"sync"
)

// filter is a kernel of a resize, as Pillow and torchvision define it: antialiased,
// so widened by the factor by which an image shrinks.
type filter struct {
	name    string
	support float64
	at      func(x float64) float64 // x within ±support
}

var (
	bilinear = &filter{"bilinear", 1, func(x float64) float64 {
		x = math.Abs(x)
		if x < 1 {
			return 1 - x
		}
		return 0
	}}
	bicubic = &filter{"bicubic", 2, func(x float64) float64 {
		const a = -0.5 // Pillow's, and PyTorch's when it antialiases
		switch x = math.Abs(x); {
		case x < 1:
			return ((a+2)*x-(a+3))*x*x + 1
		case x < 2:
			return (((x-5)*x+8)*x - 4) * a
		}
		return 0
	}}
	lanczos = &filter{"lanczos", 3, func(x float64) float64 {
		if x <= -3 || x >= 3 {
			return 0
		}
		return sinc(x) * sinc(x/3)
	}}
)

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// taps are the weights of one axis of a resize: target i is the sum of size[i] source
// samples from first[i] on, times weights[i*stride:], shifted right by precision bits.
type taps struct {
	first, size []int32
	weights     []int16
	stride      int
	precision   uint
}

// newTaps computes the weights as PyTorch does for bytes: in double precision, rounded to
// as many bits as let the largest one fit in 16, and the sum in 32.
func newTaps(from, to int, f *filter) *taps {
	scale := float64(from) / float64(to)
	stretch := max(scale, 1)
	support := f.support * stretch
	t := &taps{
		first:  make([]int32, to),
		size:   make([]int32, to),
		stride: min(int(math.Ceil(support))*2+1, from),
	}
	exact := make([]float64, to*t.stride)
	largest := 0.0
	for i := range to {
		center := float64(scale * (float64(i) + 0.5)) // rounded on every architecture
		first := max(int(center-support+0.5), 0)
		size := min(max(min(int(center+support+0.5), from)-first, 0), t.stride)
		w, total := exact[i*t.stride:][:size], 0.0
		for j := range w {
			w[j] = f.at((float64(j+first) - center + 0.5) / stretch)
			total += w[j]
		}
		for j := range w {
			if total != 0 {
				w[j] /= total
			}
			largest = max(largest, w[j])
		}
		t.first[i], t.size[i] = int32(first), int32(size)
	}
	for t.precision < 22 && int(0.5+largest*float64(int64(2)<<t.precision)) < 1<<15 {
		t.precision++
	}
	t.weights = make([]int16, len(exact))
	for i, w := range exact {
		t.weights[i] = int16(int(math.Copysign(0.5, w) + w*float64(int64(1)<<t.precision)))
	}
	return t
}

// clip is v as a byte.
func clip(v int32) byte {
	return byte(min(max(v, 0), 255))
}

// resize returns px in another size as torchvision's antialiased resize of bytes has it,
// to the last bit: first along rows, then along columns, with bytes in between.
func resize(px *Pixels, width, height int, f *filter) *Pixels {
	if width != px.Width {
		t := newTaps(px.Width, width, f)
		out := &Pixels{Width: width, Height: px.Height, RGB: make([]byte, 3*width*px.Height)}
		parallel(px.Height, func(y int) {
			src, dst := px.RGB[3*px.Width*y:][:3*px.Width], out.RGB[3*width*y:][:3*width]
			half := int32(1) << (t.precision - 1)
			for x := range width {
				n := int(t.size[x])
				s, w := src[3*int(t.first[x]):][:3*n], t.weights[x*t.stride:][:n]
				r, g, b := half, half, half
				for j, w := range w {
					p := s[3*j : 3*j+3 : 3*j+3]
					r += int32(p[0]) * int32(w)
					g += int32(p[1]) * int32(w)
					b += int32(p[2]) * int32(w)
				}
				d := dst[3*x : 3*x+3 : 3*x+3]
				d[0], d[1], d[2] = clip(r>>t.precision), clip(g>>t.precision), clip(b>>t.precision)
			}
		})
		px = out
	}
	if height != px.Height {
		t := newTaps(px.Height, height, f)
		out := &Pixels{Width: width, Height: height, RGB: make([]byte, 3*width*height)}
		parallel(height, func(y int) {
			dst := out.RGB[3*width*y:][:3*width]
			sum := make([]int32, len(dst))
			for i := range sum {
				sum[i] = 1 << (t.precision - 1)
			}
			for j, w := range t.weights[y*t.stride:][:t.size[y]] {
				src := px.RGB[3*width*(int(t.first[y])+j):][:len(sum)]
				for i := range sum {
					sum[i] += int32(src[i]) * int32(w)
				}
			}
			for i, v := range sum {
				dst[i] = clip(v >> t.precision)
			}
		})
		px = out
	}
	return px
}

// parallel calls do for each of 0 … n-1, several at a time.
func parallel(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				do(i)
			}
		})
	}
	wg.Wait()
}
