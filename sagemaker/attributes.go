package sagemaker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
)

// targets are the API's paths that a request to /invocations, the one path
// there is on an endpoint, may name with the custom attribute "route", and
// their methods.
var targets = map[string]string{
	"/":                    http.MethodPost,
	"/chat_tokenize":       http.MethodPost,
	"/generate":            http.MethodPost,
	"/generate_stream":     http.MethodPost,
	"/info":                http.MethodGet,
	invocationsPath:        http.MethodPost,
	"/tokenize":            http.MethodPost,
	"/v1/chat/completions": http.MethodPost,
	"/v1/completions":      http.MethodPost,
	"/v1/models":           http.MethodGet,
}

// reroute sends in to the path that its custom attributes name, if they do. A
// route that is not a path is an attribute of the customer's own.
func reroute(in *invocation) error {
	path := attribute(in.r.Header.Get(headerAttributes), "route")
	if !strings.HasPrefix(path, "/") || path == invocationsPath {
		return nil
	}
	method, ok := targets[path]
	if !ok {
		return noRoute(path)
	}
	r, url := *in.r, *in.r.URL
	url.Path, url.RawPath = path, ""
	r.URL, r.Method = &url, method
	if method == http.MethodGet {
		setBody(&r, nil)
	}
	in.r = &r
	return nil
}

func noRoute(path string) error {
	var known []string
	for path := range targets {
		known = append(known, path)
	}
	slices.Sort(known)
	return badRequest("Custom attribute route: there is no route %q here; expected one of %s", body.Cut(path), strings.Join(known, ", "))
}

// attribute returns the value of an attribute, "" if there is none. Attributes
// are key=value, separated by commas, semicolons or spaces; the first of a name
// counts.
func attribute(attributes, key string) string {
	for item := range strings.FieldsFuncSeq(attributes, func(r rune) bool { return r == ',' || r == ';' || r == ' ' }) {
		if k, v, ok := strings.Cut(item, "="); ok && strings.EqualFold(k, key) && v != "" {
			return v
		}
	}
	return ""
}

// usageNames are the attributes that tell of a complete answer, and the API's
// headers with their values. Times are milliseconds.
var usageNames = [...]struct{ attribute, header string }{
	{"prompt_tokens", "X-Prompt-Tokens"},
	{"generated_tokens", "X-Generated-Tokens"},
	{"total_ms", "X-Total-Time"},
	{"queue_ms", "X-Queue-Time"},
	{"inference_ms", "X-Inference-Time"},
}

// setUsage puts the counts and times of an answer, if it has them, into the
// custom attributes: the platform drops every header but a few.
func setUsage(header http.Header) {
	if header.Get("X-Generated-Tokens") == "" {
		return // a stream, an error, or no generation
	}
	var b strings.Builder
	for i, n := range usageNames {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(n.attribute + "=" + header.Get(n.header))
	}
	header[headerAttributes] = []string{b.String()}
}
