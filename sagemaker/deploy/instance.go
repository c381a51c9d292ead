package deploy

import (
	"regexp"
	"strings"
)

// instanceType is the name of a kind of machine: ml.FAMILY.SIZE.
var instanceType = regexp.MustCompile(`^ml\.([a-z0-9-]+)\.([a-z0-9-]+)$`)

// family is what is known about a family of instance types.
type family struct {
	gpu       bool
	arm       bool // Graviton
	foreign   bool // its accelerator is neither a CPU nor a GPU that the server can use
	localDisk bool // NVMe: no volume of one's own, encrypted by the machine
	known     bool
}

// generation tells the letters of a family from what follows: c7gd → c, 7gd.
var generation = regexp.MustCompile(`^([a-z]+)(\d+)([a-z-]*)`)

// familyOf reads the family in the name of an instance type by AWS's rules for
// it: after the generation come the maker of the CPU (g is Graviton) and what
// is attached (d is a disk). It is the zero value for a name of another form.
// Every x86 family of SageMaker hosting has AVX2, for which the CPU backend has
// kernels; on Graviton it computes by portable ones.
func familyOf(instance string) family {
	parts := instanceType.FindStringSubmatch(instance)
	if parts == nil {
		return family{}
	}
	name := parts[1]
	m := generation.FindStringSubmatch(name)
	if m == nil {
		return family{}
	}
	class, options := m[1], m[3]
	switch class {
	case "g", "p":
		return family{known: true, gpu: true, localDisk: name != "p2" && name != "p3", arm: strings.HasPrefix(options, "g")}
	case "inf", "trn":
		return family{known: true, foreign: true, localDisk: class == "trn"}
	case "c", "m", "r", "t":
		return family{known: true, arm: strings.Contains(options, "g"), localDisk: strings.Contains(options, "d")}
	}
	return family{}
}
