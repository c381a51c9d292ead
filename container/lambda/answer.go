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

	"github.com/aws/aws-lambda-go/events"
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

// fields returns the headers that the source gets, without those of a
// connection, which there is none of.
func (h *head) fields() http.Header {
	fields := h.header.Clone()
	for _, name := range []string{"Connection", "Content-Length", "Transfer-Encoding"} {
		fields.Del(name)
	}
	return fields
}

// joined returns headers as sources that take single values want them.
func joined(fields http.Header) map[string]string {
	single := make(map[string]string, len(fields))
	for name, values := range fields {
		single[name] = strings.Join(values, ",")
	}
	return single
}

// apart takes the cookies out of headers, for sources that take them apart.
func apart(fields http.Header) (cookies []string) {
	cookies = fields["Set-Cookie"]
	delete(fields, "Set-Cookie")
	return cookies
}

// marshal does not escape what only HTML needs escaped: answers have a size
// limit.
func marshal(answer any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
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

// payload returns what the source gets. An error reaches the caller of a direct
// invocation as a failure of the function, since the answer has no status.
func (b *buffered) payload() ([]byte, *failure) {
	b.WriteHeader(http.StatusOK)
	if b.source == direct {
		switch {
		case b.status >= http.StatusBadRequest:
			return nil, errorOf(b.body.Bytes(), b.status)
		case b.body.Len() == 0:
			return []byte("null"), nil // without an answer a caller may wait on
		case b.body.Len() > b.source.limit():
			return nil, errorOf(b.tooLong(), http.StatusRequestEntityTooLarge)
		}
		return b.body.Bytes(), nil
	}
	if data := b.encode(); len(data) <= b.source.limit() {
		return data, nil
	}
	text := b.tooLong()
	b.status = http.StatusRequestEntityTooLarge
	b.header.Set("Content-Type", "application/json")
	b.body.Reset()
	b.body.Write(text)
	return b.encode(), nil
}

// encode returns the answer in the form that AWS publishes for its source.
func (b *buffered) encode() []byte {
	if b.body.Len() > 0 && b.header.Get("Content-Type") == "" {
		b.header.Set("Content-Type", http.DetectContentType(b.body.Bytes()))
	}
	text, binary := b.body.String(), false
	if !utf8.ValidString(text) {
		text, binary = base64.StdEncoding.EncodeToString(b.body.Bytes()), true
	}
	fields := b.fields()
	switch b.source {
	case functionURL:
		cookies := apart(fields)
		return marshal(events.LambdaFunctionURLResponse{StatusCode: b.status, Headers: joined(fields), Cookies: cookies, Body: text, IsBase64Encoded: binary})
	case httpAPI:
		cookies := apart(fields)
		return marshal(events.APIGatewayV2HTTPResponse{StatusCode: b.status, Headers: joined(fields), Cookies: cookies, Body: text, IsBase64Encoded: binary})
	case restAPI, httpAPIv1:
		return marshal(events.APIGatewayProxyResponse{StatusCode: b.status, MultiValueHeaders: fields, Body: text, IsBase64Encoded: binary})
	}
	a := events.ALBTargetGroupResponse{StatusCode: b.status, Body: text, IsBase64Encoded: binary}
	a.StatusDescription = strings.TrimSpace(fmt.Sprintf("%d %s", b.status, http.StatusText(b.status)))
	if b.source == loadBalancer {
		a.Headers = joined(fields)
	} else {
		a.MultiValueHeaders = fields
	}
	return marshal(a)
}

// tooLong is the body of the answer that stands for one beyond the limit.
func (b *buffered) tooLong() []byte {
	return errorBody("payload_too_large", fmt.Sprintf(
		"The answer of %d bytes is longer than the %d bytes that the %s takes in one piece: ask for a stream or for less", b.body.Len(), b.source.limit(), b.source))
}

// errorBody is an error in the form that the API gives it.
func errorBody(kind, message string) []byte {
	return marshal(struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}{message, kind})
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
	answer := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		answer.BatchItemFailures = append(answer.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
	}
	return marshal(answer)
}
