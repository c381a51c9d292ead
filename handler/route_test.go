package handler

import (
	"errors"
	"net/http"
	"testing"
)

// A route that stands beside the Server's own behaves as they do.
func TestRoute(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.APIKey = "k" })
	h := s.Route(Methods{
		"GET": func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("got")); return err },
		"DELETE": func(http.ResponseWriter, *http.Request) error {
			return &Error{Status: 404, Type: "not_found", Msg: "none"}
		},
		"POST": func(_ http.ResponseWriter, r *http.Request) error {
			if r.URL.Path == "/panics" {
				panic("a fault")
			}
			return errors.New("a secret cause")
		},
	})
	for _, tt := range []struct {
		method, path, key string
		status            int
		body              string
	}{
		{"GET", "/x", "k", 200, "got"},
		{"GET", "/x", "no", 401, ""},
		{"DELETE", "/x", "k", 404, `{"error":"none","error_type":"not_found"}`},
		{"DELETE", "/x", "", 401, ""},
		{"POST", "/x", "k", 500, `{"error":"Internal error","error_type":"internal"}`},
		{"POST", "/panics", "k", 500, `{"error":"Internal error","error_type":"internal"}`},
		{"PUT", "/x", "k", 405, ""},
		{"OPTIONS", "/x", "", 200, ""},
	} {
		got := ask(t, h, tt.method, tt.path, "", "Authorization: Bearer "+tt.key)
		if got.status != tt.status || tt.body != "" && got.body != tt.body {
			t.Errorf("%s %s with key %q: %d %q; want %d %q", tt.method, tt.path, tt.key, got.status, got.body, tt.status, tt.body)
		}
		if got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: headers %v lack CORS's", tt.method, tt.path, got.header)
		}
		if want := "DELETE,GET,HEAD,POST"; tt.status == 405 && got.header.Get("Allow") != want {
			t.Errorf("allow %q, want %q", got.header.Get("Allow"), want)
		}
	}
}
