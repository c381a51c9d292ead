package s3test

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is one thing a Proxy does to a request or its answer.
type Fault int

// What a Proxy can do.
const (
	None      Fault = iota
	Reset           // the connection is reset before or within the answer
	SlowDown        // 503 SlowDown
	Internal        // 500 InternalError
	Stall           // the answer stops for a while, or for good
	Truncated       // the answer ends early: the connection is closed
	Short           // the answer ends early, and its Content-Length agrees
	Unranged        // the Range header is ignored: 200 and the whole object
	Shifted         // another range than was asked for, and it says so
	Corrupt         // one bit of the body is flipped
	Garbage         // 502 with a page of HTML
	Faults          // the number of kinds
)

// Plan decides what happens to the n-th request, counted from 0.
type Plan func(n int, r *http.Request) Fault

// Proxy forwards to an S3 server and injects faults. Safe for concurrent use.
type Proxy struct {
	URL string

	to     string
	plan   Plan
	client *http.Client

	mu        sync.Mutex
	intercept func(n int, w http.ResponseWriter, r *http.Request) bool
	corrupt   func(n int, r *http.Request) bool

	rng *rand.Rand
	n   int
	did [Faults]int
}

// Injected returns how many faults there were.
func (p *Proxy) Injected() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, did := range p.did[1:] {
		n += did
	}
	return n
}

// NewProxy starts a proxy in front of the server at url that is closed with the
// test. seed settles where in an answer a fault strikes.
func NewProxy(tb testing.TB, url string, seed uint64, plan Plan) *Proxy {
	p := &Proxy{to: url, plan: plan, rng: rand.New(rand.NewPCG(seed, 1))}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	p.client = &http.Client{Transport: transport}
	h := httptest.NewServer(p)
	p.URL = h.URL
	tb.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Intercept has f see the n-th request first; true means that f has answered it.
func (p *Proxy) Intercept(f func(n int, w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = f
}

// CorruptOnly flips a bit of the answers that which chooses, where the plan has
// nothing else for them.
func (p *Proxy) CorruptOnly(which func(n int, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.corrupt = which
}

// stallFor are the lengths of a stall: some are waited for, some not.
var stallFor = []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 2 * time.Second}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	n := p.n
	p.n++
	where, stall, bit := p.rng.Float64(), stallFor[p.rng.IntN(len(stallFor))], p.rng.IntN(8)
	intercept, corrupt := p.intercept, p.corrupt
	p.mu.Unlock()
	if intercept != nil && intercept(n, w, r) {
		return
	}
	fault := p.plan(n, r)
	if fault == None && corrupt != nil && corrupt(n, r) {
		fault = Corrupt
	}
	p.mu.Lock()
	p.did[fault]++
	p.mu.Unlock()
	switch {
	case fault == SlowDown:
		Fail(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
		return
	case fault == Internal:
		Fail(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
		return
	case fault == Garbage:
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html><body>Bad Gateway</body></html>")
		return
	case fault == Reset && where < 0.3:
		reset(w)
		return
	}
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(p.to, "http://")
	switch fault {
	case Unranged:
		out.Header.Del("Range")
	case Shifted:
		shiftRange(out)
	}
	resp, err := p.client.Do(out)
	if err != nil {
		reset(w)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		reset(w)
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	at := int(where * float64(len(body)))
	if r.Method == http.MethodHead || len(body) == 0 {
		w.WriteHeader(resp.StatusCode)
		return
	}
	if fault == Corrupt {
		body[at] ^= 1 << bit
	}
	if fault == Short {
		body = body[:at]
		w.Header().Set("Content-Length", strconv.Itoa(at))
	}
	w.WriteHeader(resp.StatusCode)
	switch fault {
	case Reset, Truncated, Stall:
		_, _ = w.Write(body[:at])
		_ = http.NewResponseController(w).Flush()
		switch fault {
		case Reset:
			reset(w)
			return
		case Truncated:
			panic(http.ErrAbortHandler)
		}
		select {
		case <-time.After(stall):
		case <-r.Context().Done():
			return
		}
		_, _ = w.Write(body[at:])
	default:
		_, _ = w.Write(body)
	}
}

// shiftRange asks for bytes one further on.
func shiftRange(r *http.Request) {
	from, to, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	if !ok {
		return
	}
	a, _ := strconv.Atoi(from)
	b, _ := strconv.Atoi(to)
	if a > 0 {
		r.Header.Set("Range", "bytes="+strconv.Itoa(a-1)+"-"+strconv.Itoa(b-1))
	}
}

// reset closes the connection so that the other side sees it reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
