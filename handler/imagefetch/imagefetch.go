// Package imagefetch gets the bytes of images that requests name: by a data URI, or by
// an address on the web that anybody may name, and so only in ways that are safe.
//
// What it connects to is a public address, which is checked when the name has been
// resolved and the connection is about to be made, for each redirect too; on port 80
// or 443; for a limited time, size and number of redirects; without cookies,
// credentials or a referrer. Nothing here looks into an image.
package imagefetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// Errors that callers tell apart. Those that are returned wrap one of them and name what
// was wrong; all of them are the request's fault, or that of the server that it names.
var (
	// ErrRefused is an image that is not fetched: fetching is off, or the address is one
	// that requests may not name.
	ErrRefused = errors.New("Could not fetch image") //nolint:staticcheck,revive // TGI's words, which its clients match
	// ErrFetch is a server that did not answer with an image in time.
	ErrFetch = errors.New("Could not fetch image") //nolint:staticcheck,revive // TGI's words again
	// ErrTooLarge is an image of too many bytes.
	ErrTooLarge = errors.New("Image size") //nolint:staticcheck,revive // the beginning of TGI's message
	// ErrData is a data URI that is not valid.
	ErrData = errors.New("invalid image content")
)

// Options say what is fetched. The zero value is safe.
type Options struct {
	// Disabled refuses all but data URIs.
	Disabled bool
	// MaxBytes is the size of the largest image. Default: 20 MiB.
	MaxBytes int
	// Timeout is how long an image may take, redirects included. Default: 10 s.
	Timeout time.Duration
	// MaxRedirects is how often a server may refer to another address. Default: 3;
	// negative: never.
	MaxRedirects int
	// AnyPort allows other ports than 80 and 443.
	AnyPort bool
	// Proxy is where connections go instead, by CONNECT or as whole URLs, at http:// or
	// https://. It resolves names, so which addresses those may have is for it to check;
	// addresses that are written as numbers are checked before. Nil: there is none. The
	// environment is not asked.
	Proxy *url.URL
	// Allow adds addresses to those that are public, for tests and networks of one's own.
	// Nil: none.
	Allow func(netip.AddrPort) bool
}

const (
	defaultMaxBytes  = 20 << 20
	defaultTimeout   = 10 * time.Second
	defaultRedirects = 3

	maxURL     = 8 << 10 // bytes; no image has a longer one
	maxHeaders = 64 << 10
)

// A Fetcher fetches images. Its methods may be called from several goroutines.
type Fetcher struct {
	options Options
	client  *http.Client

	// dial connects to an address on the web; tests replace what resolves names.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns a Fetcher.
func New(o Options) (*Fetcher, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxRedirects == 0 {
		o.MaxRedirects = defaultRedirects
	}
	if p := o.Proxy; p != nil && (p.Scheme != "http" && p.Scheme != "https" || p.Hostname() == "") {
		return nil, fmt.Errorf("proxy for images: %s: expected http://host:port or https://host:port", p.Redacted())
	}
	f := &Fetcher{options: o}
	dialer := &net.Dialer{Timeout: o.Timeout, ControlContext: f.control}
	if o.Proxy != nil {
		dialer.ControlContext = nil // all connections go to it
	}
	f.dial = dialer.DialContext
	f.client = &http.Client{
		CheckRedirect: f.redirect,
		Transport: &http.Transport{
			Proxy: http.ProxyURL(o.Proxy),
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return f.dial(ctx, network, address)
			},
			DisableCompression:     true, // images are compressed, and bombs are not
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           16,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    o.Timeout,
			MaxResponseHeaderBytes: maxHeaders,
		},
	}
	return f, nil
}

// Close closes connections that are idle.
func (f *Fetcher) Close() { f.client.CloseIdleConnections() }

// Fetch returns the bytes of the image at address: a data URI with base64, or an http or
// https URL.
func (f *Fetcher) Fetch(ctx context.Context, address string) ([]byte, error) {
	if scheme, rest, ok := strings.Cut(address, ":"); ok && strings.EqualFold(scheme, "data") {
		return f.data(rest)
	}
	if f.options.Disabled {
		return nil, fmt.Errorf("%w: fetching is turned off; send the image as data:image/png;base64,…", ErrRefused)
	}
	if len(address) > maxURL {
		return nil, fmt.Errorf("%w: a URL of %d bytes, the limit is %d", ErrRefused, len(address), maxURL)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := f.check(u); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	req.Header.Set("User-Agent", "millrace")
	req.Header.Set("Accept", "image/*")
	res, err := f.client.Do(req)
	if err != nil {
		return nil, f.failed(ctx, u, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s answered %s", ErrFetch, res.Request.URL.Host, res.Status)
	}
	if res.ContentLength > int64(f.options.MaxBytes) {
		return nil, f.tooLarge(res.ContentLength)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, int64(f.options.MaxBytes)+1))
	if err != nil {
		return nil, f.failed(ctx, u, err)
	}
	if len(data) > f.options.MaxBytes {
		return nil, f.tooLarge(int64(len(data)))
	}
	return data, nil
}

func (f *Fetcher) tooLarge(n int64) error {
	return fmt.Errorf("%w %d bytes exceeds maximum allowed size of %d bytes", ErrTooLarge, n, f.options.MaxBytes)
}

// failed says why a request failed. It repeats neither the URL, which may have secrets in
// it, nor what names resolve to, which would tell clients about private networks.
func (f *Fetcher) failed(ctx context.Context, u *url.URL, err error) error {
	host := u.Host
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
		if last, err := url.Parse(outer.URL); err == nil {
			host = last.Host // after redirects
		}
	}
	var dial *net.OpError
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrRefused) && errors.As(err, &dial):
		return fmt.Errorf("%w: %s is not on the public internet", ErrRefused, host)
	case errors.Is(err, ErrRefused):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %s took longer than %v", ErrFetch, host, f.options.Timeout)
	case errors.As(err, &dns):
		err = &net.DNSError{Err: dns.Err, Name: dns.Name, IsNotFound: dns.IsNotFound}
	}
	return fmt.Errorf("%w: %s: %w", ErrFetch, host, err)
}

// data decodes what follows "data:".
func (f *Fetcher) data(rest string) ([]byte, error) {
	header, text, ok := strings.Cut(rest, ",")
	if !ok || !strings.HasSuffix(strings.ToLower(strings.TrimSpace(header)), ";base64") {
		return nil, fmt.Errorf("%w: %s, expected data:image/png;base64,…", ErrData, short("data:"+rest))
	}
	// Line breaks count here, so that only what is far too large is refused undecoded.
	if n := base64.RawStdEncoding.DecodedLen(len(text)); n/2 > f.options.MaxBytes {
		return nil, f.tooLarge(int64(n))
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	data, err := encoding.DecodeString(strings.TrimRight(text, "=\r\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: base64 encoding is invalid: %w", ErrData, err)
	}
	if len(data) > f.options.MaxBytes {
		return nil, f.tooLarge(int64(len(data)))
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: no data", ErrData)
	}
	return data, nil
}

// short is the beginning of a text, for a message.
func short(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// redirect checks where a server refers to.
func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > f.options.MaxRedirects {
		return fmt.Errorf("%w: more than %d redirects", ErrRefused, max(f.options.MaxRedirects, 0))
	}
	req.Header.Del("Referer")
	return f.check(req.URL)
}

// check refuses a URL whose text alone says that it is not followed.
func (f *Fetcher) check(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: %s: expected an http or https URL, or a data URI", ErrRefused, short(u.Redacted()))
	case u.User != nil:
		return fmt.Errorf("%w: %s: a URL with a user name or password", ErrRefused, u.Host)
	case u.Hostname() == "":
		return fmt.Errorf("%w: %s: a URL without a host", ErrRefused, short(u.Redacted()))
	}
	port := map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return fmt.Errorf("%w: %s: port %s", ErrRefused, u.Host, p)
		}
		port = uint16(n)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		return f.allowed(netip.AddrPortFrom(addr, port))
	}
	if f.options.Proxy != nil && local(u.Hostname()) {
		return fmt.Errorf("%w: %s is not a name on the public internet", ErrRefused, u.Hostname())
	}
	return f.checkPort(port)
}

// local reports whether a name cannot be a public one, as far as its text says: it is of
// one word, or of a domain of private networks, or numbers that are not written as an
// address is. What is not ASCII might become any of these.
func local(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if !strings.Contains(host, ".") || last == "" || last[0] >= '0' && last[0] <= '9' {
		return true
	}
	switch last {
	case "localhost", "local", "internal", "localdomain", "lan", "home", "corp", "intranet", "arpa":
		return true
	}
	return false
}

func (f *Fetcher) checkPort(port uint16) error {
	if port != 80 && port != 443 && !f.options.AnyPort {
		return fmt.Errorf("%w: port %d, expected 80 or 443", ErrRefused, port)
	}
	return nil
}

// control refuses a connection before it is made, when its address is known.
func (f *Fetcher) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return f.allowed(a)
}

// allowed refuses an address that is not public, and a port that is not the web's.
func (f *Fetcher) allowed(a netip.AddrPort) error {
	if f.options.Allow != nil && f.options.Allow(a) {
		return nil
	}
	if !public(a.Addr()) {
		return fmt.Errorf("%w: address %s is not on the public internet", ErrRefused, a.Addr())
	}
	return f.checkPort(a.Port())
}

// notPublic are addresses for special purposes, by IANA's registries, and those of cloud
// providers' services to their own machines.
var notPublic = prefixes(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // shared by carriers; Alibaba's metadata
	"127.0.0.0/8",       // loopback
	"169.254.0.0/16",    // link-local; metadata of most clouds, of containers too
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments; Oracle's metadata
	"192.0.2.0/24",      // documentation
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"198.18.0.0/15",     // benchmarks
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, and broadcast
	"168.63.129.16/32",  // Azure's services to its machines
	"2001::/23",         // protocol assignments; Teredo, which has an IPv4 address in it
	"2001:db8::/32",     // documentation
	"2002::/16",         // 6to4, which has an IPv4 address in it
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
)

// globalUnicast is all of IPv6 that is assigned to public use.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// nat64 has an IPv4 address in its last 32 bits, which networks without IPv4 reach so.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// public reports whether an address is anybody's on the internet.
func public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
