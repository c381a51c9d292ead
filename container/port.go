package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/sagemaker"
)

// port is the front that listens.
type port struct {
	*http.Server
	hosting  *sagemaker.Hosting
	listener net.Listener
}

// listen opens the port that the configuration names. Connections are
// answered once it serves.
func listen(cfg *config.Serve, log *slog.Logger, h *sagemaker.Hosting) (*port, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(cfg.Hostname, strconv.Itoa(cfg.Port)))
	if err != nil {
		return nil, err
	}
	p := &port{handler.NewHTTPServer("", h), h, listener}
	p.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	return p, nil
}

// Serve answers requests; see front.
func (p *port) Serve() error {
	err := p.Server.Serve(p.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Ready does nothing: the API itself answers requests that come too early.
func (p *port) Ready() {}
