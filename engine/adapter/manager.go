package adapter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// Errors of a Manager; all others are about an adapter's files.
var (
	ErrUnknown = errors.New("unknown adapter")
	ErrNoRoom  = errors.New("no room for the adapter")
	ErrTaken   = errors.New("the name is that of another adapter")
)

const (
	// maxNames bounds the list of names, which anyone may extend who may register one.
	maxNames = 10_000
	maxName  = 256
	// atOnce is how many adapters are read at a time: each is in memory several times
	// until the backend has it.
	atOnce = 2
	// patience is how long an adapter may take to arrive.
	patience = 5 * time.Minute
)

// Engine computes with adapters; *engine.Engine is one.
type Engine interface {
	LoadAdapter(a *device.Adapter) (int32, error)
	DropAdapter(id int32) error
}

// Options are what a Manager is made of.
type Options struct {
	Engine Engine
	Plan   *plan.Plan // that the backend has: loader.Resident
	Memory int64      // bytes that all adapters may take on the device
	// Open returns the files of the adapter at a source.
	Open func(ctx context.Context, source string) (fs.FS, error)
	// Loaded, if not nil, hears of each adapter that was loaded, or why not.
	Loaded func(name string, bytes int64, took time.Duration, err error)
}

// Manager keeps the adapters that may be asked for by name, and of these some on the
// engine: those in use, and those used last, as far as the memory allows. Safe for
// concurrent use.
type Manager struct {
	opt     Options
	reading chan struct{} // capacity atOnce

	mu    sync.Mutex
	names map[string]*entry
	used  int64 // bytes of what is loaded, or about to be
	turn  int64 // counts uses, for the order of the last ones
	stats Stats
}

// entry is an adapter by name.
type entry struct {
	Info
	id      int32 // on the engine; 0: it is not there
	users   int
	last    int64 // turn of its last use
	gone    bool  // it has been removed, and leaves with its last user
	loading *load // nil: it is not being loaded
}

// load is what those wait for who want an adapter that is not there.
type load struct {
	done chan struct{}
	err  error
}

// Info describes an adapter.
type Info struct {
	Name   string
	Source string
	Pinned bool  // it stays once it is loaded
	Bytes  int64 // on the device; 0: it is not loaded
}

// Stats counts what a Manager has done.
type Stats struct {
	Known, Loaded            int
	Bytes, Memory            int64
	Loads, Failures, Evicted int64
	LoadTime                 time.Duration // of all loads together
	Hits                     int64         // uses that found the adapter loaded
}

// NewManager returns a Manager that knows no adapter.
func NewManager(opt Options) *Manager {
	return &Manager{opt: opt, reading: make(chan struct{}, atOnce), names: map[string]*entry{}}
}

// Add makes an adapter known by a name; nothing is read. To add it again changes
// nothing, and added is false. Under the name of another source it is ErrTaken.
func (m *Manager) Add(name, source string, pinned bool) (added bool, err error) {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return false, fmt.Errorf("%q is not a name of an adapter: expected 1 to %d characters on one line", name[:min(len(name), maxName)], maxName)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := m.names[name]; {
	case e == nil && len(m.names) == maxNames:
		return false, fmt.Errorf("%w: %d are known, which is the limit", ErrNoRoom, maxNames)
	case e == nil:
		m.names[name] = &entry{Info: Info{Name: name, Source: source, Pinned: pinned}}
		return true, nil
	case e.Source != source:
		return false, fmt.Errorf("%w: %s is from %s", ErrTaken, name, e.Source)
	default:
		e.Pinned = pinned
		return false, nil
	}
}

// Remove forgets a name. Requests that use the adapter go on with it.
func (m *Manager) Remove(name string) error {
	m.mu.Lock()
	e := m.names[name]
	if e == nil {
		m.mu.Unlock()
		return m.unknown(name)
	}
	delete(m.names, name)
	e.gone = true
	m.mu.Unlock()
	m.leave(e)
	return nil
}

// unknown is the error of a name that nobody has added.
func (m *Manager) unknown(name string) error {
	names := m.Names()
	const most = 10
	list := strings.Join(names[:min(len(names), most)], ", ")
	switch {
	case len(names) == 0:
		list = "none is known"
	case len(names) > most:
		list = fmt.Sprintf("known are %s and %d more", list, len(names)-most)
	default:
		list = "known are " + list
	}
	return fmt.Errorf("%w %q: %s", ErrUnknown, name[:min(len(name), maxName)], list)
}

// Names returns the names of all adapters, sorted.
func (m *Manager) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.names))
}

// Get describes the adapter of a name.
func (m *Manager) Get(name string) (Info, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.names[name]; e != nil {
		return e.Info, true
	}
	return Info{}, false
}

// Stats returns the counts.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Known, s.Memory, s.Bytes = len(m.names), m.opt.Memory, m.used
	for _, e := range m.names {
		if e.id != 0 {
			s.Loaded++
		}
	}
	return s
}

// Use is an adapter that stays loaded until it is released.
type Use struct {
	ID    int32 // engine.Request.Adapter
	m     *Manager
	entry *entry
}

// Release ends the use; a second time it does nothing, nor for nil.
func (u *Use) Release() {
	if u == nil || u.entry == nil {
		return
	}
	e := u.entry
	u.entry = nil
	u.m.mu.Lock()
	e.users--
	u.m.mu.Unlock()
	u.m.leave(e)
}

// Use returns the adapter of a name, which is loaded first if it is not. All who ask
// meanwhile wait for the one load; it goes on if ctx ends.
func (m *Manager) Use(ctx context.Context, name string) (*Use, error) {
	for first := true; ; first = false {
		m.mu.Lock()
		e := m.names[name]
		if e == nil {
			m.mu.Unlock()
			return nil, m.unknown(name)
		}
		if e.id != 0 {
			e.users++
			m.turn++
			e.last = m.turn
			if first {
				m.stats.Hits++
			}
			u := &Use{ID: e.id, m: m, entry: e}
			m.mu.Unlock()
			return u, nil
		}
		l := e.loading
		if l == nil {
			l = &load{done: make(chan struct{})}
			e.loading = l
			go m.load(e, l)
		}
		m.mu.Unlock()
		select {
		case <-l.done:
			if l.err != nil {
				return nil, l.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// load reads an adapter and gives it to the engine. Whatever fails, nothing else is
// changed.
func (m *Manager) load(e *entry, l *load) {
	m.reading <- struct{}{}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	id, bytes, err := m.bring(ctx, e)
	cancel()
	<-m.reading
	took := time.Since(start)

	m.mu.Lock()
	if err != nil {
		l.err = fmt.Errorf("adapter %s from %s: %w", e.Name, e.Source, err)
		m.stats.Failures++
	} else {
		m.stats.Loads++
		m.stats.LoadTime += took
		m.turn++
		e.id, e.Bytes, e.last = id, bytes, m.turn
	}
	e.loading = nil
	close(l.done)
	m.mu.Unlock()
	m.leave(e) // it may have been removed meanwhile
	if m.opt.Loaded != nil {
		m.opt.Loaded(e.Name, bytes, took, l.err)
	}
}

// bring reads an adapter and loads it, for which others may have to go.
func (m *Manager) bring(ctx context.Context, e *entry) (id int32, bytes int64, err error) {
	fsys, err := m.opt.Open(ctx, e.Source)
	if err != nil {
		return 0, 0, err
	}
	a, err := Read(fsys, m.opt.Memory)
	if err != nil {
		return 0, 0, err
	}
	fitted, err := a.Fit(m.opt.Plan)
	if err != nil {
		return 0, 0, err
	}
	bytes = size(fitted)
	if err := m.makeRoom(bytes); err != nil {
		return 0, 0, err
	}
	if id, err = m.opt.Engine.LoadAdapter(fitted); err != nil {
		m.mu.Lock()
		m.used -= bytes
		m.mu.Unlock()
		return 0, 0, err
	}
	return id, bytes, nil
}

// size is about what an adapter takes on a device, which pads its rank.
func size(a *device.Adapter) (bytes int64) {
	const pad = 16
	rank := int64(a.Rank+pad-1) / pad * pad
	for i := range a.Targets {
		t := &a.Targets[i]
		bytes += 4 * rank * int64(len(t.A)+len(t.B)) / int64(a.Rank)
	}
	return bytes
}

// makeRoom takes bytes of the memory, for which the adapters go that are not in use,
// the least recently used first.
func (m *Manager) makeRoom(bytes int64) error {
	m.mu.Lock()
	var idle []*entry
	spare := m.opt.Memory - m.used
	for _, e := range m.names {
		if e.id != 0 && e.users == 0 && !e.Pinned {
			idle = append(idle, e)
		}
	}
	slices.SortFunc(idle, func(a, b *entry) int { return int(a.last - b.last) })
	n := 0
	for ; spare < bytes && n < len(idle); n++ {
		spare += idle[n].Bytes
	}
	if spare < bytes {
		m.mu.Unlock()
		return fmt.Errorf("%w: it takes %d MiB, of %d MiB for adapters %d MiB are not in use", ErrNoRoom, mebibytes(bytes), m.opt.Memory>>20, spare>>20)
	}
	var ids []int32
	for _, e := range idle[:n] {
		ids = append(ids, e.id)
		m.used -= e.Bytes
		e.id, e.Bytes = 0, 0
		m.stats.Evicted++
	}
	m.used += bytes
	m.mu.Unlock()
	return m.drop(ids...)
}

func mebibytes(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

func (m *Manager) drop(ids ...int32) (err error) {
	for _, id := range ids {
		err = errors.Join(err, m.opt.Engine.DropAdapter(id))
	}
	return err
}

// leave takes an adapter that has been removed, and that nobody uses any more, from
// the engine.
func (m *Manager) leave(e *entry) {
	m.mu.Lock()
	id := e.id
	if !e.gone || e.users > 0 || id == 0 {
		m.mu.Unlock()
		return
	}
	bytes := e.Bytes
	e.id, e.Bytes = 0, 0
	m.mu.Unlock()
	// Its last sequence may still be in a step.
	go func() {
		if m.drop(id) == nil {
			m.mu.Lock()
			m.used -= bytes
			m.mu.Unlock()
		}
	}()
}
