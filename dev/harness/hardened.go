package harness

import (
	"debug/elf"
	"fmt"
	"slices"
)

// Weaknesses lists what an executable lacks of the hardening that Millrace is
// linked with.
func Weaknesses(path string) (missing []string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	require := func(ok bool, what string) {
		if !ok {
			missing = append(missing, what)
		}
	}
	flag := func(tag elf.DynTag, bit uint64) bool {
		values, _ := f.DynValue(tag) // without a dynamic section there are none
		return len(values) == 1 && values[0]&bit != 0
	}
	segment := func(kind elf.ProgType) *elf.Prog {
		if i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == kind }); i >= 0 {
			return f.Progs[i]
		}
		return nil
	}

	require(f.Type == elf.ET_DYN && flag(elf.DT_FLAGS_1, uint64(elf.DF_1_PIE)), "runs at any address (PIE)")
	// Tables of addresses cannot be written once they are filled in, and that is before main.
	require(segment(elf.PT_GNU_RELRO) != nil, "tables of addresses are read-only (RELRO)")
	require(flag(elf.DT_FLAGS, uint64(elf.DF_BIND_NOW)), "all addresses are bound at the start (BIND_NOW)")
	stack := segment(elf.PT_GNU_STACK)
	require(stack != nil && stack.Flags&elf.PF_X == 0, "the stack is not executable (NX)")
	for _, p := range f.Progs {
		require(p.Type != elf.PT_LOAD || p.Flags&(elf.PF_W|elf.PF_X) != elf.PF_W|elf.PF_X,
			fmt.Sprintf("what is writable is not executable (segment at %#x)", p.Vaddr))
	}
	if segment(elf.PT_INTERP) == nil {
		return missing, nil // linked statically and stripped, it names no functions
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return nil, err
	}
	imports := func(name string) bool {
		return slices.ContainsFunc(symbols, func(s elf.ImportedSymbol) bool { return s.Name == name })
	}
	require(imports("__stack_chk_fail"), "a function whose stack is overrun ends the process (stack protector)")
	require(imports("__vsnprintf_chk"), "the C library checks the sizes of buffers (FORTIFY_SOURCE)")
	return missing, nil
}
