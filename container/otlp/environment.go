package otlp

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The supported values of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// Environment completes c with OpenTelemetry's variables, which getenv returns:
// OTEL_EXPORTER_OTLP_ENDPOINT, unless c has one, and of the same prefix HEADERS,
// PROTOCOL, COMPRESSION and TIMEOUT. One for traces alone
// (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) wins over the one for all signals. Errors
// name the variable and not its value, which may hold a secret.
//
// If c has no Endpoint afterwards, there is nothing to start.
func (c *Config) Environment(getenv func(string) string) error {
	const prefix = "OTEL_EXPORTER_OTLP_"
	get := func(name string) (variable, value string) {
		for _, variable = range []string{prefix + "TRACES_" + name, prefix + name} {
			if value = strings.TrimSpace(getenv(variable)); value != "" {
				return variable, value
			}
		}
		return "", ""
	}
	off := strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none"
	fromVariable := ""
	if c.Endpoint == "" && !off {
		fromVariable, c.Endpoint = get("ENDPOINT")
	}
	if c.Endpoint == "" {
		return nil
	}

	variable, value := get("PROTOCOL")
	switch value {
	case "", protocolGRPC, protocolHTTP:
		c.Protocol = value
	default:
		return fmt.Errorf("%s: expected %s or %s", variable, protocolGRPC, protocolHTTP)
	}
	if fromVariable != "" {
		if err := c.completeEndpoint(fromVariable == prefix+"ENDPOINT"); err != nil {
			return fmt.Errorf("%s: %w", fromVariable, err)
		}
	}
	if variable, value = get("HEADERS"); value != "" {
		var err error
		if c.Headers, err = parseHeaders(value); err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
	}
	variable, value = get("COMPRESSION")
	switch value {
	case "", "none":
	case "gzip":
		c.Gzip = true
	default:
		return fmt.Errorf("%s: expected gzip or none", variable)
	}
	if variable, value = get("TIMEOUT"); value != "" {
		ms, err := strconv.ParseUint(value, 10, 31)
		if err != nil || ms == 0 {
			return fmt.Errorf("%s: expected a number of milliseconds above 0", variable)
		}
		c.Timeout = time.Duration(ms) * time.Millisecond
	}
	return nil
}

// completeEndpoint completes an endpoint from a variable. Its default protocol is
// HTTP, except on 4317, the port for gRPC; and to an address for all signals the
// path of traces is appended.
func (c *Config) completeEndpoint(allSignals bool) error {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return errors.New("expected the address of an OpenTelemetry collector")
	}
	if c.Protocol == "" {
		c.Protocol = protocolHTTP
		if u.Port() == "4317" {
			c.Protocol = protocolGRPC
		}
	}
	if allSignals && c.Protocol == protocolHTTP {
		c.Endpoint = u.JoinPath("v1", "traces").String()
	}
	_, err = newClient(*c)
	return err
}

// parseHeaders reads name=value,name=value, with values escaped as in a URL.
func parseHeaders(text string) (http.Header, error) {
	headers := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || name == "" || strings.ContainsAny(name, " \t\r\n:") || strings.ContainsAny(value, "\r\n\x00") {
			return nil, errors.New("expected NAME=VALUE,NAME=VALUE with values escaped as in a URL")
		}
		headers.Set(name, value)
	}
	return headers, nil
}
