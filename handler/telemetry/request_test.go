package telemetry

import (
	"net/http"
	"strings"
	"testing"
)

// A name that a client gives a request must not forge a line or fill one.
func TestID(t *testing.T) {
	for _, tt := range []struct{ header, value, want string }{
		{"X-Request-Id", "a-1", "a-1"},
		{"X-Amzn-SageMaker-Inference-Id", "i-1", "i-1"},
		{"X-Request-Id", "a b", ""},
		{"X-Request-Id", "é", ""},
		{"X-Request-Id", strings.Repeat("x", 129), ""},
		{"X-Other", "a", ""},
	} {
		h := http.Header{}
		h.Set(tt.header, tt.value)
		if got := ID(h); got != tt.want {
			t.Errorf("%s: %q: %q, want %q", tt.header, tt.value, got, tt.want)
		}
	}
}
