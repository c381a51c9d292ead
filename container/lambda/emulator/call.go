package emulator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream/eventstreamapi"
	"github.com/google/uuid"
)

// call is a call of one of Lambda's invoke APIs.
type call struct {
	function string
	stream   bool
}

// parseCall reports whether a request is a call of an API.
func parseCall(r *http.Request) (call, bool) {
	for _, api := range []struct {
		prefix, suffix string
		stream         bool
	}{
		{"/2015-03-31/functions/", "/invocations", false},
		{"/2021-11-15/functions/", "/response-streaming-invocations", true},
	} {
		rest, ok := strings.CutPrefix(r.URL.EscapedPath(), api.prefix)
		if !ok {
			continue
		}
		name, ok := strings.CutSuffix(rest, api.suffix)
		if name, err := url.PathUnescape(name); ok && err == nil {
			return call{name, api.stream}, true
		}
	}
	return call{}, false
}

// names reports whether a call's function is this one: by name or ARN, with
// or without a qualifier.
func (o *Options) names(function string) bool {
	parts := strings.Split(function, ":")
	if i := len(parts) - 1; i > 0 && parts[i] != o.Function { // a qualifier
		parts = parts[:i]
	}
	return parts[len(parts)-1] == o.Function
}

// serveCall serves the invoke APIs.
func (m *Emulator) serveCall(w http.ResponseWriter, r *http.Request, c call) {
	if r.Method != http.MethodPost {
		m.refuseCall(w, http.StatusMethodNotAllowed, "MethodNotAllowedException", "expected POST, found "+r.Method)
		return
	}
	if !m.opt.names(c.function) {
		m.refuseCall(w, http.StatusNotFound, "ResourceNotFoundException", "Function not found: "+c.function+"; here is "+m.opt.Function)
		return
	}
	kind, limit := r.Header.Get("X-Amz-Invocation-Type"), int64(payloadLimit)
	unawaited := kind == "Event" && !c.stream
	if unawaited {
		limit = asyncLimit
	}
	event, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		m.refuseCall(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", limit))
		return
	case err != nil:
		m.refuseCall(w, http.StatusBadRequest, "InvalidRequestContentException", "the request breaks off: "+err.Error())
		return
	case len(bytes.TrimSpace(event)) == 0:
		event = []byte("{}")
	case !json.Valid(event):
		m.refuseCall(w, http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json")
		return
	}
	w.Header().Set("X-Amzn-Requestid", uuid.NewString())
	switch {
	case kind == "DryRun":
		w.WriteHeader(http.StatusNoContent)
	case unawaited:
		go func() {
			if inv := m.invoke(context.Background(), event); inv.body != nil {
				io.Copy(io.Discard, inv.body) //nolint:errcheck // no one reads it
			}
		}()
		w.WriteHeader(http.StatusAccepted)
	case c.stream:
		m.serveEvents(w, m.invoke(r.Context(), event))
	default:
		inv := newInvocation(event)
		inv.wantsLog = r.Header.Get("X-Amz-Log-Type") == "Tail"
		m.begin(r.Context(), inv)
		m.serveWhole(w, inv)
	}
}

func (m *Emulator) refuseCall(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("X-Amzn-Errortype", kind)
	writeJSON(w, status, struct{ Type, Message string }{"User", message})
}

// serveWhole answers Invoke. The caller gets a streamed answer in one piece.
func (m *Emulator) serveWhole(w http.ResponseWriter, inv *invocation) {
	var data []byte
	if inv.body != nil {
		defer inv.body.Close()
		data, _ = io.ReadAll(inv.body) //nolint:errcheck // a pipe that only ends
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amz-Executed-Version", "$LATEST")
	f := inv.failed()
	if f == nil && len(data) > payloadLimit {
		f = tooLarge(payloadLimit)
	}
	if f != nil {
		h.Set("X-Amz-Function-Error", "Unhandled")
		data = f.data()
	}
	if inv.wantsLog {
		<-inv.ended
		h.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString([]byte(inv.log)))
	}
	w.Write(data)
}

// serveEvents answers InvokeWithResponseStream with an event for each piece, and
// one that says how the stream ended.
func (m *Emulator) serveEvents(w http.ResponseWriter, inv *invocation) {
	h := w.Header()
	h.Set("Content-Type", "application/vnd.amazon.eventstream")
	h.Set("X-Amz-Executed-Version", "$LATEST")
	out := &events{w: w, encoder: eventstream.NewEncoder()}
	if inv.body != nil {
		defer inv.body.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := inv.body.Read(buf)
			if n > 0 && out.send("PayloadChunk", "application/octet-stream", buf[:n]) != nil {
				return // the caller has left
			}
			if err != nil {
				break
			}
		}
	}
	var end struct {
		ErrorCode, ErrorDetails string `json:",omitempty"`
	}
	if f := inv.failed(); f != nil {
		end.ErrorCode, end.ErrorDetails = f.Type, string(f.data())
	}
	data, err := json.Marshal(end)
	if err != nil {
		panic(err) // texts
	}
	out.send("InvokeComplete", "application/json", data) //nolint:errcheck // it was the last
}

// events writes the frames of an event stream.
type events struct {
	w       http.ResponseWriter
	encoder *eventstream.Encoder
}

func (e *events) send(kind, contentType string, payload []byte) error {
	message := eventstream.Message{Payload: payload}
	message.Headers.Set(eventstreamapi.MessageTypeHeader, eventstream.StringValue(eventstreamapi.EventMessageType))
	message.Headers.Set(eventstreamapi.EventTypeHeader, eventstream.StringValue(kind))
	message.Headers.Set(eventstreamapi.ContentTypeHeader, eventstream.StringValue(contentType))
	if err := e.encoder.Encode(e.w, message); err != nil {
		return err
	}
	return http.NewResponseController(e.w).Flush()
}
