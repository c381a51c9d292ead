package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// exportMethod is the one gRPC method of a trace collector.
const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// client carries spans to a collector: an otlptrace.Client. It speaks both of
// OTLP's transports with net/http alone: gRPC is a POST of length-prefixed
// messages over HTTP/2 whose result is a trailer. The modules for either
// transport would bring all of google.golang.org/grpc: a fifth of the binary.
type client struct {
	http      *http.Client
	transport *http.Transport // http's
	url       string
	grpc      bool
	headers   http.Header
	gzip      bool
	pause     time.Duration // before the first retry; doubles with each
}

// newClient checks the form of the endpoint, as Config documents it.
func newClient(cfg Config) (*client, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err == nil && u.User != nil {
		return nil, errors.New("a name or password in the address of an OpenTelemetry collector is not supported")
	}
	if err == nil && u.RawQuery != "" {
		return nil, errors.New("a query in the address of an OpenTelemetry collector is not supported")
	}
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" {
		return nil, errors.New("expected http://HOST:PORT of an OpenTelemetry collector") // without what was found, which may be secret
	}
	c := &client{headers: cfg.Headers, gzip: cfg.Gzip, pause: time.Second, grpc: cfg.Protocol == protocolGRPC}
	if cfg.Protocol == "" {
		c.grpc = strings.Trim(u.Path, "/") == "" && u.Port() != "4318"
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	switch {
	case c.grpc:
		u.Path = exportMethod
		protocols.SetUnencryptedHTTP2(u.Scheme == "http")
	default:
		protocols.SetHTTP1(true)
		if strings.Trim(u.Path, "/") == "" {
			u.Path = "/v1/traces"
		}
	}
	c.url = u.String()
	c.transport = &http.Transport{Proxy: http.ProxyFromEnvironment, Protocols: protocols, IdleConnTimeout: time.Minute}
	c.http = &http.Client{
		Transport:     c.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func (c *client) Start(context.Context) error { return nil }

func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans. If the collector is overloaded or cannot be reached, it
// retries until ctx ends. Spans that could not be sent are dropped and reported,
// so that a missing collector costs no memory.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire TracesData is the collector's ExportTraceServiceRequest.
	message, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	if c.gzip {
		message = compress(message)
	}
	if c.grpc {
		const prefix = 5 // whether it is compressed, and the length
		framed := make([]byte, prefix, prefix+len(message))
		if c.gzip {
			framed[0] = 1
		}
		binary.BigEndian.PutUint32(framed[1:], uint32(len(message)))
		message = append(framed, message...)
	}
	for pause := c.pause; ; pause *= 2 {
		wait, err := c.send(ctx, message)
		if err == nil || wait < 0 {
			return err
		}
		timer := time.NewTimer(max(wait, pause/2+rand.N(pause/2+1)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// compress returns a message compressed by gzip.
func compress(message []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(message) //nolint:errcheck // a buffer takes all
	w.Close()
	return out.Bytes()
}

// final is the wait after an error for which a retry is of no use.
const final time.Duration = -1

// send sends a message once. wait is how long the collector asks to wait before
// the next try, or final.
func (c *client) send(ctx context.Context, message []byte) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(message))
	if err != nil {
		return final, err
	}
	maps.Copy(req.Header, c.headers)
	req.Header.Set("Content-Type", "application/x-protobuf")
	encoding := "Content-Encoding"
	if c.grpc {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		encoding = "Grpc-Encoding"
	}
	if c.gzip {
		req.Header.Set(encoding, "gzip")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	const most = 1 << 20
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, most)); err != nil {
		return 0, fmt.Errorf("reading the answer of %s: %w", c.url, err)
	}
	return c.result(resp)
}

// result returns the collector's verdict on the spans, once the body is read.
func (c *client) result(resp *http.Response) (wait time.Duration, err error) {
	if resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s answers %s", c.url, resp.Status)
		switch resp.StatusCode {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16) //nolint:errcheck // a date is rare: 0
			return time.Duration(seconds) * time.Second, err
		}
		return final, err
	}
	if !c.grpc {
		return 0, nil
	}
	status, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if status == "" { // an answer without a body has its trailers in the header
		status, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	if status == "0" {
		return 0, nil
	}
	err = fmt.Errorf("%s answers with gRPC status %q %s", c.url, status, message)
	if slices.Contains(retryable[:], status) {
		return 0, err
	}
	return final, err
}

// retryable are the gRPC statuses that OTLP lets a client try again after:
// cancelled, deadline exceeded, resource exhausted, aborted, out of range,
// unavailable and data loss.
var retryable = [...]string{"1", "4", "8", "10", "11", "14", "15"}
