package quant

import (
	"encoding/binary"

	"github.com/millrace-ai/millrace/engine/plan"
)

// Pack writes n rows of a matrix, from its row first on, into panels, which are those
// of the matrix in the layout plan.Panels and were zeros at first. src are the rows, of
// cols elements of format f.
func Pack(panels, src []byte, first, n, cols int, f plan.Format) {
	width, size := f.RowBytes(cols), f.PanelBytes(cols)
	for i := range n {
		packRow(panels[(first+i)/plan.PanelRows*size:][:size], src[i*width:][:width], (first+i)%plan.PanelRows, cols, f)
	}
}

func packRow(panel, row []byte, lane, cols int, f plan.Format) {
	codes, unit := f.CodeBytes(cols), unitOf(f)
	for at := 0; at < codes; at += unit {
		to := panel[at*plan.PanelRows+lane*unit:][:unit]
		if unit < 4 {
			copy(to, row[at:])
			continue
		}
		var word [4]byte
		copy(word[:], row[at:codes])
		w := binary.LittleEndian.Uint32(word[:])
		switch f.Kind() {
		case plan.W8:
			w ^= 0x80808080
		case plan.W4:
			w = spread(w&0xffff) | spread(w>>16)<<4
		}
		binary.LittleEndian.PutUint32(to, w)
	}
	beside, each, at := besides(panel, cols, f)
	for i := range len(row[codes:]) / each {
		copy(beside[at(i, lane):][:each], row[codes+i*each:])
	}
	if f.Kind() == plan.F8 { // products do not see which codes are NaN, but the scale
		group := f.Group()
		if group == 0 {
			group = cols
		}
		for k, code := range row[:codes] {
			if code&0x7f == 0x7f {
				binary.LittleEndian.PutUint32(beside[at(k/group, lane):], 0x7fc00000)
			}
		}
	}
}

// Unpack is the inverse of Pack for the first n rows, except that a group of F8 with a
// NaN has become one of NaN.
func Unpack(dst, panels []byte, n, cols int, f plan.Format) {
	width, size := f.RowBytes(cols), f.PanelBytes(cols)
	for i := range n {
		unpackRow(dst[i*width:][:width], panels[i/plan.PanelRows*size:][:size], i%plan.PanelRows, cols, f)
	}
}

func unpackRow(row, panel []byte, lane, cols int, f plan.Format) {
	codes, unit := f.CodeBytes(cols), unitOf(f)
	for at := 0; at < codes; at += unit {
		from := panel[at*plan.PanelRows+lane*unit:][:unit]
		if unit < 4 {
			copy(row[at:], from)
			continue
		}
		w := binary.LittleEndian.Uint32(from)
		switch f.Kind() {
		case plan.W8:
			w ^= 0x80808080
		case plan.W4:
			w = gather(w) | gather(w>>4)<<16
		}
		var word [4]byte
		binary.LittleEndian.PutUint32(word[:], w)
		copy(row[at:codes], word[:])
	}
	beside, each, at := besides(panel, cols, f)
	for i := range len(row[codes:]) / each {
		copy(row[codes+i*each:][:each], beside[at(i, lane):])
	}
}

// unitOf is how many bytes of a row stay together in a panel.
func unitOf(f plan.Format) int {
	switch f.Kind() {
	case plan.F16:
		return 2
	case plan.F8:
		return 1
	}
	return 4
}

// besides returns what a panel has after its codes, the bytes of a scale or minimum
// there, and where number i of a row of it, of scales and then minimums, stands.
func besides(panel []byte, cols int, f plan.Format) (beside []byte, each int, at func(i, lane int) int) {
	if each = 2; f.Kind() == plan.F8 {
		each = 4
	}
	if f.Quantized() {
		beside = panel[plan.PanelRows*f.CodeBytes((cols+7)/8*8):]
	}
	return beside, each, func(i, lane int) int { return (i*plan.PanelRows + lane) * each }
}

// spread puts the four low nibbles of x into a byte each, the first into the lowest.
func spread(x uint32) uint32 {
	x = (x | x<<8) & 0x00ff00ff
	return (x | x<<4) & 0x0f0f0f0f
}

// gather is the inverse of spread; the high nibbles of x do not matter.
func gather(x uint32) uint32 {
	x &= 0x0f0f0f0f
	x = (x | x>>4) & 0x00ff00ff
	return (x | x>>8) & 0xffff
}
