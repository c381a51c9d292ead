package sample

// The watermark's strength: the values of its authors' main experiment, and
// TGI's.
const (
	WatermarkGamma = 0.5 // the share of a vocabulary that is green
	WatermarkDelta = 2.0 // what is added to the logit of a green token
)

const (
	watermarkKey = 15485863 // TGI's: the millionth prime
	greenBelow   = uint32(WatermarkGamma * (1 << 32))
)

// Green reports whether the watermark favours token id after token prev. It
// needs no model, so a detector is a loop over a text's tokens.
func Green(prev, id int32) bool { return green(split(prev), id) }

// split is the seed of the split that follows prev.
func split(prev int32) uint32 { return mix(uint32(prev) ^ watermarkKey) }

func green(seed uint32, id int32) bool { return mix(uint32(id)^seed) < greenBelow }

// mix is the finaliser of MurmurHash3 (Appleby): each bit of x decides about
// half of the bits of the result.
func mix(x uint32) uint32 {
	x = (x ^ x>>16) * 0x85ebca6b
	x = (x ^ x>>13) * 0xc2b2ae35
	return x ^ x>>16
}

// watermark is step 4.
func watermark(l []float32, prev int32) {
	seed := split(prev)
	for i := range l {
		if green(seed, int32(i)) {
			l[i] += WatermarkDelta
		}
	}
}
