package imagefetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that counts who connects, and a Fetcher that may reach it and no other.
func serve(t *testing.T, o Options, h http.Handler) (f *Fetcher, address string, connections *atomic.Int64) {
	t.Helper()
	connections = new(atomic.Int64)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	if o.Allow == nil {
		o.Allow = func(a netip.AddrPort) bool { return a == at }
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, s.URL, connections
}

// names replaces what resolves names: unknown ones are not found, and a name that has
// several addresses gets the next one each time.
func (f *Fetcher) names(addresses map[string][]string) {
	dial := f.dial
	asked := map[string]int{}
	f.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			list := addresses[strings.ToLower(strings.TrimSuffix(host, "."))]
			if list == nil {
				return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.2:53", IsNotFound: true}
			}
			host = list[asked[host]%len(list)]
			asked[host]++
		}
		return dial(ctx, network, net.JoinHostPort(host, port))
	}
}

// tricks are URLs by which requests try to reach what they may not. PORT is that of a
// server on 127.0.0.1, which nobody may connect to.
var tricks = []string{
	// Loopback, and what is written like it.
	"http://127.0.0.1:PORT/", "http://127.0.0.2:PORT/", "http://127.255.255.254:PORT/", "http://localhost:PORT/", "http://LOCALHOST:PORT/",
	"http://localhost.:PORT/", "http://a.localhost:PORT/", "http://[::1]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[::]:PORT/",
	"http://0.0.0.0:PORT/", "http://0:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/", "http://2130706433:PORT/",
	"http://0x7f000001:PORT/", "http://0x7f.0.0.1:PORT/", "http://0177.0.0.1:PORT/", "http://017700000001:PORT/", "http://127.0.0.1.:PORT/",
	"http://①②⑦.⓪.⓪.①:PORT/", "http://127。0。0。1:PORT/", "http://%31%32%37.0.0.1:PORT/",
	// The same in IPv6.
	"http://[::ffff:127.0.0.1]:PORT/", "http://[::ffff:7f00:1]:PORT/", "http://[::127.0.0.1]:PORT/", "http://[64:ff9b::127.0.0.1]:PORT/",
	"http://[64:ff9b::7f00:1]:PORT/", "http://[64:ff9b:1::7f00:1]:PORT/", "http://[2002:7f00:1::]:PORT/", "http://[2001:0:7f00:1::]:PORT/",
	"http://[::ffff:0:127.0.0.1]:PORT/", "http://[fe80::1]:PORT/", "http://[fe80::1%25lo]:PORT/", "http://[::1%25lo]:PORT/", "http://[fec0::1]:PORT/",
	"http://[fc00::1]:PORT/", "http://[fd00:ec2::254]/latest/meta-data/", "http://[fd20:ce::254]/", "http://[ff02::1]:PORT/", "http://[2001:db8::1]/",
	"http://[2002:a9fe:a9fe::]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[::ffff:169.254.169.254]/", "http://[3fff::1]/", "http://[100::1]/",
	// Private networks and metadata.
	"http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials", "http://169.254.170.23/v1/credentials", "http://2852039166/",
	"http://0xa9fea9fe/", "http://metadata.google.internal/", "http://168.63.129.16/", "http://100.100.100.200/latest/", "http://192.0.0.192/",
	"http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://100.64.0.1/", "http://198.18.0.1/",
	"http://192.0.2.1/", "http://198.51.100.1/", "http://203.0.113.1/", "http://224.0.0.1/", "http://239.255.255.250/", "http://240.0.0.1/", "http://255.255.255.255/",
	"http://192.88.99.1/",
	// Names that lead there, at once or the second time.
	"http://private.example:PORT/", "http://mapped.example:PORT/", "http://127.0.0.1.nip.example:PORT/",
	// What is not the web, or not a plain URL.
	"file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1:PORT/", "gopher://127.0.0.1:PORT/_GET", "dict://127.0.0.1:PORT/", "unix:///var/run/docker.sock",
	"http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "javascript:alert(1)", "//127.0.0.1:PORT/", "127.0.0.1:PORT/", "/etc/passwd", "http:127.0.0.1:PORT/", "http:///127.0.0.1:PORT/", "http://",
	"http://user@127.0.0.1:PORT/", "http://user:secret@images.example/", "http://images.example@127.0.0.1:PORT/", "http://images.example#@127.0.0.1:PORT/",
	"http://127.0.0.1:PORT#@images.example/", "http://images.example\\@127.0.0.1:PORT/", "http://127.0.0.1%00.images.example:PORT/", "http://127.0.0.1\t:PORT/", "http://127.0.0.1:PORT\r\nHost: images.example/",
	"http://images.example:22/", "http://images.example:6379/", "http://images.example:99999/", "", " ", "http://[::1/", "http://[127.0.0.1]:PORT/",
	"http://images.example/" + strings.Repeat("a", maxURL),
}

// resolved is where names of tricks lead, as a resolver that knows old ways to write
// addresses has it.
var resolved = map[string][]string{
	"localhost": {"127.0.0.1"}, "a.localhost": {"127.0.0.1"}, "127.0.0.1": {"127.0.0.1"}, "127.0.0.1.nip.example": {"127.0.0.1"},
	"0": {"0.0.0.0"}, "127.1": {"127.0.0.1"}, "127.0.1": {"127.0.0.1"}, "2130706433": {"127.0.0.1"}, "0x7f000001": {"127.0.0.1"}, "0x7f.0.0.1": {"127.0.0.1"},
	"0177.0.0.1": {"127.0.0.1"}, "017700000001": {"127.0.0.1"}, "①②⑦.⓪.⓪.①": {"127.0.0.1"}, "127。0。0。1": {"127.0.0.1"},
	"2852039166": {"169.254.169.254"}, "0xa9fea9fe": {"169.254.169.254"}, "metadata.google.internal": {"169.254.169.254"},
	"private.example": {"10.0.0.1"}, "mapped.example": {"::ffff:127.0.0.1"}, "images.example": {"127.0.0.1"},
}

func TestTricks(t *testing.T) {
	if len(tricks) < 60 {
		t.Fatalf("%d tricks", len(tricks))
	}
	_, server, connections := serve(t, Options{}, http.NotFoundHandler())
	port := server[strings.LastIndexByte(server, ':')+1:]
	for _, anyPort := range []bool{true, false} {
		f, err := New(Options{AnyPort: anyPort, Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Close)
		f.names(resolved)
		for _, trick := range tricks {
			trick = strings.ReplaceAll(trick, "PORT", port)
			if _, err := f.Fetch(t.Context(), trick); !errors.Is(err, ErrRefused) && !notFound(err) {
				t.Errorf("%q: %v", short(trick), err)
			}
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Errors do not say what names resolve to inside, nor repeat what may be secret.
func TestErrorsTellNoSecrets(t *testing.T) {
	f, err := New(Options{Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	f.names(resolved)
	for address, want := range map[string]string{
		"http://private.example/a?token=secret": "Could not fetch image: private.example is not on the public internet",
		"http://nobody.example/a?token=secret":  "Could not fetch image: nobody.example: lookup nobody.example: no such host",
		"http://user:secret@images.example/":    "Could not fetch image: images.example: a URL with a user name or password",
		"http://10.0.0.1/?token=secret":         "Could not fetch image: address 10.0.0.1 is not on the public internet",
	} {
		if _, err := f.Fetch(t.Context(), address); err == nil || err.Error() != want {
			t.Errorf("%s: %v, expected %q", address, err, want)
		}
	}
}

// notFound is the error for a name that has no address.
func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// A server that may be reached cannot lead elsewhere, and a name that was public before
// is checked again.
func TestRedirects(t *testing.T) {
	_, trap, connections := serve(t, Options{}, http.NotFoundHandler())
	port := trap[strings.LastIndexByte(trap, ':')+1:]
	var to string
	f, server, _ := serve(t, Options{AnyPort: true, Timeout: 2 * time.Second}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Referer") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
			t.Errorf("headers %v", r.Header)
		}
		switch r.URL.Path {
		case "/image":
			fmt.Fprint(w, "image")
		case "/once":
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			http.Redirect(w, r, "/image", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}))
	f.names(resolved)
	if data, err := f.Fetch(t.Context(), server+"/once"); err != nil || string(data) != "image" {
		t.Errorf("a redirect to the same server: %q, %v", data, err)
	}
	if _, err := f.Fetch(t.Context(), server+"/loop"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "more than 3 redirects") {
		t.Errorf("a loop: %v", err)
	}
	for _, trick := range tricks {
		to = strings.ReplaceAll(trick, "PORT", port)
		if strings.ContainsAny(to, "\r\n") || len(to) > 1<<10 {
			continue
		}
		// What is relative leads to the server itself, again and again.
		if _, err := f.Fetch(t.Context(), server+"/"); err == nil || !errors.Is(err, ErrRefused) && !errors.Is(err, ErrFetch) {
			t.Errorf("redirect to %q: %v", to, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestFetch(t *testing.T) {
	hang := make(chan struct{})
	f, server, _ := serve(t, Options{MaxBytes: 100, Timeout: 2 * time.Second}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/image":
			fmt.Fprint(w, strings.Repeat("x", 100))
		case "/long":
			fmt.Fprint(w, strings.Repeat("x", 101))
		case "/endless":
			for {
				if _, err := fmt.Fprint(w, strings.Repeat("x", 1<<10)); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		case "/hang":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case "/headers":
			w.Header().Set("X", strings.Repeat("x", 2*maxHeaders))
		default:
			http.NotFound(w, r)
		}
	}))
	defer close(hang)
	host := strings.TrimPrefix(server, "http://")
	for _, c := range []struct {
		path, want string
		kind       error
	}{
		{"/image", "", nil},
		{"/long", "Image size 101 bytes exceeds maximum allowed size of 100 bytes", ErrTooLarge},
		{"/endless", "Image size 101 bytes exceeds maximum allowed size of 100 bytes", ErrTooLarge},
		{"/none", "Could not fetch image: " + host + " answered 404 Not Found", ErrFetch},
		{"/headers", "Could not fetch image: " + host + ": ", ErrFetch},
		{"/hang", "Could not fetch image: " + host + " took longer than 2s", ErrFetch},
	} {
		data, err := f.Fetch(t.Context(), server+c.path)
		if c.kind == nil {
			if err != nil || len(data) != 100 {
				t.Errorf("%s: %d bytes, %v", c.path, len(data), err)
			}
		} else if !errors.Is(err, c.kind) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", c.path, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Fetch(ctx, server+"/image"); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that has ended: %v", err)
	}
}

func TestData(t *testing.T) {
	f, err := New(Options{Disabled: true, MaxBytes: 6})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uri, want string
		kind      error
	}{
		{"data:image/png;base64,AAECAwQF", "\x00\x01\x02\x03\x04\x05", nil},
		{"DATA:;base64,AAEC", "\x00\x01\x02", nil},
		{"data:image/svg+xml;charset=utf-8;BASE64,AA==", "\x00", nil},
		{"data:image/png;base64,AA", "\x00", nil},
		{"data:image/png;base64,_-8", "\xff\xef", nil},
		{"data:image/png;base64,AAEC\r\nAwQF\r\n", "\x00\x01\x02\x03\x04\x05", nil},
		{"data:image/png;base64,AAECAwQFBg==", "Image size 7 bytes exceeds maximum allowed size of 6 bytes", ErrTooLarge},
		{"data:image/png;base64," + strings.Repeat("A", 4<<10), "Image size 3072 bytes exceeds maximum allowed size of 6 bytes", ErrTooLarge},
		{"data:image/png;base64,A*", "invalid image content: base64 encoding is invalid: illegal base64 data at input byte 1", ErrData},
		{"data:image/png;base64,", "invalid image content: no data", ErrData},
		{"data:image/png,abc", "invalid image content: data:image/png,abc, expected data:image/png;base64,…", ErrData},
		{"data:image/png;base64", "invalid image content: data:image/png;base64, expected data:image/png;base64,…", ErrData},
		{"https://images.example/a.png", "Could not fetch image: fetching is turned off; send the image as data:image/png;base64,…", ErrRefused},
	} {
		data, err := f.Fetch(t.Context(), c.uri)
		if c.kind == nil {
			if err != nil || string(data) != c.want {
				t.Errorf("%s: %q, %v", c.uri, data, err)
			}
		} else if !errors.Is(err, c.kind) || err.Error() != c.want {
			t.Errorf("%s: %v, expected %q", short(c.uri), err, c.want)
		}
	}
}

// A proxy gets the URL, and no address that its text alone says is not public.
func TestProxy(t *testing.T) {
	asked := ""
	_, server, connections := serve(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		fmt.Fprint(w, "image")
	}))
	proxy, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Options{Proxy: proxy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if data, err := f.Fetch(t.Context(), "http://images.example/a.png"); err != nil || string(data) != "image" || asked != "http://images.example/a.png" {
		t.Errorf("%q, %v; the proxy was asked for %q", data, err, asked)
	}
	before := connections.Load()
	for _, trick := range []string{"http://127.0.0.1/", "http://localhost/", "http://2130706433/", "http://127.1/", "http://metadata.google.internal/", "http://[::1]/", "http://redis/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://images.example:6379/"} {
		if _, err := f.Fetch(t.Context(), trick); !errors.Is(err, ErrRefused) {
			t.Errorf("%s through a proxy: %v", trick, err)
		}
	}
	if n := connections.Load(); n != before {
		t.Errorf("%d more connections", n-before)
	}
	for _, bad := range []string{"socks5://proxy:1080", "http://", "proxy"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Proxy: u}); err == nil {
			t.Errorf("proxy %s is accepted", bad)
		}
	}
}

func TestPublic(t *testing.T) {
	for _, a := range []string{"8.8.8.8", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"} {
		if !public(netip.MustParseAddr(a)) {
			t.Errorf("%s is refused", a)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func FuzzFetch(f *testing.F) {
	for _, trick := range tricks {
		f.Add(trick)
	}
	f.Add("data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte("image")))
	fetcher, err := New(Options{AnyPort: true, MaxBytes: 1 << 10})
	if err != nil {
		f.Fatal(err)
	}
	// Names have no addresses, so that nothing but numbers can be reached.
	fetcher.names(nil)
	dial := fetcher.dial
	fetcher.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if a, err := netip.ParseAddrPort(address); err == nil && public(a.Addr()) {
			return nil, errors.New("the internet is not there")
		}
		return dial(ctx, network, address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		data, err := fetcher.Fetch(t.Context(), address)
		if err == nil && !strings.EqualFold(address[:min(5, len(address))], "data:") {
			t.Errorf("%q: %d bytes", address, len(data))
		}
	})
}
