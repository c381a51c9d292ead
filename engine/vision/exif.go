package vision

import (
	"bytes"
	"encoding/binary"
)

// exifOrientation reads the orientation out of EXIF data: 1, upright, to 8. Data that is
// damaged or hostile is an upright image.
func exifOrientation(data []byte) int {
	const (
		orientationTag = 0x0112
		short          = 3
		entrySize      = 12
	)
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("II*\x00")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("MM\x00*")):
		order = binary.BigEndian
	default:
		return 1
	}
	if len(data) < 8 {
		return 1
	}
	at := uint64(order.Uint32(data[4:]))
	if at+2 > uint64(len(data)) {
		return 1
	}
	entries := data[at+2:]
	for range order.Uint16(data[at:]) {
		if len(entries) < entrySize {
			return 1
		}
		if order.Uint16(entries) == orientationTag && order.Uint16(entries[2:]) == short && order.Uint32(entries[4:]) == 1 {
			if n := int(order.Uint16(entries[8:])); n >= 1 && n <= 8 {
				return n
			}
			return 1
		}
		entries = entries[entrySize:]
	}
	return 1
}

// pngOrientation looks for EXIF in a PNG's chunks.
func pngOrientation(data []byte) int {
	for rest := data[8:]; len(rest) >= 12; {
		n := uint64(binary.BigEndian.Uint32(rest))
		if n+12 > uint64(len(rest)) {
			break
		}
		if string(rest[4:8]) == "eXIf" {
			return exifOrientation(rest[8 : 8+n])
		}
		rest = rest[n+12:]
	}
	return 1
}

// turned is an image that is turned and mirrored as an EXIF orientation asks for: where the
// pixels of its rows go.
type turned struct {
	orientation   int
	width, height int // of what is turned
}

// size is that of the result.
func (t turned) size() (width, height int) {
	if t.orientation >= 5 {
		return t.height, t.width
	}
	return t.width, t.height
}

// row is where the first pixel of row y goes, and how far from there the second, in pixels.
func (t turned) row(y int) (first, step int) {
	w, h := t.width, t.height
	switch t.orientation {
	case 2:
		return y*w + w - 1, -1
	case 3:
		return (h-1-y)*w + w - 1, -1
	case 4:
		return (h - 1 - y) * w, 1
	case 5:
		return y, h
	case 6:
		return h - 1 - y, h
	case 7:
		return (w-1)*h + h - 1 - y, -h
	case 8:
		return (w-1)*h + y, -h
	}
	return y * w, 1
}

// put writes row y into the pixels of the result.
func (t turned) put(rgb, row []byte, y int) {
	at, step := t.row(y)
	for ; len(row) >= 3; row, at = row[3:], at+step {
		copy(rgb[3*at:3*at+3], row)
	}
}

// upright turns px as an EXIF orientation asks for.
func upright(px *Pixels, orientation int) *Pixels {
	if orientation == 1 {
		return px
	}
	t := turned{orientation, px.Width, px.Height}
	out := &Pixels{RGB: make([]byte, len(px.RGB))}
	out.Width, out.Height = t.size()
	for y := range px.Height {
		t.put(out.RGB, px.RGB[3*px.Width*y:][:3*px.Width], y)
	}
	return out
}
