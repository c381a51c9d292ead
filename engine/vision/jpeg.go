package vision

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A JPEG decoder of its own, as what image/jpeg decodes differs from libjpeg's by one in a
// byte of fifty, and by more where chroma is subsampled: the inverse transform, the
// interpolation of chroma and the conversion to RGB are libjpeg's here, to the last bit.
// It reads baseline, extended and progressive images of 8 bits with Huffman codes.

// Markers.
const (
	markSOF0  = 0xc0
	markSOF1  = 0xc1
	markSOF2  = 0xc2
	markDHT   = 0xc4
	markSOF15 = 0xcf
	markJPG   = 0xc8
	markDAC   = 0xcc
	markRST0  = 0xd0
	markRST7  = 0xd7
	markSOI   = 0xd8
	markEOI   = 0xd9
	markSOS   = 0xda
	markDQT   = 0xdb
	markDRI   = 0xdd
	markAPP0  = 0xe0
	markAPP1  = 0xe1
	markAPP14 = 0xee
)

const (
	blockSize = 64
	// maxJPEGWork bounds what scans take: blocks of all scans together, in images. An
	// encoder writes ten scans or so, each of one component: six images.
	maxJPEGWork = 20
	codeBits    = 9 // of codes that are found in one look-up
)

var errShortJPEG = errors.New("ends early")

// jpegComponent is a colour, or a part of one.
type jpegComponent struct {
	id, h, v     int // sampling factors
	table        int // of quantization
	width, rows  int // in samples, without what pads the last blocks
	across, down int // blocks that are allocated
	samples      []byte
	coefficients []int16 // of progressive images
	dc, ac       int     // tables of the scan
	last         int32   // DC of the block before
}

// huffman is a table of codes.
type huffman struct {
	quick  [1 << codeBits]uint16 // length<<8 | value, for codes that are short enough
	most   [18]int32             // largest code of each length, or -1; 17 stops a search
	offset [17]int32             // what is added to a code for its index in values
	values []byte
}

type jpegDecoder struct {
	data []byte
	at   int

	width, height int
	components    []jpegComponent
	hMax, vMax    int
	progressive   bool
	quantization  [4]*[blockSize]int32
	codes         [2][4]*huffman // DC, AC
	restart       int
	orientation   int
	jfif          bool
	adobe         int // transform, or -1
	work          int // blocks that scans may still have
	scanned       bool

	bits  uint64 // read and not used, from the top
	nbits int
	ended bool // a marker or the end was met: zeros follow
	empty int  // bytes that were read after it
	run   int  // blocks left in a run of ends of blocks
}

// readJPEG decodes a JPEG image.
func readJPEG(data []byte, limits *Limits) (*Pixels, error) {
	d := &jpegDecoder{data: data, at: 2, adobe: -1, orientation: 1}
	if err := d.read(limits); err != nil {
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrFormat) {
			return nil, err
		}
		return nil, corrupt("JPEG", err)
	}
	return d.convert()
}

// read reads all segments.
func (d *jpegDecoder) read(limits *Limits) error {
	for {
		marker, ok := d.marker()
		if !ok || marker == markEOI {
			break
		}
		if marker == markSOI || marker >= markRST0 && marker <= markRST7 || marker == 0x01 {
			continue
		}
		if d.at+2 > len(d.data) {
			return errShortJPEG
		}
		n := int(binary.BigEndian.Uint16(d.data[d.at:]))
		if n < 2 || n > len(d.data)-d.at {
			return errShortJPEG
		}
		body := d.data[d.at+2 : d.at+n]
		d.at += n
		var err error
		switch {
		case marker == markDQT:
			err = d.readQuantization(body)
		case marker == markDHT:
			err = d.readCodes(body)
		case marker == markDRI:
			if len(body) != 2 {
				return errors.New("restart interval of another length")
			}
			d.restart = int(binary.BigEndian.Uint16(body))
		case marker == markSOS:
			err = d.readScan(body)
		case marker == markSOF0 || marker == markSOF1 || marker == markSOF2:
			err = d.readFrame(body, marker == markSOF2, limits)
		case marker > markSOF2 && marker <= markSOF15 && marker != markJPG && marker != markDAC:
			return fmt.Errorf("%w: JPEG of type SOF%d, expected a baseline or progressive one with Huffman codes", ErrFormat, marker-markSOF0)
		case marker == markAPP0 && len(body) >= 5 && string(body[:5]) == "JFIF\x00":
			d.jfif = true
		case marker == markAPP1 && len(body) >= 6 && string(body[:6]) == "Exif\x00\x00":
			if d.orientation == 1 {
				d.orientation = exifOrientation(body[6:])
			}
		case marker == markAPP14 && len(body) >= 12 && string(body[:5]) == "Adobe":
			d.adobe = int(body[11])
		}
		if err != nil {
			return err
		}
	}
	if !d.scanned {
		return errors.New("no image data")
	}
	return nil
}

// marker skips to the next marker and returns it.
func (d *jpegDecoder) marker() (byte, bool) {
	for d.at+1 < len(d.data) {
		if d.data[d.at] == 0xff && d.data[d.at+1] != 0 && d.data[d.at+1] != 0xff {
			m := d.data[d.at+1]
			d.at += 2
			return m, true
		}
		d.at++
	}
	return 0, false
}

func (d *jpegDecoder) readQuantization(body []byte) error {
	for len(body) > 0 {
		precision, id := body[0]>>4, body[0]&15
		n := blockSize << precision
		if precision > 1 || id > 3 || len(body) < 1+n {
			return errors.New("quantization table is damaged")
		}
		t := new([blockSize]int32)
		for i := range t {
			if precision == 0 {
				t[zigzag[i]] = int32(body[1+i])
			} else {
				t[zigzag[i]] = int32(binary.BigEndian.Uint16(body[1+2*i:]))
			}
		}
		d.quantization[id] = t
		body = body[1+n:]
	}
	return nil
}

func (d *jpegDecoder) readCodes(body []byte) error {
	for len(body) > 0 {
		class, id := body[0]>>4, body[0]&15
		if class > 1 || id > 3 || len(body) < 17 {
			return errors.New("damaged Huffman table")
		}
		counts, total := body[1:17], 0
		for _, n := range counts {
			total += int(n)
		}
		if total > 256 || len(body) < 17+total {
			return errors.New("damaged Huffman table")
		}
		h := &huffman{values: body[17 : 17+total]}
		code, index := int32(0), int32(0)
		for i, n := range counts {
			length := i + 1
			h.offset[length] = index - code
			h.most[length] = -1
			for range n {
				if length <= codeBits {
					first := code << (codeBits - length)
					if int(first)+1<<(codeBits-length) > len(h.quick) {
						return errors.New("damaged Huffman table")
					}
					for j := range int32(1) << (codeBits - length) {
						h.quick[first+j] = uint16(length)<<8 | uint16(h.values[index])
					}
				}
				h.most[length] = code
				code++
				index++
			}
			if code > 1<<length {
				return errors.New("damaged Huffman table")
			}
			code <<= 1
		}
		d.codes[class][id] = h
		body = body[17+total:]
	}
	return nil
}

func (d *jpegDecoder) readFrame(body []byte, progressive bool, limits *Limits) error {
	if d.components != nil {
		return errors.New("two frames")
	}
	if len(body) < 6 || len(body) != 6+3*int(body[5]) {
		return errShortJPEG
	}
	if body[0] != 8 {
		return fmt.Errorf("%w: JPEG of %d bits, expected 8", ErrFormat, body[0])
	}
	d.progressive = progressive
	d.height, d.width = int(binary.BigEndian.Uint16(body[1:])), int(binary.BigEndian.Uint16(body[3:]))
	n := int(body[5])
	if n != 1 && n != 3 && n != 4 {
		return fmt.Errorf("%w: JPEG of %d components, expected 1, 3 or 4", ErrFormat, n)
	}
	components := make([]jpegComponent, n)
	perMCU := 0
	for i := range components {
		c, b := &components[i], body[6+3*i:]
		c.id, c.h, c.v, c.table = int(b[0]), int(b[1]>>4), int(b[1]&15), int(b[2])
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.table > 3 {
			return errors.New("sampling factors are damaged")
		}
		if n == 1 {
			c.h, c.v = 1, 1 // it is not interleaved with anything
		}
		d.hMax, d.vMax = max(d.hMax, c.h), max(d.vMax, c.v)
		perMCU += c.h * c.v
	}
	if perMCU > 10 {
		return errors.New("sampling factors are damaged")
	}
	perSample := 1.0
	if progressive {
		perSample = 3
	}
	if err := limits.check(d.width, d.height, perSample*float64(perMCU)/float64(d.hMax*d.vMax)); err != nil {
		return err
	}
	across, down := ceil(d.width, 8*d.hMax), ceil(d.height, 8*d.vMax)
	for i := range components {
		c := &components[i]
		if d.hMax%c.h != 0 || d.vMax%c.v != 0 {
			return fmt.Errorf("%w: JPEG with fractional sampling factors", ErrFormat)
		}
		c.width, c.rows = ceil(d.width*c.h, d.hMax), ceil(d.height*c.v, d.vMax)
		c.across, c.down = across*c.h, down*c.v
		c.samples = make([]byte, c.across*c.down*blockSize)
		if progressive {
			c.coefficients = make([]int16, c.across*c.down*blockSize)
		}
		d.work += maxJPEGWork * c.across * c.down
	}
	d.components = components
	return nil
}

func ceil(a, b int) int { return (a + b - 1) / b }

// readScan reads a scan's header and its data.
func (d *jpegDecoder) readScan(body []byte) error {
	if len(d.components) == 0 {
		return errors.New("a scan without a frame")
	}
	if len(body) < 1 || body[0] < 1 || body[0] > 4 || len(body) != 4+2*int(body[0]) {
		return errShortJPEG
	}
	n := int(body[0])
	var scan []*jpegComponent
	for i := range n {
		id, tables := int(body[1+2*i]), body[2+2*i]
		var c *jpegComponent
		for j := range d.components {
			if d.components[j].id == id {
				c = &d.components[j]
			}
		}
		for _, other := range scan {
			if other == c {
				c = nil
			}
		}
		if c == nil || tables>>4 > 3 || tables&15 > 3 {
			return errors.New("a scan of a component that is not there")
		}
		c.dc, c.ac, c.last = int(tables>>4), int(tables&15), 0
		scan = append(scan, c)
	}
	first, last, high, low := int(body[1+2*n]), int(body[2+2*n]), int(body[3+2*n]>>4), int(body[3+2*n]&15)
	if !d.progressive {
		first, last, high, low = 0, blockSize-1, 0, 0
	}
	if first > last || last >= blockSize || low > 13 || high > 13 || high != 0 && high != low+1 ||
		d.progressive && (first == 0) != (last == 0) || first > 0 && n != 1 {
		return errors.New("a scan's spectral selection is damaged")
	}
	for _, c := range scan {
		if first == 0 && high == 0 && d.codes[0][c.dc] == nil || last > 0 && d.codes[1][c.ac] == nil {
			return errors.New("a scan without its Huffman table")
		}
		if d.quantization[c.table] == nil {
			return errors.New("a scan without its quantization table")
		}
	}

	d.bits, d.nbits, d.ended, d.empty, d.run = 0, 0, false, 0, 0
	across, down := ceil(d.width, 8*d.hMax), ceil(d.height, 8*d.vMax)
	if n == 1 { // its blocks come one by one, without those that fill up an MCU
		across, down = ceil(scan[0].width, 8), ceil(scan[0].rows, 8)
	}
	left := d.restart
	var block [blockSize]int32
	for y := range down {
		for x := range across {
			if d.restart > 0 {
				if left == 0 {
					if err := d.resume(scan); err != nil {
						return err
					}
					left = d.restart
				}
				left--
			}
			for _, c := range scan {
				h, v := c.h, c.v
				if n == 1 {
					h, v = 1, 1
				}
				if d.work -= h * v; d.work < 0 {
					return fmt.Errorf("%w: JPEG with more scans than an encoder writes", ErrTooLarge)
				}
				for i := range h * v {
					at := (y*v+i/h)*c.across + x*h + i%h
					var err error
					if d.progressive {
						err = d.progress(c, c.coefficients[at*blockSize:][:blockSize], first, last, high, low)
					} else if err = d.sequential(c, &block); err == nil {
						d.transform(c, &block, at)
					}
					if err != nil {
						return err
					}
				}
			}
		}
	}
	d.scanned = true
	return nil
}

// resume expects a restart marker.
func (d *jpegDecoder) resume(scan []*jpegComponent) error {
	m, ok := d.marker()
	if !ok || m < markRST0 || m > markRST7 {
		return errors.New("a restart marker is missing")
	}
	d.bits, d.nbits, d.ended, d.empty, d.run = 0, 0, false, 0, 0
	for _, c := range scan {
		c.last = 0
	}
	return nil
}

// fill makes at least 25 bits available.
func (d *jpegDecoder) fill() error {
	for d.nbits <= 56 {
		var b byte
		if !d.ended {
			if d.at >= len(d.data) {
				d.ended = true
			} else if b = d.data[d.at]; b == 0xff {
				if d.at+1 < len(d.data) && d.data[d.at+1] == 0 {
					d.at += 2
				} else {
					d.ended, b = true, 0
				}
			} else {
				d.at++
			}
		}
		if d.ended {
			// A block may look some bits ahead, but not use more than it has.
			if d.empty++; d.empty > 16 {
				return errShortJPEG
			}
		}
		d.bits |= uint64(b) << (56 - d.nbits)
		d.nbits += 8
	}
	return nil
}

// take returns n bits, at most 16.
func (d *jpegDecoder) take(n int) (int32, error) {
	if d.nbits < n {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	v := int32(d.bits >> 1 >> (63 - n))
	d.bits <<= n
	d.nbits -= n
	return v, nil
}

// extended is take, of a number whose first bit says that it is not negative.
func (d *jpegDecoder) extended(n int) (int32, error) {
	if n == 0 {
		return 0, nil
	}
	v, err := d.take(n)
	if v < 1<<(n-1) {
		v += -1<<n + 1
	}
	return v, err
}

// code returns the value of the next Huffman code.
func (d *jpegDecoder) code(h *huffman) (int, error) {
	if d.nbits < 16 {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	if q := h.quick[d.bits>>(64-codeBits)]; q != 0 {
		n := int(q >> 8)
		d.bits <<= n
		d.nbits -= n
		return int(q & 0xff), nil
	}
	for n := codeBits + 1; n <= 16; n++ {
		if code := int32(d.bits >> (64 - n)); code <= h.most[n] {
			d.bits <<= n
			d.nbits -= n
			return int(h.values[code+h.offset[n]]), nil
		}
	}
	return 0, errors.New("a Huffman code that is not in its table")
}

// readDC reads the first coefficient of a block, by how it differs from the last block's.
func (d *jpegDecoder) readDC(c *jpegComponent) error {
	n, err := d.code(d.codes[0][c.dc])
	if err != nil {
		return err
	}
	if n > 16 {
		return errors.New("a coefficient is damaged")
	}
	diff, err := d.extended(n)
	c.last += diff
	return err
}

// sequential reads a block of a baseline image.
func (d *jpegDecoder) sequential(c *jpegComponent, block *[blockSize]int32) error {
	*block = [blockSize]int32{}
	if err := d.readDC(c); err != nil {
		return err
	}
	block[0] = c.last
	ac := d.codes[1][c.ac]
	for k := 1; k < blockSize; k++ {
		rs, err := d.code(ac)
		if err != nil {
			return err
		}
		r, s := rs>>4, rs&15
		if s == 0 {
			if r != 15 {
				break
			}
			k += 15
			continue
		}
		if k += r; k >= blockSize {
			return errors.New("a block of more than 64 coefficients")
		}
		if block[zigzag[k]], err = d.extended(s); err != nil {
			return err
		}
	}
	return nil
}

// progress reads what a scan of a progressive image has of a block.
func (d *jpegDecoder) progress(c *jpegComponent, block []int16, first, last, high, low int) error {
	if first == 0 {
		if high != 0 {
			bit, err := d.take(1)
			block[0] |= int16(bit << low)
			return err
		}
		err := d.readDC(c)
		block[0] = int16(c.last << low)
		return err
	}
	if high != 0 {
		return d.refine(c, block, first, last, low)
	}
	if d.run > 0 {
		d.run--
		return nil
	}
	ac := d.codes[1][c.ac]
	for k := first; k <= last; k++ {
		rs, err := d.code(ac)
		if err != nil {
			return err
		}
		r, s := rs>>4, rs&15
		if s == 0 {
			if r != 15 {
				more, err := d.take(r)
				d.run = 1<<r + int(more) - 1
				return err
			}
			k += 15
			continue
		}
		if k += r; k > last {
			return errors.New("a block of too many coefficients")
		}
		v, err := d.extended(s)
		if err != nil {
			return err
		}
		block[zigzag[k]] = int16(v << low)
	}
	return nil
}

// refine reads one more bit of coefficients.
func (d *jpegDecoder) refine(c *jpegComponent, block []int16, first, last, low int) error {
	one := int16(1) << low
	k := first
	// correct reads the bit of a coefficient that is not zero.
	correct := func(v *int16) error {
		bit, err := d.take(1)
		if bit != 0 && *v&one == 0 {
			if *v > 0 {
				*v += one
			} else {
				*v -= one
			}
		}
		return err
	}
	if d.run == 0 {
		ac := d.codes[1][c.ac]
		for ; k <= last; k++ {
			rs, err := d.code(ac)
			if err != nil {
				return err
			}
			r, s := rs>>4, rs&15
			var v int16
			switch {
			case s > 1:
				return errors.New("a coefficient is damaged")
			case s == 1:
				bit, err := d.take(1)
				if err != nil {
					return err
				}
				if v = one; bit == 0 {
					v = -one
				}
			case r != 15:
				more, err := d.take(r)
				if err != nil {
					return err
				}
				d.run = 1<<r + int(more)
			}
			if d.run > 0 {
				break
			}
			// r zeros are passed, and what is not zero on the way is corrected.
			for ; k <= last; k++ {
				at := &block[zigzag[k]]
				if *at != 0 {
					if err := correct(at); err != nil {
						return err
					}
					continue
				}
				if r == 0 {
					if v != 0 {
						*at = v
					}
					break
				}
				r--
			}
		}
	}
	if d.run > 0 {
		for ; k <= last; k++ {
			if at := &block[zigzag[k]]; *at != 0 {
				if err := correct(at); err != nil {
					return err
				}
			}
		}
		d.run--
	}
	return nil
}

// zigzag is where the coefficients lie in a block, in the order in which they are coded.
var zigzag = [blockSize]int{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
}

// transform writes block number at of c as samples.
func (d *jpegDecoder) transform(c *jpegComponent, block *[blockSize]int32, at int) {
	for i, q := range d.quantization[c.table] {
		block[i] *= q
	}
	stride := 8 * c.across
	inverseDCT(block, c.samples[at/c.across*8*stride+at%c.across*8:], stride)
}

// inverseDCT is libjpeg's accurate integer transform (jidctint.c): Loeffler, Ligtenberg and
// Moschytz's, with 13 bits of fraction in constants and 2 in what is between the passes.
func inverseDCT(block *[blockSize]int32, out []byte, stride int) {
	const (
		between = 2
		after1  = 13 - between
		after2  = 13 + between + 3
	)
	for x := range 8 {
		b := block[x : x+57 : x+57]
		if b[8]|b[16]|b[24]|b[32]|b[40]|b[48]|b[56] == 0 {
			dc := b[0] << between
			for y := 0; y < 64; y += 8 {
				b[y] = dc
			}
			continue
		}
		e, o := butterfly(b[0], b[8], b[16], b[24], b[32], b[40], b[48], b[56])
		const half = 1 << (after1 - 1)
		for y := range 4 {
			b[8*y] = (e[y] + o[y] + half) >> after1
			b[56-8*y] = (e[y] - o[y] + half) >> after1
		}
	}
	for y := range 8 {
		b, dst := block[8*y:8*y+8:8*y+8], out[y*stride:][:8]
		e, o := butterfly(b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7])
		const half = 1<<(after2-1) + 128<<after2
		for x := range 4 {
			dst[x] = clip((e[x] + o[x] + half) >> after2)
			dst[7-x] = clip((e[x] - o[x] + half) >> after2)
		}
	}
}

// butterfly is a transform of eight numbers: output i is even[i] + odd[i], output 7-i is
// even[i] - odd[i].
func butterfly(x0, x1, x2, x3, x4, x5, x6, x7 int32) (even, odd [4]int32) {
	// Constants of the transform, times 2^13.
	const (
		c0298631336 = 2446
		c0390180644 = 3196
		c0541196100 = 4433
		c0765366865 = 6270
		c0899976223 = 7373
		c1175875602 = 9633
		c1501321110 = 12299
		c1847759065 = 15137
		c1961570560 = 16069
		c2053119869 = 16819
		c2562915447 = 20995
		c3072711026 = 25172
	)
	z := (x2 + x6) * c0541196100
	a2, a3 := z-x6*c1847759065, z+x2*c0765366865
	a0, a1 := (x0+x4)<<13, (x0-x4)<<13
	even = [4]int32{a0 + a3, a1 + a2, a1 - a2, a0 - a3}

	z1, z2, z3, z4 := x7+x1, x5+x3, x7+x3, x5+x1
	z5 := (z3 + z4) * c1175875602
	z1, z2 = -z1*c0899976223, -z2*c2562915447
	z3, z4 = z5-z3*c1961570560, z5-z4*c0390180644
	odd = [4]int32{
		x1*c1501321110 + z1 + z4,
		x3*c3072711026 + z2 + z3,
		x5*c2053119869 + z2 + z4,
		x7*c0298631336 + z1 + z3,
	}
	return even, odd
}

// convert makes RGB of the components, upright.
func (d *jpegDecoder) convert() (*Pixels, error) {
	for i := range d.components {
		c := &d.components[i]
		if !d.progressive {
			continue
		}
		if d.quantization[c.table] == nil {
			return nil, fmt.Errorf("%w: JPEG: no quantization table", ErrCorrupt)
		}
		var block [blockSize]int32
		for at := range c.across * c.down {
			for j, v := range c.coefficients[at*blockSize:][:blockSize] {
				block[j] = int32(v)
			}
			d.transform(c, &block, at)
		}
		c.coefficients = nil
	}
	turn := turned{d.orientation, d.width, d.height}
	px := &Pixels{RGB: make([]byte, 3*d.width*d.height)}
	px.Width, px.Height = turn.size()
	turns := d.orientation != 1
	row := make([]byte, 3*d.width) // of an image that is turned
	luma := d.isYCC()
	lines := make([][]byte, len(d.components))
	for i := range lines {
		lines[i] = make([]byte, d.width+8)
	}
	for y := range d.height {
		for i := range d.components {
			d.upsample(&d.components[i], y, lines[i])
		}
		dst := row
		if !turns {
			dst = px.RGB[3*d.width*y:][:3*d.width]
		}
		switch {
		case len(lines) == 1:
			for x, v := range lines[0][:d.width] {
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		case luma:
			for x := range d.width {
				dst[3*x], dst[3*x+1], dst[3*x+2] = fromYCC(int32(lines[0][x]), int32(lines[1][x])-128, int32(lines[2][x])-128)
			}
		default:
			for x := range d.width {
				dst[3*x], dst[3*x+1], dst[3*x+2] = lines[0][x], lines[1][x], lines[2][x]
			}
		}
		if len(lines) == 4 {
			// Inks are stored inverted, as Adobe does and Pillow takes for granted.
			for x, k := range lines[3][:d.width] {
				for i := range 3 {
					ink := 255 - dst[3*x+i]
					if luma { // the conversion has inverted them once more
						ink = dst[3*x+i]
					}
					dst[3*x+i] = k - times255(ink, k)
				}
			}
		}
		if turns {
			turn.put(px.RGB, dst, y)
		}
	}
	return px, nil
}

// times255 is a * b / 255, rounded.
func times255(a, b byte) byte {
	v := uint32(a)*uint32(b) + 128
	return byte((v>>8 + v) >> 8)
}

// isYCC reports whether the first three components are luma and chroma, as libjpeg guesses.
func (d *jpegDecoder) isYCC() bool {
	switch {
	case len(d.components) == 1:
		return false
	case len(d.components) == 4:
		return d.adobe > 0
	case d.jfif:
		return true
	case d.adobe >= 0:
		return d.adobe != 0
	}
	return d.components[0].id != 'R' || d.components[1].id != 'G' || d.components[2].id != 'B'
}

// fromYCC converts a colour as libjpeg does.
func fromYCC(y, cb, cr int32) (r, g, b byte) {
	const half = 1 << 15
	return clip(y + (91881*cr+half)>>16), clip(y + (-22554*cb-46802*cr+half)>>16), clip(y + (116130*cb+half)>>16)
}

// upsample writes line y of the image in c's samples.
func (d *jpegDecoder) upsample(c *jpegComponent, y int, out []byte) {
	stride := 8 * c.across
	line := func(y int) []byte { return c.samples[stride*min(max(y, 0), c.rows-1):][:c.width] }
	wide, high := d.hMax/c.h, d.vMax/c.v
	near := line(y / high)
	far := near
	if high == 2 {
		far = line(y/2 - 1 + y%2*2)
	}
	switch {
	case wide == 1 && high == 1:
		copy(out, near)
	case wide == 1 && high == 2:
		bias := int32(1 + y%2)
		for x := range near {
			out[x] = byte((3*int32(near[x]) + int32(far[x]) + bias) >> 2)
		}
	case wide == 2 && high == 1 && c.width > 2:
		last := c.width - 1
		for x := range near {
			v := 3 * int32(near[x])
			left, right := int32(near[max(x-1, 0)]), int32(near[min(x+1, last)])
			out[2*x], out[2*x+1] = byte((v+left+1)>>2), byte((v+right+2)>>2)
		}
		out[0], out[2*last+1] = near[0], near[last]
	case wide == 2 && high == 2 && c.width > 2:
		before := 3*int32(near[0]) + int32(far[0])
		at := before
		for x := range near {
			after := at
			if x+1 < len(near) {
				after = 3*int32(near[x+1]) + int32(far[x+1])
			}
			out[2*x], out[2*x+1] = byte((3*at+before+8)>>4), byte((3*at+after+7)>>4)
			before, at = at, after
		}
	default:
		for x := range d.width {
			out[x] = near[x/wide]
		}
	}
}
