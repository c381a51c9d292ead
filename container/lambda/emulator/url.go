package emulator

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// serveURL serves the function URL in its invoke mode. Neither mode understands
// what a function answers for the other: BUFFERED shows the head of a stream,
// and RESPONSE_STREAM the JSON around an answer in one piece.
func (m *Emulator) serveURL(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, payloadLimit))
	if err != nil {
		status := http.StatusBadRequest
		var exceeded *http.MaxBytesError
		if errors.As(err, &exceeded) {
			status = http.StatusRequestEntityTooLarge
		}
		writeJSON(w, status, struct{ Message string }{err.Error()})
		return
	}
	inv := m.invoke(r.Context(), m.opt.urlEvent(r, body))
	if inv.body != nil {
		defer inv.body.Close()
	}
	switch {
	case inv.body == nil:
		urlFailure(w, inv.failed())
	case m.opt.StreamURL:
		m.urlStream(w, inv)
	default:
		m.urlAnswer(w, inv)
	}
}

// urlFailure answers for a function that failed. AWS hides the cause, which is
// what a developer wants to see.
func urlFailure(w http.ResponseWriter, f *failure) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadGateway)
	w.Write(f.data())
}

// urlEvent is the event of a request, in format 2.0.
func (o *Options) urlEvent(r *http.Request, body []byte) []byte {
	id := strings.ReplaceAll(uuid.NewString(), "-", "")
	host := fmt.Sprintf("%s.lambda-url.%s.on.aws", id, o.Region)
	source, _, _ := net.SplitHostPort(r.RemoteAddr) //nolint:errcheck // net/http made it
	headers := map[string]string{"host": r.Host, "x-forwarded-for": source, "x-forwarded-proto": "http"}
	var cookies []string
	for name, values := range r.Header {
		if name == "Cookie" {
			cookies = strings.Split(strings.Join(values, "; "), "; ")
			continue
		}
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	now := time.Now().UTC()
	event := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": r.URL.EscapedPath(), "rawQueryString": r.URL.RawQuery,
		"headers": headers,
		"requestContext": map[string]any{
			"accountId": "anonymous", "apiId": id, "domainName": host, "domainPrefix": id, "requestId": uuid.NewString(),
			"routeKey": "$default", "stage": "$default", "time": now.Format("02/Jan/2006:15:04:05 -0700"), "timeEpoch": now.UnixMilli(),
			"http": map[string]string{
				"method": r.Method, "path": r.URL.Path, "protocol": r.Proto, "sourceIp": source, "userAgent": r.UserAgent(),
			},
		},
	}
	if cookies != nil {
		event["cookies"] = cookies
	}
	text := isText(r.Header.Get("Content-Type"))
	event["isBase64Encoded"] = !text && len(body) > 0
	switch {
	case len(body) == 0:
	case text:
		event["body"] = string(body)
	default:
		event["body"] = base64.StdEncoding.EncodeToString(body)
	}
	data, err := json.Marshal(event)
	if err != nil {
		panic(err) // texts
	}
	return data
}

// isText reports whether a body of the type is passed on as it is.
func isText(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasPrefix(media, "text/") || media == "application/json" || media == "application/xml" ||
		media == "application/javascript" || strings.HasSuffix(media, "+json"))
}

// urlHead is the status and the headers of an answer.
type urlHead struct {
	StatusCode        int                 `json:"statusCode"`
	Headers           map[string]string   `json:"headers"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
	Cookies           []string            `json:"cookies"`
}

func (u *urlHead) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range u.MultiValueHeaders {
		h[http.CanonicalHeaderKey(name)] = values
	}
	for name, value := range u.Headers {
		h.Set(name, value)
	}
	for _, cookie := range u.Cookies {
		h.Add("Set-Cookie", cookie)
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	status := u.StatusCode
	if status < http.StatusOK || status > 599 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
}

// urlAnswer writes an answer in one piece. One without a status is itself the
// body, as Lambda reads it.
func (m *Emulator) urlAnswer(w http.ResponseWriter, inv *invocation) {
	data, err := io.ReadAll(inv.body)
	if err != nil {
		panic(err) // a pipe that only ends
	}
	f := inv.failed()
	if f == nil && len(data) > payloadLimit {
		f = tooLarge(payloadLimit)
	}
	if f != nil {
		urlFailure(w, f)
		return
	}
	var answer struct {
		urlHead
		Body            string `json:"body"`
		IsBase64Encoded bool   `json:"isBase64Encoded"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.StatusCode == 0 {
		(&urlHead{}).write(w)
		w.Write(data)
		return
	}
	body := []byte(answer.Body)
	if answer.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(answer.Body); err != nil {
			writeJSON(w, http.StatusBadGateway, struct{ Message string }{"the function says that its body is base64: " + err.Error()})
			return
		}
	}
	answer.write(w)
	w.Write(body)
}

// preludeType is the content type of a stream that begins with its status.
const preludeType = "application/vnd.awslambda.http-integration-response"

// urlStream writes the pieces of an answer as they come. If the answer is cut off,
// the connection is closed.
func (m *Emulator) urlStream(w http.ResponseWriter, inv *invocation) {
	body := bufio.NewReaderSize(inv.body, 64<<10)
	head := &urlHead{Headers: map[string]string{"Content-Type": cmp.Or(inv.contentType, "application/octet-stream")}}
	if inv.contentType == preludeType {
		var err error
		if head, err = readPrelude(body); err != nil {
			writeJSON(w, http.StatusBadGateway, struct{ Message string }{"the function's stream has no head: " + err.Error()})
			return
		}
	}
	head.write(w)
	flush := http.NewResponseController(w).Flush
	flush() //nolint:errcheck // writing tells, too
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, gone := w.Write(buf[:n]); gone != nil {
				return
			}
			flush() //nolint:errcheck // as above
		}
		if err != nil {
			break
		}
	}
	if inv.failed() != nil {
		panic(http.ErrAbortHandler)
	}
}

// readPrelude reads the head of a stream, JSON and eight zero bytes.
func readPrelude(r *bufio.Reader) (*urlHead, error) {
	const most = 1 << 20
	var text []byte
	zeros := make([]byte, 8)
	for !bytes.HasSuffix(text, zeros) {
		c, err := r.ReadByte()
		if err != nil || len(text) > most {
			return nil, fmt.Errorf("expected JSON and 8 zero bytes, found %d bytes", len(text))
		}
		text = append(text, c)
	}
	head := &urlHead{}
	if err := json.Unmarshal(bytes.TrimSuffix(text, zeros), head); err != nil {
		return nil, err
	}
	return head, nil
}
