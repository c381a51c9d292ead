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

// The largest buffered answers, in bytes of their JSON: what Lambda accepts from
// a function, and what a load balancer accepts from Lambda.
const (
	answerLimit   = 6 << 20
	balancerLimit = 1 << 20
)

// limit is the size of the largest buffered answer that the source accepts.
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

// WriteHeader sets the status. Informational ones are ignored, and only the
// first of the others counts.
func (h *head) WriteHeader(status int) {
	if h.status == 0 && status >= http.StatusOK {
		h.status = status
	}
}

// fields returns the headers for the source, without those about a connection:
// there is none.
func (h *head) fields() http.Header {
	fields := h.header.Clone()
	for _, name := range []string{"Connection", "Content-Length", "Transfer-Encoding"} {
		fields.Del(name)
	}
	return fields
}

// joined returns headers with their values joined, for sources that accept one
// value each.
func joined(fields http.Header) map[string]string {
	single := make(map[string]string, len(fields))
	for name, values := range fields {
		single[name] = strings.Join(values, ",")
	}
	return single
}

// takeCookies removes the cookies from headers and returns them, for sources that
// have a field for them.
func takeCookies(fields http.Header) (cookies []string) {
	cookies = fields["Set-Cookie"]
	delete(fields, "Set-Cookie")
	return cookies
}

// marshal returns the JSON of an answer without the escapes that only HTML needs,
// because answers have a size limit.
func marshal(answer any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		panic(err) // texts and numbers
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// buffered collects an answer to send it in one piece.
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

// Flush does nothing: the answer is sent at the end.
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
			return []byte("null"), nil // with an empty answer a caller may keep waiting
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
		cookies := takeCookies(fields)
		return marshal(events.LambdaFunctionURLResponse{StatusCode: b.status, Headers: joined(fields), Cookies: cookies, Body: text, IsBase64Encoded: binary})
	case httpAPI:
		cookies := takeCookies(fields)
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

// tooLong is the body of the answer that replaces one above the limit.
func (b *buffered) tooLong() []byte {
	return errorBody("payload_too_large", fmt.Sprintf(
		"The answer has %d bytes, more than the %d that the %s accepts in one piece: ask for a stream or for less", b.body.Len(), b.source.limit(), b.source))
}

// errorBody is an error in the form that the API has.
func errorBody(kind, message string) []byte {
	return marshal(struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}{message, kind})
}

// isClients reports whether a status says that the request is at fault. A
// generation that failed (424) and a full queue (429) are not its fault.
func isClients(status int) bool {
	return status >= http.StatusBadRequest && status < http.StatusInternalServerError &&
		status != http.StatusFailedDependency && status != http.StatusTooManyRequests
}

// errorOf turns the body of an error, in TGI's or OpenAI's form, into a failure.
func errorOf(body []byte, status int) *failure {
	f := &failure{client: isClients(status)}
	var tgi struct {
		Error json.RawMessage `json:"error"`
		Type  string          `json:"error_type"`
	}
	if json.Unmarshal(body, &tgi) == nil && tgi.Error != nil {
		if json.Unmarshal(tgi.Error, &f.Message) == nil {
			f.Type = tgi.Type
			return f
		}
		var openAI struct{ Message, Type string }
		if json.Unmarshal(tgi.Error, &openAI) == nil {
			f.Message, f.Type = openAI.Message, openAI.Type
			return f
		}
	}
	f.Message, f.Type = clip(string(body)), strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	return f
}

// batchAnswer lists the records of a queue that must be delivered again.
func batchAnswer(failed map[string]bool) []byte {
	answer := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		answer.BatchItemFailures = append(answer.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
	}
	return marshal(answer)
}
