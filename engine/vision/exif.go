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

// upright turns and mirrors px as an EXIF orientation asks for.
func upright(px *Pixels, orientation int) *Pixels {
	if orientation == 1 {
		return px
	}
	out := &Pixels{Width: px.Width, Height: px.Height, RGB: make([]byte, len(px.RGB))}
	if orientation >= 5 {
		out.Width, out.Height = px.Height, px.Width
	}
	w, h := px.Width, px.Height
	for y := range out.Height {
		for x := range out.Width {
			var sx, sy int
			switch orientation {
			case 2:
				sx, sy = w-1-x, y
			case 3:
				sx, sy = w-1-x, h-1-y
			case 4:
				sx, sy = x, h-1-y
			case 5:
				sx, sy = y, x
			case 6:
				sx, sy = y, h-1-x
			case 7:
				sx, sy = w-1-y, h-1-x
			case 8:
				sx, sy = w-1-y, x
			}
			copy(out.RGB[3*(y*out.Width+x):][:3], px.RGB[3*(sy*w+sx):])
		}
	}
	return out
}
