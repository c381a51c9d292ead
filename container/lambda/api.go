package lambda

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names of the Runtime API that both of its sides need.
const (
	apiVersion = "/2018-06-01/runtime"

	headerRequestID = "Lambda-Runtime-Aws-Request-Id"
	headerDeadline  = "Lambda-Runtime-Deadline-Ms"
	headerTraceID   = "Lambda-Runtime-Trace-Id"
	headerMode      = "Lambda-Runtime-Function-Response-Mode"
	headerErrorType = "Lambda-Runtime-Function-Error-Type"
	headerErrorBody = "Lambda-Runtime-Function-Error-Body"

	// preludeType is the content type of a streamed answer that begins with
	// its status and headers.
	preludeType = "application/vnd.awslambda.http-integration-response"
)

// api is the client of the Runtime API.
type api struct {
	base string // http://HOST:PORT/2018-06-01/runtime
	http *http.Client
}

// newAPI returns a client for the API at address, HOST:PORT, which loops
// goroutines will use.
func newAPI(address string, loops int) *api {
	return &api{
		base: "http://" + address + apiVersion,
		http: &http.Client{
			// The API is on this machine, so there is no proxy and nothing to
			// compress. The wait for the next event has no limit.
			Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: loops + 1},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// invocation is one event with what the platform says about it.
type invocation struct {
	id       string
	traceID  string
	deadline time.Time // when the platform ends the process
	event    []byte
}

// next waits for an event, as long as ctx lasts.
func (a *api) next(ctx context.Context) (*invocation, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/invocation/next", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, newStatusError("next event", resp)
	}
	inv := &invocation{id: resp.Header.Get(headerRequestID), traceID: resp.Header.Get(headerTraceID)}
	if inv.id == "" {
		return nil, fmt.Errorf("next event: the answer has no %s", headerRequestID)
	}
	// Without a deadline an event may take as long as any function may.
	const longest = 15 * time.Minute
	inv.deadline = time.Now().Add(longest)
	if text := resp.Header.Get(headerDeadline); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("next event: %s: expected milliseconds, found %q", headerDeadline, text)
		}
		inv.deadline = time.UnixMilli(ms)
	}
	if inv.event, err = io.ReadAll(resp.Body); err != nil {
		return nil, fmt.Errorf("next event: %w", err)
	}
	return inv, nil
}

// restore has Lambda take a snapshot of the process, and returns in each copy that
// runs, as long as ctx lasts.
func (a *api) restore(ctx context.Context) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/restore/next", http.NoBody)
		if err != nil {
			return err
		}
		err = a.do("restore", req)
		// The connection may not have survived: then there is a copy, which asks
		// on a connection of its own. An API that is gone refuses that one.
		if err == nil || ctx.Err() != nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			return err
		}
	}
}

// failRestore reports that the copy of a snapshot cannot be used.
func (a *api) failRestore(f *failure) error {
	return a.post("restore error", "/restore/error", f.marshal(), f)
}

// respond posts an answer in one piece.
func (a *api) respond(id string, answer []byte) error {
	return a.post("answer", "/invocation/"+id+"/response", answer, nil)
}

// failure describes to the platform an event or an initialization that failed.
// The caller gets it as the payload.
type failure struct {
	Message string   `json:"errorMessage"`
	Type    string   `json:"errorType"`
	Trace   []string `json:"stackTrace"`

	client bool // the event is at fault, not the function
}

// platformType matches the error types that Lambda keeps in its logs, traces and
// metrics. All others become Runtime.Unknown there, a fault of the runtime.
var platformType = regexp.MustCompile(`^(Runtime|Function)\.[A-Z][a-zA-Z]+$`)

// platformType is the failure's type in a form that Lambda keeps:
// payload_too_large is Function.PayloadTooLarge.
func (f *failure) platformType() string {
	if platformType.MatchString(f.Type) {
		return f.Type
	}
	letters := func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
	name := ""
	for word := range strings.FieldsFuncSeq(f.Type, letters) {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	if len(name) < 2 {
		name = "Error"
	}
	return "Function." + name
}

func (f *failure) marshal() []byte {
	if f.Trace == nil {
		f.Trace = []string{}
	}
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // two texts and a list of texts
	}
	return data
}

// fail reports that an event has no answer.
func (a *api) fail(id string, f *failure) error {
	return a.post("error", "/invocation/"+id+"/error", f.marshal(), f)
}

// failInit reports that the initialization has failed.
func (a *api) failInit(f *failure) error {
	return a.post("initialization error", "/init/error", f.marshal(), f)
}

// postPatience is how long the API may take to accept what it is sent.
const postPatience = 30 * time.Second

func (a *api) post(what, path string, body []byte, f *failure) error {
	ctx, cancel := context.WithTimeout(context.Background(), postPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if f != nil {
		req.Header.Set(headerErrorType, f.platformType())
	}
	return a.do(what, req)
}

// stream posts an answer in pieces, as it reads them from body. The values that
// trailer has when body ends are sent after it; its names must be set before.
func (a *api) stream(ctx context.Context, id, contentType string, body io.Reader, trailer http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/invocation/"+id+"/response", body)
	if err != nil {
		return err
	}
	req.ContentLength = -1 // net/http must not wait for a first byte to find out
	req.Header.Set("Content-Type", contentType)
	req.Header.Set(headerMode, "streaming")
	req.Trailer = trailer
	return a.do("streamed answer", req)
}

func (a *api) do(what string, req *http.Request) error {
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return newStatusError(what, resp)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// statusError is a refusal of the Runtime API.
type statusError struct {
	what   string
	status int
	body   string
}

func newStatusError(what string, resp *http.Response) error {
	const most = 500
	text, _ := io.ReadAll(io.LimitReader(resp.Body, most)) //nolint:errcheck // the status says enough
	return &statusError{what, resp.StatusCode, string(bytes.TrimSpace(text))}
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: the Lambda Runtime API answers %d: %s", e.what, e.status, e.body)
}
