package deploy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/call"
)

// text is an answer in one piece, of a function that failed if failed.
func text(body string, failed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if failed {
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
			w.Header().Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString([]byte("START\nwhy\n")))
		}
		fmt.Fprint(w, body)
	}
}

// stream is a streamed answer, cut into pieces of n bytes, and how it ends.
func stream(body string, n int, complete map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
		encoder := eventstream.NewEncoder()
		message := func(kind string, payload []byte) {
			m := eventstream.Message{Payload: payload}
			m.Headers.Set(":message-type", eventstream.StringValue("event"))
			m.Headers.Set(":event-type", eventstream.StringValue(kind))
			_ = encoder.Encode(w, m)
		}
		for b := []byte(body); len(b) > 0; {
			piece := b[:min(n, len(b))]
			b = b[len(piece):]
			message("PayloadChunk", piece)
		}
		last, _ := json.Marshal(complete)
		message("InvokeComplete", last)
	}
}

func TestInvoke(t *testing.T) {
	const events = "data: {\"token\":{\"text\":\"Grüß\",\"special\":false}}\n\n" +
		"data: {\"token\":{\"text\":\" Gott\",\"special\":false},\"generated_text\":\"Grüß Gott\",\"details\":{\"finish_reason\":\"length\",\"generated_tokens\":2}}\n\n"
	for _, tt := range []struct {
		name     string
		call     call.Call
		answer   http.HandlerFunc
		want     string
		wantErr  string
		wantOut  string
		wantBody string
	}{
		{
			name: "in one piece", call: call.Call{Input: "Hi"}, answer: text(`[{"generated_text":"there"}]`, false), want: "there\n",
			wantBody: `{"inputs":"Hi","parameters":{"return_full_text":false},"stream":false}`,
		},
		{name: "raw", call: call.Call{Input: `{"a":1}`, Raw: true}, answer: text(`{"b":2}`, false), want: `{"b":2}`, wantBody: `{"a":1}`},
		{name: "streamed, cut within a letter", call: call.Call{Input: "x", Stream: true}, answer: stream(events, 43, nil), want: "Grüß Gott\n"},
		{name: "streamed, but in one piece", call: call.Call{Input: "x", Stream: true}, answer: stream(`[{"generated_text":"there"}]`, 5, nil), want: "there\n"},
		{name: "streamed, raw", call: call.Call{Input: "{}", Raw: true, Stream: true}, answer: stream("data: x\n\n", 5, nil), want: "data: x\n\n"},
		{
			name: "the function fails", call: call.Call{Input: "x"},
			answer:  text(`{"errorMessage":"inputs is empty","errorType":"Function.Validation"}`, true),
			wantErr: "function small failed (Function.Validation): inputs is empty", wantOut: "the end of the function's log:\n  START\n  why\n",
		},
		{
			name: "the function fails within the stream", call: call.Call{Input: "x", Stream: true},
			answer:  stream(events[:40], 40, map[string]string{"ErrorCode": "Unhandled", "ErrorDetails": `{"errorMessage":"out of memory"}`, "LogResult": base64.StdEncoding.EncodeToString([]byte("why\n"))}),
			wantErr: "function small failed: out of memory", wantOut: "  why\n",
		},
		{
			name: "Lambda ends the function", call: call.Call{Input: "x"}, answer: text("Task timed out", true),
			wantErr: "function small failed: Task timed out",
		},
		{
			name: "the stream breaks off", call: call.Call{Input: "x", Stream: true}, answer: stream(events[:60], 60, nil), want: "Grüß",
			wantErr: "the stream broke off before its last event",
		},
		{
			name: "no such function", call: call.Call{Input: "x"}, wantErr: "there is no function small:live in eu-west-1",
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Amzn-ErrorType", "ResourceNotFoundException")
				w.WriteHeader(http.StatusNotFound)
			},
		},
		{
			name: "a failure of Lambda's is not repeated", call: call.Call{Input: "x"}, wantErr: "function small:live: ServiceException",
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Amzn-ErrorType", "ServiceException")
				w.WriteHeader(http.StatusInternalServerError)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newFake(t) // for its environment
			calls, body := 0, ""
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				calls, body = calls+1, string(raw)
				if got := r.URL.Query().Get("Qualifier"); got != Alias {
					t.Errorf("qualifier %q", got)
				}
				tt.answer(w, r)
			}))
			defer server.Close()
			var progress, out bytes.Buffer
			c, err := Dial(context.Background(), account.Access{Endpoint: server.URL}, false, &progress)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Invoke(context.Background(), &Call{Call: tt.call, Function: "small", Qualifier: Alias}, &out)
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if out.String() != tt.want {
				t.Errorf("text %q, want %q", out.String(), tt.want)
			}
			if !strings.Contains(progress.String(), tt.wantOut) {
				t.Errorf("progress %q, want %q in it", progress.String(), tt.wantOut)
			}
			if tt.wantBody != "" && body != tt.wantBody {
				t.Errorf("body %s, want %s", body, tt.wantBody)
			}
			if calls != 1 {
				t.Errorf("%d calls", calls)
			}
		})
	}
}
