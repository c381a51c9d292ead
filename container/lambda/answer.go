package lambda

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// The longest answers in one piece, in bytes of their JSON: what Lambda takes
// from a function, and what a load balancer takes from Lambda.
const (
	answerLimit   = 6 << 20
	balancerLimit = 1 << 20
)

// limit is the longest answer in one piece that the source takes.
func (s source) limit() int {
	if s == loadBalancer || s == loadBalancerMulti {
		return balancerLimit
	}
	return answerLimit
}

// head is the status and the headers of an answer; its methods are those of
// an http.ResponseWriter.
type head struct {
	source source
	header http.Header
	status int // 0: not written yet
}

func newHead(s source) head { return head{source: s, header: http.Header{}} }

// Header returns the headers, which may be set until they are written.
func (h *head) Header() http.Header { return h.header }

// WriteHeader settles the status, at its first call that is not informational.
func (h *head) WriteHeader(status int) {
	if h.status == 0 && status >= http.StatusOK {
		h.status = status
	}
}

// proxyAnswer is an answer, or its beginning, in the form of HTTP sources.
type proxyAnswer struct {
	StatusCode        int                 `json:"statusCode"`
	StatusDescription string              `json:"statusDescription,omitempty"`
	Headers           map[string]string   `json:"headers,omitempty"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders,omitempty"`
	Cookies           []string            `json:"cookies,omitempty"`
	Body              *string             `json:"body,omitempty"`
	IsBase64Encoded   *bool               `json:"isBase64Encoded,omitempty"`
}

// proxy returns the answer's head as its source writes it: with cookies apart,
// with lists of values, or with single ones.
func (h *head) proxy() *proxyAnswer {
	header := h.header.Clone()
	for _, name := range []string{"Connection", "Content-Length", "Transfer-Encoding"} {
		header.Del(name) // of a connection that is not there
	}
	a := &proxyAnswer{StatusCode: h.status}
	switch h.source {
	case restAPI, httpAPIv1, loadBalancerMulti:
		a.MultiValueHeaders = header
	default:
		if h.source == functionURL || h.source == httpAPI {
			a.Cookies = header["Set-Cookie"]
			header.Del("Set-Cookie")
		}
		a.Headers = map[string]string{}
		for name, values := range header {
			a.Headers[name] = strings.Join(values, ",")
		}
	}
	if h.source == loadBalancer || h.source == loadBalancerMulti {
		a.StatusDescription = strings.TrimSpace(fmt.Sprintf("%d %s", h.status, http.StatusText(h.status)))
	}
	return a
}

// marshal does not escape what only HTML needs escaped: an answer has a limit.
func (a *proxyAnswer) marshal() []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		panic(err) // texts and numbers
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// buffered collects an answer in one piece.
type buffered struct {
	head
	noBody bool // the answer to HEAD
	body   bytes.Buffer
}

func newBuffered(s source, method string) *buffered {
	return &buffered{head: newHead(s), noBody: method == http.MethodHead}
}

func (b *buffered) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	if b.noBody {
		return len(p), nil
	}
	return b.body.Write(p)
}

// Flush does nothing: there is one piece.
func (b *buffered) Flush() {}

// payload returns what the source gets. The caller of a direct invocation
// learns of an error by a failure of the function: there is no status to look
// at.
func (b *buffered) payload() ([]byte, *failure) {
	b.WriteHeader(http.StatusOK)
	if b.source == direct {
		switch {
		case b.status >= http.StatusBadRequest:
			return nil, errorOf(b.body.Bytes(), b.status)
		case b.body.Len() == 0:
			return []byte("null"), nil // no answer at all may leave a caller waiting
		case b.body.Len() > b.source.limit():
			return nil, errorOf(b.tooLong(), http.StatusRequestEntityTooLarge)
		}
		return b.body.Bytes(), nil
	}
	if data := b.marshal(); len(data) <= b.source.limit() {
		return data, nil
	}
	text := b.tooLong()
	b.status = http.StatusRequestEntityTooLarge
	b.header.Set("Content-Type", "application/json")
	b.body.Reset()
	b.body.Write(text)
	return b.marshal(), nil
}

func (b *buffered) marshal() []byte {
	if b.body.Len() > 0 && b.header.Get("Content-Type") == "" {
		b.header.Set("Content-Type", http.DetectContentType(b.body.Bytes()))
	}
	a := b.proxy()
	text, binary := b.body.String(), false
	if !utf8.ValidString(text) {
		text, binary = base64.StdEncoding.EncodeToString(b.body.Bytes()), true
	}
	a.Body, a.IsBase64Encoded = &text, &binary
	return a.marshal()
}

// tooLong is the body of the answer that stands for one beyond the limit.
func (b *buffered) tooLong() []byte {
	return errorBody("payload_too_large", fmt.Sprintf(
		"The answer of %d bytes is longer than the %d bytes that the %s takes in one piece: ask for a stream or for less", b.body.Len(), b.source.limit(), b.source))
}

// errorBody is an error in the form that the API gives it.
func errorBody(kind, message string) []byte {
	data, err := json.Marshal(struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}{message, kind})
	if err != nil {
		panic(err) // two texts
	}
	return data
}

// errorOf makes a failure of an error's body in either form of the API, TGI's
// or OpenAI's.
func errorOf(body []byte, status int) *failure {
	var tgi struct {
		Error json.RawMessage `json:"error"`
		Type  string          `json:"error_type"`
	}
	if json.Unmarshal(body, &tgi) == nil && tgi.Error != nil {
		var message string
		if json.Unmarshal(tgi.Error, &message) == nil {
			return &failure{Message: message, Type: tgi.Type}
		}
		var openAI struct{ Message, Type string }
		if json.Unmarshal(tgi.Error, &openAI) == nil {
			return &failure{Message: openAI.Message, Type: openAI.Type}
		}
	}
	return &failure{Message: clip(string(body)), Type: fmt.Sprintf("status_%d", status)}
}

// batchAnswer names the records of a queue that have to come again.
func batchAnswer(failed map[string]bool) []byte {
	type item struct {
		ID string `json:"itemIdentifier"`
	}
	answer := struct {
		Failures []item `json:"batchItemFailures"`
	}{[]item{}}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		answer.Failures = append(answer.Failures, item{id})
	}
	data, err := json.Marshal(answer)
	if err != nil {
		panic(err) // texts
	}
	return data
}
