package gguf

import "fmt"

// Type is how a tensor's elements are stored: a row is blocks of Elements elements
// in Bytes bytes each.
type Type struct {
	Name            string // as llama.cpp calls it: "Q4_K"
	Elements, Bytes int
}

// types are those of GGUF by their number. Those that are missing have been
// withdrawn.
var types = map[uint32]Type{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 30: {"BF16", 1, 2}, 28: {"F64", 1, 8},
	24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4}, 27: {"I64", 1, 8},
	2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24},
	8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36},
	10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144}, 13: {"Q5_K", 256, 176},
	14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292},
	16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74}, 22: {"IQ2_S", 256, 82},
	18: {"IQ3_XXS", 256, 98}, 21: {"IQ3_S", 256, 110},
	19: {"IQ1_S", 256, 50}, 29: {"IQ1_M", 256, 56},
	20: {"IQ4_NL", 32, 18}, 23: {"IQ4_XS", 256, 136},
	34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66},
	39: {"MXFP4", 32, 17}, 40: {"NVFP4", 64, 36},
}

// typeOf returns the type with a number.
func typeOf(n uint32) (Type, error) {
	t, ok := types[n]
	if !ok {
		return t, fmt.Errorf("type %d is not known; convert the model again, to Q8_0, Q4_K, BF16 or another current type", n)
	}
	return t, nil
}
