package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hubClient makes requests to the hub, and to where it redirects them.
type hubClient struct {
	base  *url.URL
	token string
	http  *http.Client
}

func newHubClient(base *url.URL, token string) *hubClient {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: defaultTuning.idle,
		// One connection for each range is the point, which HTTP/2 would put on one.
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost: 2 * defaultTuning.mostConns,
		ReadBufferSize:      64 << 10,
		DisableCompression:  true,
	}
	return &hubClient{base, token, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// isHub reports whether a URL is of the hub itself: only such a one gets the token.
func (c *hubClient) isHub(u *url.URL) bool {
	return u.Scheme == c.base.Scheme && u.Host == c.base.Host
}

// hubError is an answer of the hub, or of a host it has redirected to, that is an error.
type hubError struct {
	status    int
	host      string
	code      string        // X-Error-Code
	message   string        // X-Error-Message
	after     time.Duration // until the next request is welcome
	elsewhere bool          // the answer of a host that the hub has redirected to
}

func (e *hubError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.host, e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// resetIn is the part of a RateLimit header that says in how many seconds the
// limit is lifted.
var resetIn = regexp.MustCompile(`\bt=(\d+)`)

func (c *hubClient) errorOf(r *http.Response) *hubError {
	e := &hubError{status: r.StatusCode, host: r.Request.URL.Host, code: r.Header.Get("X-Error-Code"), elsewhere: !c.isHub(r.Request.URL)}
	e.message = strings.Join(strings.Fields(r.Header.Get("X-Error-Message")), " ")
	e.message = e.message[:min(len(e.message), 300)]
	seconds := r.Header.Get("Retry-After")
	if m := resetIn.FindStringSubmatch(r.Header.Get("RateLimit")); seconds == "" && m != nil {
		seconds = m[1]
	}
	if n, err := strconv.Atoi(seconds); err == nil && n > 0 {
		e.after = min(time.Duration(n)*time.Second, longestLimit)
	}
	return e
}

// longestLimit bounds how long a server may make us wait for the next request;
// the hub counts requests over five minutes.
const longestLimit = 5 * time.Minute

// get requests a URL and follows redirects. seen is shown every answer of the hub
// itself. The caller closes the body of the answer, which is a success.
func (c *hubClient) get(ctx context.Context, u *url.URL, byteRange string, seen func(http.Header) error) (*http.Response, error) {
	for range 8 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "millrace")
		req.Header.Set("Accept-Encoding", "identity")
		if byteRange != "" {
			req.Header.Set("Range", byteRange)
		}
		if c.token != "" && c.isHub(u) {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		r, err := c.http.Do(req)
		if err != nil {
			return nil, withoutURL(err)
		}
		if c.isHub(u) && seen != nil {
			if err := seen(r.Header); err != nil {
				r.Body.Close()
				return nil, err
			}
		}
		if r.StatusCode < 300 {
			return r, nil
		}
		r.Body.Close()
		to := r.Header.Get("Location")
		if r.StatusCode >= 400 || to == "" {
			return nil, c.errorOf(r)
		}
		next, err := u.Parse(to)
		if err != nil || next.Host == "" || next.Scheme != "https" && next.Scheme != u.Scheme {
			return nil, fmt.Errorf("%w: %s redirects to another kind of address", errAnswer, u.Host)
		}
		u = next
	}
	return nil, fmt.Errorf("%w: %s redirects again and again", errAnswer, c.base.Host)
}

// withoutURL drops the URL from an error of net/http: its query may be as good as
// a password.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// mostAnswer bounds an answer of the API.
const mostAnswer = 64 << 20

// json reads an answer of the API into out, and returns the address of the next
// page, nil if there is none.
func (c *hubClient) json(ctx context.Context, u *url.URL, out any) (next *url.URL, err error) {
	r, err := c.get(ctx, u, "", nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, mostAnswer))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return nil, fmt.Errorf("%w: %s answered %s with something that is not JSON of the hub", errAnswer, u.Host, u.Path)
	}
	if m := nextPage.FindStringSubmatch(r.Header.Get("Link")); m != nil {
		if next, err = u.Parse(m[1]); err != nil || !c.isHub(next) {
			return nil, fmt.Errorf("%w: the next page is not on %s", errAnswer, c.base.Host)
		}
	}
	return next, nil
}

var nextPage = regexp.MustCompile(`<([^>]+)>;\s*rel="next"`)

// path returns the address of a path whose segments are given.
func (c *hubClient) path(segments ...string) *url.URL {
	u := *c.base
	u.Path, u.RawPath = "", ""
	escaped := strings.TrimRight(c.base.EscapedPath(), "/")
	for _, s := range segments {
		escaped += "/" + s
	}
	u.RawPath = escaped
	u.Path, _ = url.PathUnescape(escaped) //nolint:errcheck // it has been escaped here
	return &u
}

// retry decides after a failed request about model, the tries-th in a row that
// brought nothing; see remoteFile.
func (h *Hub) retry(ctx context.Context, err error, tries, attempts int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var answer *hubError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	after := time.Duration(0)
	switch {
	case errors.As(err, &answer):
		after = answer.after
		switch {
		case answer.status == http.StatusTooManyRequests, answer.status == http.StatusServiceUnavailable:
			h.throttles.Add(1)
		case answer.status >= 500, answer.status == http.StatusRequestTimeout:
		case answer.elsewhere && tries <= 3: // a signature that has expired: the hub gives a new one
		default:
			return err
		}
	case errors.Is(err, errChanged), errors.As(err, &dns) && dns.IsNotFound, errors.As(err, &certificate), errors.As(err, &authority):
		return err
	}
	if tries > attempts {
		return err
	}
	h.Log.Debug("asking the hub again after a fault", "attempt", tries, "err", err)
	return h.tune.wait(ctx, tries, after)
}

// explain makes the one line about a failed request for what, which is m or a
// file of it.
func (h *Hub) explain(m HubModel, what string, err error) error {
	var said *Error
	if err == nil || errors.As(err, &said) {
		return err
	}
	say := func(format string, args ...any) error { return &Error{what + ": " + fmt.Sprintf(format, args...), err} }
	page := h.Endpoint + "/" + m.Repo
	var answer *hubError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		return say("interrupted")
	case errors.Is(err, errChanged):
		return say("%v", errChanged)
	case errors.As(err, &answer):
		return say("%s", h.reason(m, page, answer))
	case errors.As(err, &dns):
		return say("the hub cannot be reached: no address for %s; without a network, give a folder or a model that is in the cache, and for a mirror set HF_ENDPOINT", dns.Name)
	case errors.Is(err, syscall.ENOSPC):
		return say("the disk is full: %v", err)
	}
	return say("the hub cannot be reached: %v; without a network, give a folder or a model that is in the cache", err)
}

// reason explains an answer to a request about m.
func (h *Hub) reason(m HubModel, page string, e *hubError) string {
	switch {
	case e.code == "GatedRepo" && h.Token == "":
		return fmt.Sprintf("the model is gated: accept the conditions at %s and set HF_TOKEN to a token of that account", page)
	case e.code == "GatedRepo":
		return fmt.Sprintf("the model is gated, and the account of the token has no access: accept the conditions at %s", page)
	case e.code == "RevisionNotFound":
		return fmt.Sprintf("the model has no revision %q", m.revision())
	case e.code == "EntryNotFound":
		return "there is no such file"
	case e.status == http.StatusUnauthorized && strings.HasPrefix(e.message, "Invalid credentials"):
		return "the token is not valid: check HF_TOKEN (or the file that `hf auth login` writes)"
	case !e.elsewhere && (e.code == "RepoNotFound" || e.status == http.StatusUnauthorized || e.status == http.StatusNotFound):
		text := "there is no such model on the hub, or it is private: check the name"
		if h.Token == "" {
			text += ", or set HF_TOKEN"
		} else {
			text += ", or whether the account of the token may read it"
		}
		if m.Bare {
			text += "; nor is there a folder of that name here"
		}
		return text
	case e.status == http.StatusForbidden:
		return "access denied: " + e.Error()
	case e.status == http.StatusTooManyRequests:
		return "too many requests for now; with HF_TOKEN the limit is higher (" + e.Error() + ")"
	}
	return e.Error()
}
