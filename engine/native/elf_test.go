package native

import (
	"debug/elf"
	"os"
	"runtime"
	"testing"
)

// What is linked with the library has its tables of addresses read-only from
// the start: full RELRO.
func TestRelocationsAreReadOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("for ELF files")
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	relro := false
	for _, p := range f.Progs {
		relro = relro || p.Type == elf.PT_GNU_RELRO
	}
	flags, err := f.DynValue(elf.DT_FLAGS)
	if err != nil {
		t.Fatal(err)
	}
	now := len(flags) == 1 && elf.DynFlag(flags[0])&elf.DF_BIND_NOW != 0
	if !relro || !now {
		t.Errorf("relro %v, bind now %v", relro, now)
	}
}
