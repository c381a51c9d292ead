package sample

import "testing"

// The vectors are those the authors publish with Random123 (kat_vectors).
func TestPhiloxKnownAnswers(t *testing.T) {
	const ones = 0xffffffff
	for _, tt := range []struct {
		name    string
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{"zeros", [4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{"ones", [4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{"digits of pi", [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := philox(tt.counter, tt.key); got != tt.want {
				t.Errorf("philox(%x, %x) = %x, want %x", tt.counter, tt.key, got, tt.want)
			}
		})
	}
}

func TestUniform(t *testing.T) {
	if got, want := Uniform(0, 0), float64(0x6627e8d5e169c58d>>11)*0x1p-53; got != want {
		t.Errorf("Uniform(0, 0) = %v, want %v: the first two words of the zero vector", got, want)
	}
	if Uniform(1, 0) == Uniform(1<<32, 0) {
		t.Error("the halves of the seed are not both used")
	}
	const n = 100_000
	sum := 0.0
	for i := range int32(n) {
		u := Uniform(42, i)
		if u < 0 || u >= 1 {
			t.Fatalf("Uniform(42, %d) = %v, want [0, 1)", i, u)
		}
		sum += u
	}
	if mean := sum / n; mean < 0.497 || mean > 0.503 {
		t.Errorf("mean of %d draws is %v, want 0.5 within 3 standard errors", n, mean)
	}
}
