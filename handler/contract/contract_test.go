// Package contract holds the server to its OpenAPI document. It is a package
// of its own because the validator takes long to build.
package contract

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler"
)

// serve runs a Server over the engine with the simulated backend.
func serve(t *testing.T) (url string) {
	t.Helper()
	tok, err := token.Load("../../engine/token/testdata/llama3")
	if err != nil {
		t.Fatal(err)
	}
	limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 8, MaxPagesPerSlot: 32}
	eos, _ := tok.EOS()
	e, err := engine.New(engine.Config{
		Backend: sim.New(limits, sim.Config{Model: sim.Model{Vocab: tok.VocabSize(), EOS: eos, EOSRate: 0.01}}),
		Device:  limits, Pages: 64, Vocab: tok.VocabSize(), EOS: []int32{eos},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- e.Run(ctx) }()
	s := handler.New(handler.Options{ModelID: "sim", Logger: slog.New(slog.DiscardHandler)})
	s.SetReady(handler.Model{Generator: e, Tokenizer: tok})
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return srv.URL
}

// TestContract validates real requests and answers against the document that
// the server serves.
func TestContract(t *testing.T) {
	url := serve(t)
	resp, err := http.Get(url + "/api-doc/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/generate", `{"inputs":"x","parameters":{"details":true,"decoder_input_details":true,"top_n_tokens":2}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"do_sample":true,"seed":3,"details":true,"stop":["b"]}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"stop":"b","temperature":0.5,"top_k":3,"top_p":0.5,"typical_p":0.9,"max_new_tokens":2}}`},
		{"POST", "/", `{"inputs":"x"}`},
		{"POST", "/invocations", `{"inputs":"x","parameters":{"details":true}}`},
		{"POST", "/generate", `{"inputs":""}`},
		{"POST", "/tokenize", `{"inputs":"é x"}`},
		{"GET", "/info", ""},
		{"GET", "/health", ""},
		{"GET", "/ping", ""},
		{"GET", "/v1/models", ""},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			req := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			real, _ := http.NewRequest(tt.method, url+tt.path, strings.NewReader(tt.body))
			if tt.body != "" {
				req.Header.Set("Content-Type", "application/json")
				real.Header.Set("Content-Type", "application/json")
			}
			resp, err := http.DefaultClient.Do(real)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if ok, errs := v.ValidateHttpRequest(req); !ok {
				for _, e := range errs {
					t.Errorf("request %s: %s %v", tt.body, e.Reason, e.SchemaValidationErrors)
				}
			}
			if ok, errs := v.ValidateHttpResponse(req, resp); !ok {
				for _, e := range errs {
					t.Errorf("answer to %s: %s: %s %v", tt.body, e.Message, e.Reason, e.SchemaValidationErrors)
				}
			}
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // read already
		})
	}
}
