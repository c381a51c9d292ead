package lambda

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// decodeV2 reads an event of format 2.0: function URLs and HTTP APIs. Header
// names are in lower case, equal headers are joined by commas, cookies apart.
func decodeV2(data []byte) (*event, error) {
	var in struct {
		RawPath         string            `json:"rawPath"`
		RawQueryString  string            `json:"rawQueryString"`
		Headers         map[string]string `json:"headers"`
		Cookies         []string          `json:"cookies"`
		Body            string            `json:"body"`
		IsBase64Encoded bool              `json:"isBase64Encoded"`
		RequestContext  struct {
			DomainName string `json:"domainName"`
			Stage      string `json:"stage"`
			HTTP       struct {
				Method   string `json:"method"`
				SourceIP string `json:"sourceIp"`
			} `json:"http"`
		} `json:"requestContext"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("the event has the form 2.0 of API Gateway and is not understood: %w", err)
	}
	e := &event{
		source: httpAPI, method: in.RequestContext.HTTP.Method, path: in.RawPath, query: in.RawQueryString,
		header: http.Header{}, sourceIP: in.RequestContext.HTTP.SourceIP,
	}
	if strings.Contains(in.RequestContext.DomainName, ".lambda-url.") {
		e.source = functionURL
	} else {
		e.path = withoutStage(e.path, in.RequestContext.Stage)
	}
	for name, value := range in.Headers {
		e.header.Set(name, value)
	}
	if len(in.Cookies) > 0 {
		e.header.Set("Cookie", strings.Join(in.Cookies, "; "))
	}
	return e, e.setBody(in.Body, in.IsBase64Encoded)
}

// withoutStage takes the stage out of an HTTP API's path, whose first element
// it is if it has a name.
func withoutStage(path, stage string) string {
	rest, ok := strings.CutPrefix(path, "/"+stage)
	if stage != "" && ok && (rest == "" || rest[0] == '/') {
		return rest
	}
	return path
}

// decodeV1 reads an event of format 1.0, which REST APIs have and HTTP APIs may
// be set to, or of a load balancer. from is restAPI or loadBalancer.
func decodeV1(data []byte, from source) (*event, error) {
	var in struct {
		Version           string              `json:"version"` // of an HTTP API
		HTTPMethod        string              `json:"httpMethod"`
		Path              string              `json:"path"`
		Headers           map[string]string   `json:"headers"`
		MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
		Query             map[string]string   `json:"queryStringParameters"`
		MultiValueQuery   map[string][]string `json:"multiValueQueryStringParameters"`
		Body              string              `json:"body"`
		IsBase64Encoded   bool                `json:"isBase64Encoded"`
		RequestContext    struct {
			Stage    string `json:"stage"`
			Identity struct {
				SourceIP string `json:"sourceIp"`
			} `json:"identity"`
		} `json:"requestContext"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("the event has the form 1.0 of API Gateway and is not understood: %w", err)
	}
	e := &event{source: from, method: in.HTTPMethod, path: in.Path, header: http.Header{}, sourceIP: in.RequestContext.Identity.SourceIP}
	if from == loadBalancer && in.MultiValueHeaders != nil {
		e.source = loadBalancerMulti
	}
	if in.Version != "" {
		e.source, e.path = httpAPIv1, withoutStage(e.path, in.RequestContext.Stage)
	}
	for name, value := range in.Headers {
		e.header.Set(name, value)
	}
	for name, values := range in.MultiValueHeaders {
		e.header[http.CanonicalHeaderKey(name)] = values
	}
	query := in.MultiValueQuery
	if query == nil {
		query = map[string][]string{}
		for name, value := range in.Query {
			query[name] = []string{value}
		}
	}
	if from == restAPI {
		e.query = url.Values(query).Encode()
	} else {
		e.query = joinQuery(query) // a load balancer passes on what the client wrote
	}
	return e, e.setBody(in.Body, in.IsBase64Encoded)
}

// joinQuery writes a query whose parts are escaped already.
func joinQuery(query map[string][]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			parts = append(parts, name+"="+value)
		}
	}
	return strings.Join(parts, "&")
}

func (e *event) setBody(text string, isBase64 bool) error {
	if !isBase64 {
		e.body = []byte(text)
		return nil
	}
	var err error
	if e.body, err = base64.StdEncoding.DecodeString(text); err != nil {
		return fmt.Errorf("the event says that its body is base64: %w", err)
	}
	return nil
}

// request makes the event an HTTP request.
func (e *event) request(ctx context.Context) (*http.Request, error) {
	if e.method == "" {
		return nil, fmt.Errorf("the event of the %s has no HTTP method", e.source)
	}
	path := e.path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	target := &url.URL{RawQuery: e.query}
	var err error
	if target.Path, err = url.PathUnescape(path); err != nil {
		target.Path = path // some sources unescape it themselves
	} else {
		target.RawPath = path
	}
	r := (&http.Request{
		Method: e.method, URL: target, RequestURI: target.RequestURI(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: e.header, Host: e.header.Get("Host"), Body: io.NopCloser(bytes.NewReader(e.body)), ContentLength: int64(len(e.body)),
	}).WithContext(ctx)
	if e.sourceIP != "" {
		r.RemoteAddr = net.JoinHostPort(e.sourceIP, "0")
	}
	return r, nil
}

// wantsStream reports whether the client asks for an answer in pieces: by the
// route, by what it accepts, or in the body.
func (e *event) wantsStream() bool {
	if e.path == "/generate_stream" || strings.Contains(e.header.Get("Accept"), "text/event-stream") {
		return true
	}
	var body struct {
		Stream json.RawMessage `json:"stream"`
	}
	return json.Unmarshal(e.body, &body) == nil && string(body.Stream) == "true"
}
