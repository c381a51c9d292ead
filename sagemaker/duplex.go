package sagemaker

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/body"
)

// duplexPath is where the platform opens the WebSocket of a bidirectional
// stream. A client may name another path or a query for it; there is only this.
const duplexPath = "/invocations-bidirectional-stream"

const (
	socketLife = 30 * time.Minute // the platform's bound
	// lastMoment is what the answers of a socket get to be written before its
	// time is over: generations are cut so much earlier.
	lastMoment = 10 * time.Second
)

// duplex are the open WebSockets.
type duplex struct {
	pingEvery, lifetime time.Duration

	mu      sync.Mutex
	closing bool
	open    map[*socket]struct{}
	ended   sync.WaitGroup // of the sockets in open
}

// add counts s, unless sockets may not open any more.
func (d *duplex) add(s *socket) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return false
	}
	if d.open == nil {
		d.open = map[*socket]struct{}{}
	}
	d.open[s] = struct{}{}
	d.ended.Add(1)
	return true
}

func (d *duplex) remove(s *socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, s)
	d.ended.Done()
}

// shutdown closes every socket when its requests have been answered.
func (d *duplex) shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.closing = true
	for s := range d.open {
		go s.finish("the server is shutting down")
	}
	d.mu.Unlock()
	done := make(chan struct{})
	go func() { d.ended.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serveDuplex handles GET /invocations-bidirectional-stream; see socket for
// what is spoken there.
func (h *Hosting) serveDuplex(w http.ResponseWriter, r *http.Request) error {
	r, err := forAdapter(r)
	if err != nil {
		return err
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.ProtoMajor != 1 {
		w.Header().Set("Upgrade", "websocket")
		return failure(http.StatusUpgradeRequired, "upgrade_required", "%s is a WebSocket over HTTP/1.1: send `Upgrade: websocket`", duplexPath)
	}
	if origin := r.Header.Get("Origin"); origin != "" && h.opt.Origins != nil && !slices.Contains(h.opt.Origins, origin) {
		return failure(http.StatusForbidden, "forbidden", "The origin %q is not one of --cors-allow-origin", body.Cut(origin))
	}
	// Every message is what a POST of /invocations would be, so the custom
	// attributes and the API key of the handshake hold for all.
	first := invocation{w: w, r: r.Clone(r.Context())}
	first.r.Method, first.r.URL.Path, first.r.URL.RawPath = http.MethodPost, invocationsPath, ""
	for name := range first.r.Header {
		if strings.HasPrefix(name, "Sec-Websocket-") || name == "Upgrade" || name == "Connection" {
			delete(first.r.Header, name)
		}
	}
	first.r.Header.Set("Content-Type", "application/json")
	if err := reroute(&first); err != nil {
		return err
	}
	s := &socket{api: h.api, first: first.r, limit: h.opt.PayloadLimit, running: map[string]context.CancelFunc{}}
	if !h.duplex.add(s) {
		return failure(http.StatusServiceUnavailable, "unavailable", "The server is shutting down")
	}
	defer h.duplex.remove(s)
	shake := &handshake{ResponseWriter: w}
	conn, err := websocket.Accept(shake, r, &websocket.AcceptOptions{
		CompressionMode:    websocket.CompressionDisabled,
		InsecureSkipVerify: true, // origins are looked at above
	})
	if err != nil {
		return failure(shake.status, "handshake", "%v", err)
	}
	s.run(conn, h.duplex.pingEvery, h.duplex.lifetime)
	return nil
}

// handshake keeps the plain text that would answer a failed one, and its
// status: every error here is JSON.
type handshake struct {
	http.ResponseWriter
	status int
}

// Unwrap gives access to the connection.
func (h *handshake) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (h *handshake) WriteHeader(status int) {
	if h.status = status; status == http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (h *handshake) Write(b []byte) (int, error) { return len(b), nil }

// cutBefore gives what is generated on a socket its deadline, whatever kind of
// answer it is for.
func cutBefore(ctx context.Context, end time.Time) context.Context {
	end = end.Add(-lastMoment)
	return handler.WithDeadlines(ctx, handler.Deadlines{Answer: end, Stream: end})
}
