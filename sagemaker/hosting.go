package sagemaker

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/internal/web"
)

// API is what the contract stands around; *handler.Server is one.
type API interface {
	http.Handler
	// Route returns a route that the API does not have itself and that
	// behaves as its own do.
	Route(handler.Methods) http.Handler
	// Adapters that requests may name.
	AddAdapter(ctx context.Context, a handler.Adapter, load, replace bool) error
	RemoveAdapter(name string) (known bool, err error)
	ListAdapters() []handler.Adapter
	// Hold takes that many bytes of what requests may hold together, if there are
	// enough. Release gives them back.
	Hold(bytes int64) bool
	Release(bytes int64)
}

// Options are what the operator and the platform decide.
type Options struct {
	Slots        int   // requests computed together; 0: 64
	PayloadLimit int64 // bytes of a request body; 0: 25 MiB

	// How long after its arrival a request's generation is cut, so that the
	// answer is there before the platform gives up; 0: never.
	AnswerDeadline, StreamDeadline time.Duration

	// Origins are those whose pages may open a WebSocket; nil: every one.
	Origins []string
	// Batch says that this is a transform job: a body of several JSON values
	// is a batch whatever its content type.
	Batch bool
	// SessionLife is how long a stateful session lives; 0: there are none.
	SessionLife time.Duration
	// Usage puts the counts and times of complete answers into the one header
	// that the platform hands on.
	Usage bool
}

// Hosting serves the contract. Make one with Wrap. It is an http.Handler.
type Hosting struct {
	api      API
	opt      Options
	routes   map[string]http.Handler // by path
	sessions *sessions               // nil: there are none
	lanes    chan struct{}           // capacity Slots: lines being served, of all batches
	duplex   duplex
}

// Wrap puts the contract around api.
func Wrap(api API, opt Options) *Hosting {
	if opt.Slots == 0 {
		opt.Slots = 64
	}
	if opt.PayloadLimit == 0 {
		opt.PayloadLimit = 25 << 20
	}
	h := &Hosting{api: api, opt: opt, lanes: make(chan struct{}, opt.Slots)}
	if opt.SessionLife > 0 {
		h.sessions = newSessions(opt.SessionLife, mostSessions)
	}
	h.duplex.pingEvery, h.duplex.lifetime = web.SocketPing, socketLife
	h.routes = map[string]http.Handler{
		duplexPath:              api.Route(handler.Methods{http.MethodGet: h.serveDuplex}),
		"/execution-parameters": api.Route(handler.Methods{http.MethodGet: h.executionParameters}),
	}
	h.addRegistry()
	return h
}

// Shutdown ends the WebSockets: no request is accepted on them any more, and
// each closes when those that run have been answered. It returns ctx's error
// if ctx ends before. Other requests are the HTTP server's to wait for.
func (h *Hosting) Shutdown(ctx context.Context) error { return h.duplex.shutdown(ctx) }

// ServeHTTP implements http.Handler.
func (h *Hosting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/ping":
		h.api.ServeHTTP(w, asPing(r))
	case h.routes[path] != nil:
		h.routes[path].ServeHTTP(w, r)
	case under(path, "/models/"):
		h.routes["/models/"].ServeHTTP(w, r)
	case under(path, "/adapters/"):
		h.routes["/adapters/"].ServeHTTP(w, r)
	case r.Method != http.MethodPost:
		h.api.ServeHTTP(w, r)
	default:
		h.post(w, r)
	}
}

func under(path, prefix string) bool {
	return len(path) > len(prefix) && strings.HasPrefix(path, prefix)
}

// asPing turns a POST of /ping, which some platforms send, into the GET that
// the API has.
func asPing(r *http.Request) *http.Request {
	if r.Method != http.MethodPost {
		return r
	}
	get := *r
	get.Method = http.MethodGet
	return &get
}

// executionParameters handles GET /execution-parameters, with which a transform
// job asks what to send. One record a request keeps a bad record from failing
// others, and as many requests as are computed together keep the device busy.
// The platform multiplies the two sizes and allows a hundred megabytes, but a
// job that names no size expects at least its default, of six.
func (h *Hosting) executionParameters(w http.ResponseWriter, _ *http.Request) error {
	const megabytes, usual = 100, 6
	limit := max(1, int(h.opt.PayloadLimit>>20))
	transforms := min(h.opt.Slots, megabytes/min(usual, limit))
	payload := min(megabytes/transforms, limit)
	web.WriteJSON(w, http.StatusOK, fmt.Appendf(nil,
		`{"MaxConcurrentTransforms":%d,"BatchStrategy":"SINGLE_RECORD","MaxPayloadInMB":%d}`, transforms, payload))
	return nil
}

// failure is an error as a client sees it.
func failure(status int, kind, format string, args ...any) *handler.Error {
	return &handler.Error{Status: status, Type: kind, Msg: fmt.Sprintf(format, args...)}
}

// badRequest is a request that breaks the contract.
func badRequest(format string, args ...any) *handler.Error {
	return failure(http.StatusBadRequest, "bad_request", format, args...)
}
