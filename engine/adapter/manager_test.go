package adapter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
)

// fakeEngine keeps what is loaded.
type fakeEngine struct {
	mu     sync.Mutex
	last   int32
	loaded map[int32]int64
	most   int64 // bytes at any time
	refuse error
}

func (f *fakeEngine) LoadAdapter(a *device.Adapter) (int32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return 0, f.refuse
	}
	f.last++
	f.loaded[f.last] = size(a)
	sum := int64(0)
	for _, n := range f.loaded {
		sum += n
	}
	f.most = max(f.most, sum)
	return f.last, nil
}

func (f *fakeEngine) DropAdapter(id int32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.loaded[id]; !ok {
		return fmt.Errorf("there is no adapter %d", id)
	}
	delete(f.loaded, id)
	return nil
}

func (f *fakeEngine) ids() (list []int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.loaded {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// manager returns a Manager with room for so many adapters, each of which is read
// from any source but "broken"; opened counts readings.
func manager(t *testing.T, room int64) (m *Manager, f *fakeEngine, opened func() int) {
	t.Helper()
	_, p := of(t, "llama")
	data := files(nil, pair(qProj, 40, 2, 40)...)
	a, err := Read(data, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	fitted, err := a.Fit(p)
	if err != nil {
		t.Fatal(err)
	}
	f = &fakeEngine{loaded: map[int32]int64{}}
	var mu sync.Mutex
	n := 0
	m = NewManager(Options{Engine: f, Plan: p, Memory: room * size(fitted), Open: func(_ context.Context, source string) (fs.FS, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		if source == "broken" {
			return files(map[string]any{"use_dora": true}), nil
		}
		return data, nil
	}})
	return m, f, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func use(t *testing.T, m *Manager, name string) *Use {
	t.Helper()
	u, err := m.Use(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func add(t *testing.T, m *Manager, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := m.Add(name, "of "+name, false); err != nil {
			t.Fatal(err)
		}
	}
}

// The adapters used last stay; those in use, and pinned ones, in any case.
func TestEviction(t *testing.T) {
	m, f, _ := manager(t, 2)
	add(t, m, "a", "b", "c")
	a := use(t, m, "a")
	use(t, m, "b").Release()
	use(t, m, "c").Release() // for b, as a is in use
	if got := f.ids(); !slices.Equal(got, []int32{1, 3}) {
		t.Errorf("loaded are %v, want a and c, 1 and 3", got)
	}
	c := use(t, m, "c")
	if _, err := m.Use(t.Context(), "b"); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a third adapter while two are in use: %v, want %v", err, ErrNoRoom)
	}
	if got := f.ids(); !slices.Equal(got, []int32{1, 3}) {
		t.Errorf("loaded are %v, want a and c as before", got)
	}
	a.Release()
	a.Release() // is once
	b := use(t, m, "b")
	if got := f.ids(); !slices.Equal(got, []int32{3, 4}) {
		t.Errorf("loaded are %v, want c and b, 3 and 4", got)
	}
	b.Release()
	c.Release()
	if _, err := m.Add("c", "of c", true); err != nil {
		t.Fatal(err)
	}
	use(t, m, "a").Release()
	use(t, m, "b").Release()
	if info, _ := m.Get("c"); info.Bytes == 0 || !info.Pinned {
		t.Errorf("%+v, want the pinned adapter loaded", info)
	}
	if s := m.Stats(); s.Evicted != 4 || s.Loads != 6 || s.Failures != 1 || s.Hits != 1 || s.Loaded != 2 || s.Bytes != s.Memory || f.most > s.Memory {
		t.Errorf("%+v, at most %d bytes on the engine", s, f.most)
	}
}

// Those who ask for one adapter at once share its load.
func TestLoadsAreShared(t *testing.T) {
	m, f, opened := manager(t, 2)
	add(t, m, "a")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { use(t, m, "a").Release() })
	}
	wg.Wait()
	if opened() != 1 || len(f.ids()) != 1 {
		t.Errorf("read %d times, loaded are %v; want one load", opened(), f.ids())
	}
}

// A load under the same name is another adapter, and the old one stays for those
// that use it.
func TestReload(t *testing.T) {
	m, f, _ := manager(t, 3)
	add(t, m, "a")
	old := use(t, m, "a")
	if added, err := m.Add("a", "of a", false); added || err != nil {
		t.Errorf("the same adapter again: %v, %v", added, err)
	}
	if _, err := m.Add("a", "elsewhere", false); !errors.Is(err, ErrTaken) {
		t.Errorf("another adapter under the name: %v, want %v", err, ErrTaken)
	}
	if err := m.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Use(t.Context(), "a"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an adapter that was removed: %v, want %v", err, ErrUnknown)
	}
	add(t, m, "a")
	again := use(t, m, "a")
	if again.ID == old.ID || !slices.Equal(f.ids(), []int32{old.ID, again.ID}) {
		t.Errorf("loads %d and %d, loaded are %v", old.ID, again.ID, f.ids())
	}
	old.Release()
	again.Release()
	for len(f.ids()) > 1 { // it is dropped by another goroutine
		use(t, m, "a").Release()
	}
	if got := f.ids(); got[0] != again.ID {
		t.Errorf("left is %v, want %d", got, again.ID)
	}
}

// What fails changes nothing, and is tried again.
func TestFailures(t *testing.T) {
	m, f, opened := manager(t, 1)
	add(t, m, "a")
	use(t, m, "a").Release()
	if _, err := m.Add("b", "broken", false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.Use(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "adapter b from broken: "+ConfigFile+": use_dora") {
			t.Errorf("a broken adapter: %v", err)
		}
	}
	if got := f.ids(); !slices.Equal(got, []int32{1}) || opened() != 3 {
		t.Errorf("loaded are %v after %d readings, want a alone after 3", got, opened())
	}
	add(t, m, "c")
	f.refuse = errors.New("out of memory")
	if _, err := m.Use(t.Context(), "c"); !errors.Is(err, f.refuse) {
		t.Errorf("an adapter that the engine refuses: %v", err)
	}
	f.refuse = nil
	use(t, m, "c").Release()
	if _, err := m.Use(t.Context(), "z"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `"z": known are a, b, c`) {
		t.Errorf("an unknown adapter: %v", err)
	}
	if err := m.Remove("z"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removing an unknown adapter: %v", err)
	}
	for _, name := range []string{"", "a\nb", strings.Repeat("x", maxName+1)} {
		if _, err := m.Add(name, "s", false); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	add(t, m, "d")
	if _, err := m.Use(gone, "d"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

// Many goroutines with more adapters than there is room for: no more memory is used
// than there is, nothing in use is dropped, and all is given back.
func TestManagerAtOnce(t *testing.T) {
	m, f, _ := manager(t, 3)
	names := []string{"a", "b", "c", "d", "e", "f"}
	add(t, m, names...)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 60 {
				name := names[(i*7+j*j)%len(names)]
				u, err := m.Use(t.Context(), name)
				switch {
				case errors.Is(err, ErrNoRoom) || errors.Is(err, ErrUnknown):
					continue
				case err != nil:
					t.Error(err)
					return
				}
				if !slices.Contains(f.ids(), u.ID) {
					t.Errorf("adapter %s is in use and not loaded", name)
				}
				if j%20 == 19 && m.Remove(name) == nil {
					if _, err := m.Add(name, "of "+name, false); err != nil && !errors.Is(err, ErrTaken) {
						t.Error(err)
					}
				}
				u.Release()
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		if err := m.Remove(name); err != nil {
			t.Error(err)
		}
	}
	for len(f.ids()) > 0 || m.Stats().Bytes > 0 { // they leave one by one
	}
	if f.most > m.opt.Memory {
		t.Errorf("%d bytes at once, the limit is %d", f.most, m.opt.Memory)
	}
}
