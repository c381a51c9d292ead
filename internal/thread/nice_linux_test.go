package thread

import (
	"errors"
	"syscall"
	"testing"
)

// Only the work is nice, and neither the caller's thread nor any that the
// runtime reuses.
func TestNice(t *testing.T) {
	priority := func() int {
		raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
		if err != nil {
			t.Error(err)
		}
		return 20 - raw // the system call returns 20 - nice
	}
	before, want := priority(), errors.New("its error")
	for range 100 {
		during := 0
		if err := Nice(before+5, func() error { during = priority(); return want }); err != want {
			t.Fatalf("%v, want %v", err, want)
		}
		if during != before+5 {
			t.Fatalf("nice by %d, want %d", during, before+5)
		}
		if after := priority(); after != before {
			t.Fatalf("the caller is nice by %d, was %d", after, before)
		}
	}
}

func TestNicePanics(t *testing.T) {
	defer func() {
		if p := recover(); p != "no" {
			t.Errorf("recovered %v", p)
		}
	}()
	_ = Nice(1, func() error { panic("no") })
	t.Error("no panic")
}
