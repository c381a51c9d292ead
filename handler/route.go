package handler

import (
	"net/http"
	"slices"
	"strings"
)

// Methods are what a route serves, by their names; GET serves HEAD, too.
// A function that has written its answer returns nil; an error becomes the
// answer.
type Methods map[string]func(w http.ResponseWriter, r *http.Request) error

// Route returns a route beside the Server's own that behaves as they do: it
// asks for the API key, answers methods that it lacks, has the headers of
// CORS, and errors and panics end as JSON, in the log and in the metrics. It
// is for what stands around a Server, which sends the paths to it.
func (s *Server) Route(m Methods) http.Handler {
	e := &endpoint{s: s, route: hostRoute, others: map[string]handlerFunc{}}
	var allowed []string
	for method, serve := range m {
		allowed = append(allowed, method)
		h := func(x *exchange) error { return serve(x.w, x.r) }
		switch method {
		case http.MethodGet:
			allowed = append(allowed, http.MethodHead)
			e.get = h
		case http.MethodPost:
			e.post = h
		default:
			e.others[method] = h
		}
	}
	slices.Sort(allowed)
	e.allow = strings.Join(allowed, ",")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.setHeaders(w.Header(), r)
		e.ServeHTTP(w, r)
	})
}
