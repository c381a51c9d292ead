package source

const (
	chunkBytes = 1 << 20
	mostKept   = 4 // chunks that reading may be ahead of what takes them
)

// unpacked is a weight file of an archive, as far as it has arrived.
type unpacked struct {
	size    int64
	arrived int64
	chunks  [][]byte // in order, all of chunkBytes except the last; nil: given back
	given   int      // chunks that are given back
}

// copy fills p with the bytes from offset on, which are there.
func (f *unpacked) copy(p []byte, offset int64) {
	for len(p) > 0 {
		n := copy(p, f.chunks[offset/chunkBytes][offset%chunkBytes:])
		p, offset = p[n:], offset+int64(n)
	}
}

// bytes returns n bytes from offset on, which are there: those of a chunk or, if
// no chunk holds them all, a copy in spare.
func (f *unpacked) bytes(offset int64, n int, spare *[]byte) []byte {
	if n == 0 {
		return nil
	}
	if chunk := f.chunks[offset/chunkBytes]; offset%chunkBytes+int64(n) <= int64(len(chunk)) {
		return chunk[offset%chunkBytes:][:n]
	}
	if cap(*spare) < n {
		*spare = make([]byte, n)
	}
	f.copy((*spare)[:n], offset)
	return (*spare)[:n]
}

// release gives the chunks that lie before byte until and have arrived back to
// where they are from.
func (f *unpacked) release(until int64, to *arena) {
	for f.given < len(f.chunks) && min(int64(f.given+1)*chunkBytes, f.size) <= min(until, f.arrived) {
		to.put(f.chunks[f.given])
		f.chunks[f.given] = nil
		f.given++
	}
}
