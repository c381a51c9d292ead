package local

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

func TestAdapters(t *testing.T) {
	registered := map[string]map[string]string{}
	answers := map[string]int{"good": 200, "bad": 424, "late": 503}
	r := run(t, Config{
		Component: "base",
		Adapters:  map[string]string{"good": "/opt/ml/adapters/good", "bad": "/b", "late": "/l"},
		Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/adapters" {
				w.Header().Set(headerAttributes, req.Header.Get(headerAdapter)+"/"+req.Header.Get(headerAlias))
				return
			}
			var body map[string]string
			if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			name := body["name"]
			registered[name] = body
			w.WriteHeader(answers[name])
			w.Write([]byte("rank 256 is too high"))
			if name == "late" {
				answers[name] = 200
			}
		})},
	})
	if want := map[string]string{"name": "good", "src": "/opt/ml/adapters/good"}; !reflect.DeepEqual(registered["good"], want) {
		t.Errorf("the container was told %v, want %v", registered["good"], want)
	}
	for _, tt := range []struct {
		name, component string
		wantAdapter     string // identifier/alias
		wantError       string // a part of the ValidationError
	}{
		{"the base", "base", "/", ""},
		{"an adapter", "good", "good/good", ""},
		{"an adapter that took two attempts", "late", "late/late", ""},
		{"a refused adapter", "bad", "", "Inference Component bad is not in service. Its creation failed: POST /adapters: the container answered 424: rank 256 is too high"},
		{"none", "", "", "Inference Component Name header is required"},
		{"an unknown one", "other", "", "Inference Component other of account 123456789012 not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input()
			if tt.component != "" {
				in.InferenceComponentName = aws.String(tt.component)
			}
			out, err := r.InvokeEndpoint(context.Background(), in)
			var v *types.ValidationError
			switch {
			case tt.wantError == "" && err != nil:
				t.Error(err)
			case tt.wantError == "" && aws.ToString(out.CustomAttributes) != tt.wantAdapter:
				t.Errorf("the container got %q, want %q", aws.ToString(out.CustomAttributes), tt.wantAdapter)
			case tt.wantError != "" && (!errors.As(err, &v) || !strings.Contains(v.ErrorMessage(), tt.wantError)):
				t.Errorf("got %v, want a ValidationError with %q", err, tt.wantError)
			}
		})
	}
}

func TestAnErrorNamesTheComponent(t *testing.T) {
	r := run(t, Config{Component: "base", Launcher: &fakes{t: t, handler: healthy(http.NotFound)}})
	in := input()
	in.InferenceComponentName = aws.String("base")
	_, err := r.InvokeEndpoint(context.Background(), in)
	if m := asModelError(t, err); !strings.HasPrefix(m.ErrorMessage(), "Received client error (404) from base with") {
		t.Errorf("message %q", m.ErrorMessage())
	}
}
