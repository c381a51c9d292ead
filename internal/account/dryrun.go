package account

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// Request is a request that a dry run did not send.
type Request struct {
	Service   string          `json:"service"`
	Operation string          `json:"operation"`
	Path      string          `json:"path,omitempty"` // which names the function, of requests to Lambda
	Body      json.RawMessage `json:"body"`           // what would have been sent; of a file, where it would have gone
}

// notebook replaces the network in a dry run: it passes on requests that read,
// and notes and answers what changes something. As it sees what goes out,
// a dry run cannot differ from a real one.
type notebook struct {
	next     aws.HTTPClient // nil: no credentials, so AWS is not contacted
	requests []Request
}

// newNotebook puts a notebook into cfg. Without credentials it is as if nothing
// had been deployed yet.
func newNotebook(ctx context.Context, cfg *aws.Config) *notebook {
	n := &notebook{next: cfg.HTTPClient}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		n.next = nil
		cfg.Credentials = credentials.NewStaticCredentialsProvider("none", "none", "")
	}
	cfg.HTTPClient = n
	return n
}

// Do answers one request.
func (n *notebook) Do(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		return n.query(r)
	}
	_, operation, named := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	service := strings.ToLower(awsmiddleware.GetServiceID(r.Context()))
	rest := service == "lambda" // whose requests are named by method and path
	if rest {
		operation = awsmiddleware.GetOperationName(r.Context())
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead ||
		strings.HasPrefix(operation, "Describe") || strings.HasPrefix(operation, "List")
	switch {
	case reads && n.next != nil:
		return n.next.Do(r)
	case strings.HasPrefix(operation, "Describe"):
		return answer(r, http.StatusBadRequest, `{"__type":"ValidationException","message":"Could not find it: nobody was asked"}`), nil
	case reads && rest:
		return answer(r, http.StatusNotFound, `{"__type":"ResourceNotFoundException","message":"Could not find it: nobody was asked"}`), nil
	case reads && named:
		return answer(r, http.StatusOK, "{}"), nil
	case reads:
		return answer(r, http.StatusNotFound, ""), nil
	case !named && !rest:
		return nil, fmt.Errorf("%s %s: not expected in a dry run", r.Method, r.URL.Path)
	}
	// The SDK writes maps in any order; here they are sorted.
	var members any
	if r.Body != nil && r.Body != http.NoBody {
		decoder := json.NewDecoder(r.Body)
		decoder.UseNumber()
		if err := decoder.Decode(&members); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: %w", operation, err)
		}
	}
	body, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	note := Request{Service: service, Operation: operation, Body: body}
	if rest {
		note.Path = r.URL.RequestURI()
	}
	n.requests = append(n.requests, note)
	return answer(r, http.StatusOK, "{}"), nil
}

// query answers one request of IAM or STS, whose members are those of a form.
func (n *notebook) query(r *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, err
	}
	operation := form.Get("Action")
	switch reads := strings.HasPrefix(operation, "Get"); {
	case reads && n.next != nil:
		r.Body = io.NopCloser(bytes.NewReader(raw))
		return n.next.Do(r)
	case reads:
		return answer(r, http.StatusNotFound, "<ErrorResponse><Error><Code>NoSuchEntity</Code></Error></ErrorResponse>"), nil
	}
	members := map[string]string{}
	for name := range form {
		if name != "Action" && name != "Version" {
			members[name] = form.Get(name)
		}
	}
	body, err := json.Marshal(members)
	n.requests = append(n.requests, Request{Service: "iam", Operation: operation, Body: body})
	return answer(r, http.StatusOK, ""), err
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		Body:   io.NopCloser(bytes.NewReader([]byte(body))), ContentLength: int64(len(body)),
	}
}

// Dry reports whether nothing is changed, only recorded.
func (a *Account) Dry() bool { return a.notes != nil }

// NoteFile records in a dry run a file that would be copied to S3.
func (a *Account) NoteFile(bucket, key string, bytes int64) error {
	body, err := json.Marshal(struct {
		Bucket        string
		Key           string
		ContentLength int64
	}{bucket, key, bytes})
	a.notes.requests = append(a.notes.requests, Request{Service: "s3", Operation: "PutObject", Body: body})
	return err
}

// Requests are what a dry run would have sent, in order.
func (a *Account) Requests() []Request { return a.notes.requests }

// Offline reports whether a dry run had no credentials, so that it took nothing
// to be there.
func (a *Account) Offline() bool { return a.notes != nil && a.notes.next == nil }
