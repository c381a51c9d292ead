package account

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// bodyKeeper keeps the request's body as net/http would see it.
type bodyKeeper struct{ body io.Reader }

func (b *bodyKeeper) Do(r *http.Request) (*http.Response, error) {
	b.body = r.Body
	return answer(r, http.StatusOK, ""), nil
}

func TestPatientClientHidesWriteTo(t *testing.T) {
	kept := &bodyKeeper{}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := request.Body.(io.WriterTo); !ok {
		t.Fatal("a body that has no WriteTo shows nothing")
	}
	if _, err := (patientClient{kept}).Do(request); err != nil {
		t.Fatal(err)
	}
	if _, ok := kept.body.(io.WriterTo); ok {
		t.Error("net/http sees WriteTo")
	}
}
