package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	for _, tt := range []struct {
		write             func(http.ResponseWriter)
		contentType, body string
	}{
		{func(w http.ResponseWriter) { WriteJSON(w, http.StatusTeapot, []byte(`{}`)) }, "application/json", "{}"},
		{func(w http.ResponseWriter) { Write(w, http.StatusTeapot, "text/plain", []byte("é")) }, "text/plain", "é"},
	} {
		w := httptest.NewRecorder()
		tt.write(w)
		got := w.Result()
		defer got.Body.Close()
		if got.StatusCode != http.StatusTeapot || got.Header.Get("Content-Type") != tt.contentType || got.ContentLength != int64(len(tt.body)) || w.Body.String() != tt.body {
			t.Errorf("%d %v %q; want %s %q", got.StatusCode, got.Header, w.Body, tt.contentType, tt.body)
		}
	}
}

// The error of a panic says where it happened.
func TestPanicked(t *testing.T) {
	defer func() {
		err := Panicked(recover())
		if text := err.Error(); !strings.HasPrefix(text, "panic: a fault\n") || !strings.Contains(text, "TestPanicked") {
			t.Errorf("the error is %q", text)
		}
	}()
	panic("a fault")
}
