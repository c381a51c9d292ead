package sagemaker

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/internal/web"
)

// TestFull asks a server whose requests hold all that they may, but for some
// kilobytes: bodies that are read here and answers that are kept here count.
func TestFull(t *testing.T) {
	const left, body = 64 << 10, 128 << 10
	long := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // it is in memory
		web.WriteJSON(w, 200, []byte(`"`+strings.Repeat("a", body)+`"`))
	}
	a := newAPI(long)
	h := Wrap(a, Options{Slots: 2})
	free := freeBytes(a)
	if !a.Hold(free - left) {
		t.Fatal("what is free cannot be held")
	}
	const lines = "Content-Type: application/jsonlines"
	for name, sent := range map[string]string{
		"a body that is too long now":   strings.Repeat("1\n", body/2),
		"answers that are too long now": "1\n2",
	} {
		got := ask(h, "POST", "/invocations", sent, lines)
		mustFail(t, got, 429, "Model is overloaded")
		if now := freeBytes(a); now != left {
			t.Errorf("%s: %d bytes are free after it, want %d", name, now, left)
		}
	}

	c := dial(t, h, nil)
	c.say(`{"id":"a"}`)
	if got := c.hear(); got.Status != 429 {
		t.Errorf("an answer that is too long for now, on a socket: %+v", got)
	}
	c.say(`{"x":"` + strings.Repeat("a", body) + `"}`)
	if got := c.hear(); got.Status != 429 {
		t.Errorf("a message that is too long for now: %+v", got)
	}
	if now := freeBytes(a); now != left {
		t.Errorf("%d bytes are free at the end, want %d", now, left)
	}
}

// freeBytes is how many bytes can still be held.
func freeBytes(a api) (n int64) {
	for step := int64(1) << 40; step > 0; step /= 2 {
		for a.Hold(step) {
			n += step
		}
	}
	a.Release(n)
	return n
}
