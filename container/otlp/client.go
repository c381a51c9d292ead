package otlp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// exportMethod is the one gRPC method of a trace collector.
const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// client carries spans to a collector: an otlptrace.Client. It speaks both of
// OTLP's transports with net/http alone, gRPC being a POST of length-prefixed
// messages over HTTP/2 whose result is a trailer. The modules for either
// transport would bring all of google.golang.org/grpc: a fifth of the binary.
type client struct {
	http      *http.Client
	transport *http.Transport // http's
	url       string
	grpc      bool
}

// newClient checks the form of endpoint, as Start documents it.
func newClient(endpoint string) (*client, error) {
	u, err := url.Parse(endpoint)
	if err == nil && u.User != nil {
		return nil, errors.New("a name or password in the address of an OpenTelemetry collector is not supported")
	}
	if err == nil && u.RawQuery != "" {
		return nil, errors.New("a query in the address of an OpenTelemetry collector is not supported")
	}
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" {
		return nil, errors.New("expected http://HOST:PORT of an OpenTelemetry collector") // without what was found, which may be secret
	}
	c := &client{grpc: strings.Trim(u.Path, "/") == "" && u.Port() != "4318"}
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

// UploadTraces sends spans once; what fails is lost and reported, so that a
// missing collector costs no memory.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire TracesData is the collector's ExportTraceServiceRequest.
	message, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	if c.grpc {
		const prefix = 5 // not compressed, and the length
		framed := make([]byte, prefix, prefix+len(message))
		binary.BigEndian.PutUint32(framed[1:], uint32(len(message)))
		message = append(framed, message...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(message))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if c.grpc {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 1 << 20
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, most)); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.url, err)
	}
	return c.result(resp)
}

// result reads what the collector says of the spans, once the body is read.
func (c *client) result(resp *http.Response) error {
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", c.url, resp.Status)
	}
	if !c.grpc {
		return nil
	}
	status, message := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if status == "" { // an answer without a body has its trailers in front
		status, message = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	if status != "0" {
		return fmt.Errorf("%s answers with gRPC status %q %s", c.url, status, message)
	}
	return nil
}
