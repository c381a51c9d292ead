package vision

import (
	"fmt"
	"image"
	"image/color"
)

// toRGB converts an image as Pillow does. Sixteen bits are cut to eight, except those of
// grey images, which Pillow clips; transparent pixels are laid on white.
func toRGB(img image.Image) *Pixels {
	r := img.Bounds()
	px := &Pixels{Width: r.Dx(), Height: r.Dy(), RGB: make([]byte, 3*r.Dx()*r.Dy())}
	width := px.Width
	row := func(y int) []byte { return px.RGB[3*width*y:][:3*width] }
	switch img := img.(type) {
	case *image.Gray:
		for y := range px.Height {
			dst := row(y)
			for x, v := range img.Pix[y*img.Stride:][:width] {
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		}
	case *image.Gray16:
		for y := range px.Height {
			dst, src := row(y), img.Pix[y*img.Stride:][:2*width]
			for x := range width {
				v := src[2*x+1]
				if src[2*x] != 0 {
					v = 255
				}
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		}
	case *image.RGBA: // which the decoders use for opaque images alone
		for y := range px.Height {
			dst, src := row(y), img.Pix[y*img.Stride:][:4*width]
			for x := range width {
				copy(dst[3*x:3*x+3], src[4*x:])
			}
		}
	case *image.NRGBA:
		for y := range px.Height {
			dst, src := row(y), img.Pix[y*img.Stride:][:4*width]
			for x := range width {
				onWhite(dst[3*x:], src[4*x], src[4*x+1], src[4*x+2], src[4*x+3])
			}
		}
	case *image.RGBA64: // opaque again
		for y := range px.Height {
			dst, src := row(y), img.Pix[y*img.Stride:][:8*width]
			for x := range width {
				dst[3*x], dst[3*x+1], dst[3*x+2] = src[8*x], src[8*x+2], src[8*x+4]
			}
		}
	case *image.NRGBA64:
		for y := range px.Height {
			dst, src := row(y), img.Pix[y*img.Stride:][:8*width]
			for x := range width {
				onWhite(dst[3*x:], src[8*x], src[8*x+2], src[8*x+4], src[8*x+6])
			}
		}
	case *image.Paletted:
		var palette [256][3]byte
		for i, c := range img.Palette {
			n := color.NRGBAModel.Convert(c).(color.NRGBA)
			onWhite(palette[i][:], n.R, n.G, n.B, n.A)
		}
		for y := range px.Height {
			dst := row(y)
			for x, i := range img.Pix[y*img.Stride:][:width] {
				copy(dst[3*x:3*x+3], palette[i][:])
			}
		}
	case *image.YCbCr:
		webpRGB(px, img, nil, 0)
	case *image.NYCbCrA:
		webpRGB(px, &img.YCbCr, img.A, img.AStride)
	default:
		panic(fmt.Sprintf("%T is not expected", img))
	}
	return px
}

// onWhite lays a colour on white as Pillow's alpha_composite does.
func onWhite(dst []byte, r, g, b, alpha byte) {
	if alpha == 255 {
		dst[0], dst[1], dst[2] = r, g, b
		return
	}
	const bits = 7
	over := uint32(alpha) << bits
	under := 255<<bits - over
	for i, v := range [3]byte{r, g, b} {
		sum := uint32(v)*over + 255*under + 0x80<<bits
		dst[i] = byte((sum>>8 + sum) >> 8 >> bits)
	}
}

// transparent is the palette's colour that is wholly transparent, or -1.
func transparent(p color.Palette) int {
	for i, c := range p {
		if _, _, _, a := c.RGBA(); a == 0 {
			return i
		}
	}
	return -1
}

// webpRGB converts the colours of a lossy WebP image as libwebp does: chroma is
// interpolated, and the range is that of video.
func webpRGB(px *Pixels, img *image.YCbCr, alpha []byte, alphaStride int) {
	width, height := px.Width, px.Height
	half := (width + 1) / 2
	u, v := make([]int32, width), make([]int32, width)
	for y := range height {
		// The chroma row that is nearest, and the next in the other direction.
		near := y / 2
		far := min(max(near-1+y%2*2, 0), (height+1)/2-1)
		for _, plane := range []struct {
			src []byte
			out []int32
		}{{img.Cb, u}, {img.Cr, v}} {
			interpolate(plane.out, plane.src[near*img.CStride:][:half], plane.src[far*img.CStride:][:half])
		}
		dst, luma := px.RGB[3*width*y:][:3*width], img.Y[y*img.YStride:][:width]
		for x, l := range luma {
			scaled := int32(l) * 19077 >> 8
			r := videoClip(scaled + v[x]*26149>>8 - 14234)
			g := videoClip(scaled - u[x]*6419>>8 - v[x]*13320>>8 + 8708)
			b := videoClip(scaled + u[x]*33050>>8 - 17685)
			if alpha == nil {
				dst[3*x], dst[3*x+1], dst[3*x+2] = r, g, b
			} else {
				onWhite(dst[3*x:], r, g, b, alpha[y*alphaStride+x])
			}
		}
	}
}

// videoClip is v, which has six bits of fraction, as a byte.
func videoClip(v int32) byte { return clip(v >> 6) }

// interpolate doubles a row of chroma samples as libwebp does, near being three times as
// close as far.
func interpolate(out []int32, near, far []byte) {
	out[0] = (3*int32(near[0]) + int32(far[0]) + 2) >> 2
	for x := 1; x < len(near); x++ {
		a, b, c, d := int32(near[x-1]), int32(near[x]), int32(far[x-1]), int32(far[x])
		sum := a + b + c + d + 8
		falling, rising := (sum+2*(b+c))>>3, (sum+2*(a+d))>>3
		out[2*x-1] = (falling + a) >> 1
		if 2*x < len(out) {
			out[2*x] = (rising + b) >> 1
		}
	}
	if n := len(out); n%2 == 0 {
		last := len(near) - 1
		out[n-1] = (3*int32(near[last]) + int32(far[last]) + 2) >> 2
	}
}
