package sample

// philox is Philox4x32-10: ten rounds over a 128-bit counter under a 64-bit
// key (Salmon et al. 2011, §4.3).
func philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		mul0, mul1   = 0xD2511F53, 0xCD9E8D57 // round multipliers
		weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85 // key increments: golden ratio, √3-1
	)
	c, k := counter, key
	for range 10 {
		p0 := uint64(mul0) * uint64(c[0])
		p1 := uint64(mul1) * uint64(c[2])
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k[0], uint32(p1), uint32(p0>>32) ^ c[3] ^ k[1], uint32(p0)}
		k[0] += weyl0
		k[1] += weyl1
	}
	return c
}

// Uniform returns the draw in [0, 1) for the index-th generated token, 0
// first, of a sequence with that seed.
func Uniform(seed uint64, index int32) float64 {
	x := philox([4]uint32{uint32(index)}, [2]uint32{uint32(seed), uint32(seed >> 32)})
	return float64((uint64(x[0])<<32|uint64(x[1]))>>11) * 0x1p-53
}
