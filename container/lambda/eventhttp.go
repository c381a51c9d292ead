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

	"github.com/aws/aws-lambda-go/events"
)

// decodeHTTP reads an event of an HTTP source, in the form that AWS publishes
// for it.
func decodeHTTP(data []byte, from source) (e *event, err error) {
	e = &event{source: from, header: http.Header{}}
	var body string
	var isBase64 bool
	switch from {
	case functionURL:
		var in events.LambdaFunctionURLRequest
		err = json.Unmarshal(data, &in)
		client := &in.RequestContext.HTTP
		e.method, e.path, e.query, e.sourceIP = client.Method, in.RawPath, in.RawQueryString, client.SourceIP
		e.setHeader(in.Headers, nil, in.Cookies)
		body, isBase64 = in.Body, in.IsBase64Encoded
	case httpAPI:
		var in events.APIGatewayV2HTTPRequest
		err = json.Unmarshal(data, &in)
		client := &in.RequestContext.HTTP
		e.method, e.query, e.sourceIP = client.Method, in.RawQueryString, client.SourceIP
		e.path = withoutStage(in.RawPath, in.RequestContext.Stage)
		e.setHeader(in.Headers, nil, in.Cookies)
		body, isBase64 = in.Body, in.IsBase64Encoded
	case restAPI, httpAPIv1:
		var in events.APIGatewayProxyRequest
		err = json.Unmarshal(data, &in)
		e.method, e.path, e.sourceIP = in.HTTPMethod, in.Path, in.RequestContext.Identity.SourceIP
		if from == httpAPIv1 {
			e.path = withoutStage(in.Path, in.RequestContext.Stage)
		}
		e.query = queryOf(in.QueryStringParameters, in.MultiValueQueryStringParameters).Encode()
		e.setHeader(in.Headers, in.MultiValueHeaders, nil)
		body, isBase64 = in.Body, in.IsBase64Encoded
	default:
		var in events.ALBTargetGroupRequest
		err = json.Unmarshal(data, &in)
		if in.MultiValueHeaders != nil {
			e.source = loadBalancerMulti
		}
		e.method, e.path = in.HTTPMethod, in.Path
		e.query = joinQuery(queryOf(in.QueryStringParameters, in.MultiValueQueryStringParameters))
		e.setHeader(in.Headers, in.MultiValueHeaders, nil)
		body, isBase64 = in.Body, in.IsBase64Encoded
	}
	if err != nil {
		return nil, fmt.Errorf("the event of the %s is not understood: %w", from, err)
	}
	return e, e.setBody(body, isBase64)
}

// setHeader sets the headers from single values, lists of values, and cookies,
// whichever the source gives.
func (e *event) setHeader(single map[string]string, lists map[string][]string, cookies []string) {
	for name, value := range single {
		e.header.Set(name, value)
	}
	for name, values := range lists {
		e.header[http.CanonicalHeaderKey(name)] = values
	}
	if len(cookies) > 0 {
		e.header.Set("Cookie", strings.Join(cookies, "; "))
	}
}

// queryOf returns lists, or single as lists if there are none.
func queryOf(single map[string]string, lists map[string][]string) url.Values {
	if lists != nil {
		return lists
	}
	query := url.Values{}
	for name, value := range single {
		query.Set(name, value)
	}
	return query
}

// withoutStage removes the stage from an HTTP API's path. A named stage is its
// first element.
func withoutStage(path, stage string) string {
	rest, ok := strings.CutPrefix(path, "/"+stage)
	if stage != "" && ok && (rest == "" || rest[0] == '/') {
		return rest
	}
	return path
}

// joinQuery writes the query of a load balancer, which passes on what the
// client wrote: its parts are escaped already.
func joinQuery(query url.Values) string {
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
		target.Path = path // some sources have unescaped it already
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

// wantsStream reports whether the client asks for a stream: by the route, the
// Accept header, or the body.
func (e *event) wantsStream() bool {
	if e.path == "/generate_stream" || strings.Contains(e.header.Get("Accept"), "text/event-stream") {
		return true
	}
	var body struct {
		Stream json.RawMessage `json:"stream"`
	}
	return json.Unmarshal(e.body, &body) == nil && string(body.Stream) == "true"
}
