package plan

import (
	"cmp"
	"maps"
	"slices"
)

// Family is what people are told of a model family.
type Family struct {
	Type    string   // model_type
	Models  string   // that people know
	Remarks string   // "": none
	Tested  []string // checkpoints of engine/testdata on which it is compared with transformers
}

// Families are the supported families by model_type.
func Families() []Family {
	list := make([]Family, 0, len(families))
	for _, name := range slices.Sorted(maps.Keys(families)) {
		list = append(list, About(name))
	}
	return list
}

// About is what there is to say of a family that is supported.
func About(name string) Family {
	f := families[name]
	return Family{Type: name, Models: f.models, Remarks: f.remarks, Tested: tested[cmp.Or(f.like, name)]}
}

// LeftOut are known model_types that are not supported, and why.
func LeftOut() map[string]string { return maps.Clone(leftOut) }
