package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// replica is a copy of the model on devices of its own.
type replica struct {
	engine  *engine.Engine
	backend device.Backend
	tower   device.Backend // of images; nil: none are read
	encoder *engine.Tower
}

// openReplicas opens the backends of all replicas. After an error none is open.
func (s *server) openReplicas(l *loadedModel) (err error) {
	for i := range s.cfg.Replicas {
		var b device.Backend
		if b, err = openBackend(s.cfg, s.sizing.device, s.model.plan, i); err != nil {
			break
		}
		l.replicas = append(l.replicas, replica{backend: b})
	}
	if err == nil {
		err = s.openTowers(l)
	}
	if err != nil {
		l.close()
		return err
	}
	l.caps = l.replicas[0].backend.Caps()
	return nil
}

// hardware is what computes, for people.
func (l *loadedModel) hardware() string {
	if n := len(l.replicas); n > 1 {
		return fmt.Sprintf("%d replicas on %s", n, l.caps.Detail)
	}
	return l.caps.Detail
}

// stats returns the numbers of each replica, nil if there is one.
func (l *loadedModel) stats() func() []engine.Stats {
	if len(l.replicas) == 1 {
		return nil
	}
	return l.engine.Each
}

// models returns what gives the model's weights to all replicas.
func (l *loadedModel) models() device.Backend {
	var list []device.Backend
	for _, r := range l.replicas {
		list = append(list, r.backend)
	}
	return copies(list)
}

// towers returns what gives the tower's weights to all replicas.
func (l *loadedModel) towers() device.Backend {
	var list []device.Backend
	for _, r := range l.replicas {
		list = append(list, r.tower)
	}
	return copies(list)
}

// copies returns a backend for the loader, which reads a checkpoint once and gives it to all in
// list.
func copies(list []device.Backend) device.Backend {
	if len(list) == 1 {
		return list[0]
	}
	return &copier{Backend: list[0], list: list}
}

// copier gives what it is given to several backends that are alike. Other calls are the first
// one's.
type copier struct {
	device.Backend
	list []device.Backend
}

// each calls fn for all backends at once.
func (c *copier) each(fn func(i int, b device.Backend) error) error {
	errs := make([]error, len(c.list))
	var wg sync.WaitGroup
	for i, b := range c.list {
		wg.Go(func() {
			if err := fn(i, b); err != nil {
				errs[i] = fmt.Errorf("replica %d of %d: %w", i, len(c.list), err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Caps implements device.Backend.
func (c *copier) Caps() device.Caps {
	caps := c.list[0].Caps()
	caps.Layout, caps.Adopted = "", 0 // memory that a tensor is in cannot be released twice
	return caps
}

// CheckPlan implements device.Backend.
func (c *copier) CheckPlan(p *plan.Plan) error {
	return c.each(func(_ int, b device.Backend) error { return b.CheckPlan(p) })
}

// NewTensor implements device.Backend.
func (c *copier) NewTensor(name string, format plan.Format, shape []int) (device.Handle, error) {
	handles := make([]device.Handle, len(c.list))
	err := c.each(func(i int, b device.Backend) (err error) {
		handles[i], err = b.NewTensor(name, format, shape)
		return err
	})
	return handles[0], err // the number of the tensor in the plan, the same everywhere
}

// WriteTensor implements device.Backend.
func (c *copier) WriteTensor(h device.Handle, first, n int, src []byte) error {
	return c.each(func(_ int, b device.Backend) error { return b.WriteTensor(h, first, n, src) })
}

// Converts implements device.Converter.
func (c *copier) Converts(from, to plan.Format) bool { return device.Converts(c.list[0], from, to) }

// ConvertTensor implements device.Converter.
func (c *copier) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	return c.each(func(_ int, b device.Backend) error { return device.ConvertTensor(b, h, first, n, src, from) })
}

// AdoptTensor implements device.Backend.
func (c *copier) AdoptTensor(device.Handle, []byte, func()) error { return device.ErrUnsupported }

// SetModel implements device.Backend. The ModelInfo is that of one replica.
func (c *copier) SetModel(p *plan.Plan) (device.ModelInfo, error) {
	infos := make([]device.ModelInfo, len(c.list))
	err := c.each(func(i int, b device.Backend) (err error) {
		infos[i], err = b.SetModel(p)
		return err
	})
	return infos[0], err
}

// readPrefix puts a prefix file into the cache of every replica, at once: the file may be read
// only once.
func (l *loadedModel) readPrefix(file io.Reader, origin engine.PrefixOrigin) (tokens int, err error) {
	if len(l.replicas) == 1 {
		return l.replicas[0].engine.ReadPrefix(file, origin)
	}
	counts, errs := make([]int, len(l.replicas)), make([]error, len(l.replicas))
	writers, all := make([]*io.PipeWriter, len(l.replicas)), make([]io.Writer, len(l.replicas))
	var wg sync.WaitGroup
	for i, r := range l.replicas {
		in, out := io.Pipe()
		writers[i], all[i] = out, out
		wg.Go(func() {
			counts[i], errs[i] = r.engine.ReadPrefix(in, origin)
			io.Copy(io.Discard, in) //nolint:errcheck // what one does not want, others may
		})
	}
	_, err = io.Copy(io.MultiWriter(all...), file)
	for _, w := range writers {
		w.CloseWithError(err) // nil is the end
	}
	wg.Wait()
	for _, failed := range errs {
		err = cmp.Or(err, failed)
	}
	return counts[0], err
}

// drainOthers lets the replicas that have not failed finish what they have begun: what is lost
// with one is no more than what it computed.
func (s *server) drainOthers(e *engine.Replicas) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain())
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		s.log.Warn("requests of other replicas have been ended, too", "err", err)
	}
}
