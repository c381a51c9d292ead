package handler

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// keepAlive bounds the wait for the next event. One timer serves a whole
// stream as long as its events come faster than the interval: an expiry that
// finds recent events only starts a new wait.
type keepAlive struct {
	parent   context.Context
	interval time.Duration
	last     time.Time // when something was sent; at first, when the wait began
	ctx      context.Context
	cancel   context.CancelFunc
}

func newKeepAlive(parent context.Context, interval time.Duration) *keepAlive {
	k := &keepAlive{parent: parent, interval: interval, last: time.Now(), cancel: func() {}}
	k.restart()
	return k
}

// restart begins the next wait.
func (k *keepAlive) restart() {
	k.cancel()
	k.ctx, k.cancel = context.WithDeadline(k.parent, k.last.Add(k.interval))
}

// expired reports whether err is the end of the wait, not of the request.
func (k *keepAlive) expired(err error) bool {
	var e *engine.Error
	return k.ctx.Err() != nil && k.parent.Err() == nil && errors.As(err, &e) && e.Kind == engine.Cancelled
}

func (k *keepAlive) stop() { k.cancel() }
