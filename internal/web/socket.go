package web

import (
	"context"
	"time"

	"github.com/coder/websocket"
)

// SocketPing is the time between two pings on a WebSocket of SageMaker's
// bidirectional streams, from either side.
const SocketPing = time.Minute

// mostLost are the pongs that may be missing, one after the other.
const mostLost = 5

// KeepAlive pings the peer at an interval until ctx ends, and closes the
// connection to one that has stopped answering. Somebody must read from conn.
func KeepAlive(ctx context.Context, conn *websocket.Conn, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for lost := 0; lost < mostLost; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait, cancel := context.WithTimeout(ctx, every)
		if conn.Ping(wait) == nil {
			lost = 0
		} else {
			lost++
		}
		cancel()
	}
	conn.CloseNow() //nolint:errcheck // the peer has gone
}
