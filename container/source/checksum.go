package source

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/minio/crc64nvme"
)

// checksum is the checksum S3 keeps of a whole object.
type checksum struct {
	algorithm *algorithm // nil: there is none that can be put together from parts
	want      uint64
}

// algorithm is a CRC, bits reflected, that begins and ends with all ones: so
// the sum of two parts follows from the sum of each.
type algorithm struct {
	name string
	bits uint
	poly uint64 // reflected, without its highest term
	sum  func([]byte) uint64
}

var (
	crc64NVME = &algorithm{"CRC64NVME", 64, 0x9a6c9329ac4bc9b5, crc64nvme.Checksum}
	crc32IEEE = &algorithm{"CRC32", 32, crc32.IEEE, func(p []byte) uint64 { return uint64(crc32.ChecksumIEEE(p)) }}
	crc32C    = &algorithm{"CRC32C", 32, crc32.Castagnoli, func(p []byte) uint64 { return uint64(crc32.Checksum(p, castagnoli)) }}

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// decode reads a checksum as S3's headers have it: base64, big-endian.
func (a *algorithm) decode(text string) (uint64, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != int(a.bits/8) {
		return 0, fmt.Errorf("%q is not a checksum of type %s", text, a.name)
	}
	if a.bits == 32 {
		return uint64(binary.BigEndian.Uint32(raw)), nil
	}
	return binary.BigEndian.Uint64(raw), nil
}

// multiply multiplies two polynomials modulo the CRC's. In the reflected form
// the highest bit is the constant term.
func (a *algorithm) multiply(x, y uint64) uint64 {
	one := uint64(1) << (a.bits - 1)
	var product uint64
	for ; x != 0; x <<= 1 {
		if a.bits == 32 {
			x &= 1<<32 - 1
		}
		if x&one != 0 {
			product ^= y
		}
		if y&1 != 0 {
			y = y>>1 ^ a.poly
		} else {
			y >>= 1
		}
	}
	return product
}

// shift returns what a part with this sum contributes to the sum of a whole
// that continues for n bytes after it: sum · x^(8n).
func (a *algorithm) shift(sum uint64, n int64) uint64 {
	power := uint64(1) << (a.bits - 1 - 8) // x^8
	for ; n != 0; n >>= 1 {
		if n&1 != 0 {
			sum = a.multiply(sum, power)
		}
		power = a.multiply(power, power)
	}
	return sum
}

// tally puts the checksum of an object together from parts that arrive in any
// order. CRCs are linear: the whole is the sum of the parts, each shifted by
// what follows it. (M. Adler's crc32_combine in zlib rests on the same.)
// Safe for concurrent use.
type tally struct {
	checksum
	size int64

	mu      sync.Mutex
	sum     uint64
	covered int64
}

func newTally(c checksum, size int64) *tally { return &tally{checksum: c, size: size} }

// compares reports whether there is a checksum to compare with.
func (t *tally) compares() bool { return t != nil && t.algorithm != nil }

// add takes the bytes from offset on; each byte of the object once.
func (t *tally) add(p []byte, offset int64) {
	if !t.compares() || len(p) == 0 {
		return
	}
	part := t.algorithm.shift(t.algorithm.sum(p), t.size-offset-int64(len(p)))
	t.mu.Lock()
	t.sum ^= part
	t.covered += int64(len(p))
	t.mu.Unlock()
}

// check compares, if the object was read whole and has a checksum.
func (t *tally) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.algorithm == nil || t.covered != t.size || t.sum == t.want {
		return nil
	}
	return fmt.Errorf("damaged in transit: its %s is %0*x, the bytes that came have %0*x", t.algorithm.name, t.algorithm.bits/4, t.want, t.algorithm.bits/4, t.sum)
}
