package local

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever a caller sends is either refused with a 400 or reaches the
// container in headers that are allowed and short.
func FuzzCall(f *testing.F) {
	e, err := New(Config{Name: "demo", Launcher: Servers{}})
	if err != nil {
		f.Fatal(err)
	}
	e.fleet.setPhase(inService)
	f.Add(uint8(0), "demo", headerAttributes, "a=b", []byte("{}"))
	f.Add(uint8(1), "demo", headerAccept, "text/event-stream", []byte(""))
	f.Add(uint8(2), "demo", headerInput, "s3://b/k", []byte(""))
	f.Add(uint8(0), "-", "X-Forwarded-For", "\xff", []byte("{}"))
	f.Fuzz(func(t *testing.T, op uint8, name, header, value string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
		r.SetPathValue("endpoint", name)
		r.Header.Set(header, value)
		c, fault := e.parse(r, operation(op%4))
		if fault != nil {
			if fault.kind != "ValidationError" || fault.status != 400 || fault.message == "" {
				t.Errorf("refused with %d %s %q", fault.status, fault.kind, fault.message)
			}
			return
		}
		for name, values := range c.header {
			switch name {
			case "Content-Type", "Accept", headerAttributes, headerInference, headerSession:
				if len(values) != 1 || len(values[0]) > 1024 || !asciiPattern.MatchString(values[0]) {
					t.Errorf("%s: %q passes", name, values)
				}
			default:
				t.Errorf("%s passes", name)
			}
		}
		if string(c.body) != string(body) {
			t.Errorf("body %q, want %q", c.body, body)
		}
	})
}
