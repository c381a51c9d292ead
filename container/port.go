package main

import (
	"errors"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/sagemaker"
)

// port is the front that listens.
type port struct {
	*http.Server
	hosting  *sagemaker.Hosting
	listener net.Listener
	ready    func() // called once the model is there; nil: nothing is
}

// url is where a browser on this machine finds the server.
func (p *port) url() string {
	address, _ := p.listener.Addr().(*net.TCPAddr)
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(address.Port))
}

// listen opens the port that the configuration names. Connections are
// answered once it serves.
func listen(cfg *config.Serve, log *slog.Logger, h *sagemaker.Hosting) (*port, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(cfg.Hostname, strconv.Itoa(cfg.Port)))
	if err != nil {
		return nil, err
	}
	p := &port{Server: handler.NewHTTPServer("", h), hosting: h, listener: listener}
	p.ErrorLog = stdlog.New(&serverLog{log: log}, "", 0)
	return p, nil
}

// Serve answers requests; see front.
func (p *port) Serve() error {
	err := p.Server.Serve(handler.Guard(p.listener))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Ready says so to people; the API itself answers requests that come too early.
func (p *port) Ready() {
	if p.ready != nil {
		p.ready()
	}
}

// serverLog takes what an http.Server has to say. Most of it is about clients
// that speak something else, which is for a debugger. That a connection cannot
// be accepted is for the operator, but not a line for each try.
type serverLog struct {
	log *slog.Logger

	mu     sync.Mutex
	last   time.Time // when the last warning was logged
	missed int       // warnings since then
}

const betweenWarnings = 10 * time.Second

// Write implements io.Writer for one line.
func (l *serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	reason, isAccept := strings.CutPrefix(text, "http: Accept error: ")
	if !isAccept {
		l.log.Debug(text)
		return len(line), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= betweenWarnings {
		l.log.Warn("connections cannot be accepted", "err", reason, "lines_left_out", l.missed)
		l.last, l.missed = now, 0
	} else {
		l.missed++
	}
	return len(line), nil
}
