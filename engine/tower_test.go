package engine

import (
	"context"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/vision"
)

// panics is a backend that panics once it has been abandoned.
type panics struct {
	device.Backend
	cancel    func()
	entered   chan struct{}
	abandoned bool
}

func (b *panics) Batch(int) *device.Batch {
	b.cancel()
	<-b.entered
	panic("no batch")
}

func (b *panics) Abandon(yes bool) {
	if b.abandoned = yes; yes {
		close(b.entered)
	}
}

// What panics while it is abandoned leaves no backend that abandons the next image, too.
func TestTowerPanics(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &panics{cancel: cancel, entered: make(chan struct{})}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = (&Tower{backend: b}).abandonable(ctx, &vision.Tile{}, &vision.Input{})
	}()
	if b.abandoned {
		t.Error("the backend is still told to abandon what it computes")
	}
}
