package handler

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/millrace-ai/millrace/handler/playground"
)

// newRoutes builds the table of routes. Paths are exact: no cleaning, no
// redirects between /x and /x/.
func (s *Server) newRoutes() http.Handler {
	m := mux.NewRouter().SkipClean(true).UseEncodedPath()
	get := func(h handlerFunc) *endpoint { return &endpoint{s: s, allow: "GET,HEAD", get: h} }
	post := func(h handlerFunc) *endpoint { return &endpoint{s: s, allow: "POST", post: h} }

	handle := func(route string, e *endpoint) {
		e.route = route
		if e.get != nil {
			s.metrics.Expect(route, http.MethodGet)
		}
		if e.post != nil {
			s.metrics.Expect(route, http.MethodPost)
		}
		if strings.HasSuffix(route, "/") && route != "/" {
			m.PathPrefix(route).Handler(e)
		} else {
			m.Handle(route, e)
		}
	}

	handle("/invocations", post(s.invocations))
	handle("/generate", post(decoded(s, decodeGenerate, s.generate)))
	handle("/generate_stream", post(decoded(s, decodeGenerate, s.generateStream)))
	handle("/v1/chat/completions", post(decoded(s, decodeChat, s.chat)))
	handle("/v1/completions", post(decoded(s, decodeCompletion, s.complete)))
	handle("/ping", get(s.health).public())
	handle("/health", get(s.health).public())
	handle("/", &endpoint{s: s, allow: "POST,GET,HEAD", get: s.root, post: decoded(s, decodeCompat, s.compat), publicGet: true})
	handle("/tokenize", post(decoded(s, decodeGenerate, s.tokenize)))
	handle("/chat_tokenize", post(decoded(s, decodeChat, s.chatTokenize)))
	handle("/vertex", post(decoded(s, decodeVertex, s.vertex)))
	handle("/info", get(s.info))
	handle("/v1/models", get(s.models))
	handle(modelsPath, get(s.modelOf))
	handle("/v1/load_lora_adapter", post(s.loadAdapter))
	handle("/v1/unload_lora_adapter", post(s.unloadAdapter))
	handle("/metrics", get(serveFiles("", s.metrics)).public())
	handle("/api-doc/openapi.json", get(s.openAPI).public())
	handle("/docs", get(redirectTo("docs/")).public())
	handle("/docs/", get(s.docs()).public())
	handle("/playground", get(redirectTo("playground/")).public())
	handle("/playground/", get(serveFiles("/playground", playground.Handler())).public())

	m.NotFoundHandler = http.HandlerFunc(s.notFound)
	return m
}

// handlerFunc serves one request. A returned error becomes the answer, or the
// last event of a stream.
type handlerFunc func(x *exchange) error

// endpoint is one path. It looks at the method after the API key, as TGI does.
type endpoint struct {
	s         *Server
	route     string // for the metrics
	allow     string // the allow header
	get, post handlerFunc
	others    map[string]handlerFunc // of further methods
	publicGet bool                   // GET needs no API key
}

func (e *endpoint) public() *endpoint {
	e.publicGet = true
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var h handlerFunc
	switch r.Method {
	case http.MethodOptions:
		w.Header().Set("Allow", e.allow)
		preflight(w, r)
		e.s.metrics.Answered(e.route, r.Method, http.StatusOK)
		return
	case http.MethodGet, http.MethodHead:
		h = e.get
	case http.MethodPost:
		h = e.post
	default:
		h = e.others[r.Method]
	}
	public := e.post == nil && e.publicGet || e.publicGet && h != nil && r.Method != http.MethodPost
	switch {
	case !public && !e.s.authorized(r):
		w.Header().Set("Allow", e.allow)
		w.Header().Set("WWW-Authenticate", "Bearer")
		e.s.turnAway(w, r, e.route, unauthorized())
	case h == nil:
		w.Header().Set("Allow", e.allow)
		e.s.turnAway(w, r, e.route, failure(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not allowed here, only %s", cutMethod(r.Method), e.allow))
	default:
		e.s.serve(w, r, e.route, h)
	}
}

// cutMethod keeps an odd method from filling the answer.
func cutMethod(m string) string { return m[:min(len(m), 20)] }

// turnAway answers a request that no handler gets to see.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, route string, e *Error) {
	s.writeError(w, r, e)
	s.metrics.Answered(route, r.Method, e.Status)
}

// Routes in the metrics that are not paths.
const (
	noRoute   = "none"    // there is no such path
	hostRoute = "hosting" // one that stands around the Server
)

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		preflight(w, r)
		s.metrics.Answered(noRoute, r.Method, http.StatusOK)
		return
	}
	if r.Method == http.MethodConnect { // its path is empty
		s.turnAway(w, r, noRoute, failure(http.StatusMethodNotAllowed, "method_not_allowed", "CONNECT is not allowed: this server is not a proxy"))
		return
	}
	s.turnAway(w, r, noRoute, failure(http.StatusNotFound, "not_found", "There is no route %s", r.URL.EscapedPath()))
}

// authorized compares the key exactly and in constant time.
func (s *Server) authorized(r *http.Request) bool {
	if s.opt.APIKey == "" {
		return true
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want := sha256.Sum256([]byte(s.opt.APIKey))
	got := sha256.Sum256([]byte(key))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

var (
	varyValue = []string{"origin, access-control-request-method, access-control-request-headers"}
	anyOrigin = []string{"*"}
	anyHeader = []string{"*"}
)

// cors sets the headers that let browsers of allowed origins read the answer.
func (s *Server) cors(h http.Header, r *http.Request) {
	h["Vary"] = varyValue
	origin := r.Header["Origin"]
	switch {
	case s.opt.CORSOrigins == nil:
		h["Access-Control-Allow-Origin"] = anyOrigin
	case len(origin) == 1 && slices.Contains(s.opt.CORSOrigins, origin[0]):
		h["Access-Control-Allow-Origin"] = origin
	default:
		return
	}
	if len(origin) > 0 {
		h["Access-Control-Expose-Headers"] = anyHeader
	}
}

// preflight answers a browser that asks what it may send: any header that it
// names. What clients put there changes from one version to the next.
func preflight(w http.ResponseWriter, r *http.Request) {
	headers := "content-type,authorization"
	if asked := r.Header.Get("Access-Control-Request-Headers"); isHeaderList(asked) {
		headers = asked
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET,POST")
	h.Set("Access-Control-Allow-Headers", headers)
	h.Set("Access-Control-Max-Age", "7200") // as long as any browser keeps it
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// isHeaderList reports whether s is a list of some names of headers, as
// browsers write it.
func isHeaderList(s string) bool {
	const most = 2000
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-_, ", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// isJSON reports whether a content type is application/json or
// application/*+json, with any parameters.
func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	sub, ok := strings.CutPrefix(media, "application/")
	return ok && (sub == "json" || len(sub) > len("+json") && strings.HasSuffix(sub, "+json"))
}
