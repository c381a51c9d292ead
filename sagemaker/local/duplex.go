package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/coder/websocket"

	"github.com/millrace-ai/millrace/internal/web"
)

// duplexPath is where the platform opens a container's WebSocket unless the caller
// names another path.
const duplexPath = "invocations-bidirectional-stream"

// The members of a PayloadPart that are headers of its event, and their values.
const (
	memberType  = "DataType"
	memberState = "CompletionState"

	typeText, typeBinary        = "UTF8", "BINARY"
	stateComplete, statePartial = "COMPLETE", "PARTIAL"
)

// invokeDuplex is InvokeEndpointWithBidirectionalStream, of the runtime's HTTP/2
// API. It opens a WebSocket to the container, whose messages are the parts of
// both halves of the stream: a part without a type is binary, and PARTIAL parts are
// fragments of one message. What a container sends in several frames is one part
// here, where the platform makes one of each.
//
// The stream ends with the caller's half of it, when the platform closes the
// WebSocket, or with the container's Close frame, which becomes a ModelStreamError
// with the frame's status and reason. AWS does not say how the platform answers a
// part that it does not understand, or ends a stream whose time is up: both are
// assumed to be errors in the stream.
func (e *Endpoint) invokeDuplex(w http.ResponseWriter, r *http.Request) {
	c, v := e.admit(w, r, opDuplex)
	if c == nil {
		return
	}
	defer e.metrics.leave()
	// Over HTTP/1.1 the answer would wait for the end of the body, and the body
	// would have a minute to arrive.
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		if err := errors.Join(control.EnableFullDuplex(), control.SetReadDeadline(time.Time{})); err != nil {
			v.done(cancelled)
			e.refuse(w, c, internal("The connection has only one direction: %v.", err))
			return
		}
	}
	ctx, cancel := v.context(r, e.cfg.Limits.Duplex)
	defer cancel()
	conn, f := v.dial(ctx, c, r.Header)
	if f != nil {
		e.refuse(w, c, f)
		return
	}
	defer conn.CloseNow() //nolint:errcheck // mostly it is closed already
	go web.KeepAlive(ctx, conn, web.SocketPing)

	w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
	w.Header().Set(headerInvoked, e.cfg.Variant)
	w.WriteHeader(http.StatusOK)
	out := &events{w: w, flush: control, encoder: eventstream.NewEncoder()}
	out.send() // the headers

	said := make(chan error, 1) // how the caller's half ended
	var passing sync.WaitGroup
	passing.Go(func() {
		err := pass(ctx, conn, r.Body)
		said <- err
		if err == nil {
			conn.Close(websocket.StatusNormalClosure, "") //nolint:errcheck // a container that does not answer is left
		} else {
			cancel()
		}
	})
	defer func() {
		cancel()
		control.SetReadDeadline(time.Now()) //nolint:errcheck // a body that has ended needs none
		passing.Wait()
	}()
	err := answerParts(ctx, out, conn)
	how, message := complete, ""
	var callers error
	select {
	case callers = <-said:
		if callers == nil {
			err = nil // the WebSocket was closed for it
		}
	default:
	}
	var closed websocket.CloseError
	var bad *partError
	switch {
	case err == nil:
	case errors.As(callers, &bad):
		message = bad.Error()
		out.fail("InternalStreamFailure", "", message)
	case errors.As(err, &closed):
		message = closed.Reason
		out.fail("ModelStreamError", strconv.Itoa(int(closed.Code)), message)
	case errors.Is(context.Cause(ctx), errLate):
		how, message = timedOut, fmt.Sprintf("The stream did not end within %v.", e.cfg.Limits.Duplex)
		out.fail("ModelStreamError", "ModelInvocationTimeExceeded", message)
	case errors.Is(context.Cause(ctx), errTaken):
		how, message = broken, "The instance was stopped before the end of the stream."
		out.fail("InternalStreamFailure", "", message)
	case r.Context().Err() != nil || out.err != nil || callers != nil:
		how, message = cancelled, "the caller left"
	default:
		how, message = broken, fmt.Sprintf("The connection to the model broke before the end of the stream: %v", err)
		out.fail("ModelStreamError", "StreamBroken", message)
	}
	if how == timedOut || how == broken {
		e.metrics.midStreamError()
	}
	v.done(how)
	e.logCall(c, http.StatusOK, message)
}

// dial opens the container's WebSocket where the caller's headers say. With a
// fault the invocation is done, otherwise the caller ends it.
func (v *invocation) dial(ctx context.Context, c *call, from http.Header) (*websocket.Conn, *fault) {
	cfg := v.fleet.cfg
	path := from.Get(headerPath)
	if path == "" {
		path = duplexPath
	}
	url := "http://" + v.in.container.Address() + "/" + path
	if query := from.Get(headerQuery); query != "" {
		url += "?" + query
	}
	shake, cancel := context.WithTimeoutCause(ctx, cfg.Limits.Unary, errLate)
	defer cancel()
	conn, resp, err := websocket.Dial(shake, url, &websocket.DialOptions{ //nolint:bodyclose // Dial closes it
		HTTPClient: &http.Client{Transport: v.in.transport},
		HTTPHeader: http.Header{"User-Agent": {agent}},
		Host:       hostHeader,
	})
	switch {
	case err == nil:
		conn.SetReadLimit(cfg.Limits.Body)
		return conn, nil
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		text, _ := io.ReadAll(resp.Body) //nolint:errcheck // it is in memory
		v.done(complete)
		return nil, cfg.modelError(c.who(), resp.StatusCode, string(text))
	case errors.Is(context.Cause(shake), errLate):
		v.done(timedOut)
		return nil, cfg.timedOut(c.who())
	case errors.Is(context.Cause(ctx), context.Canceled) && v.in.ctx.Err() == nil:
		v.done(cancelled)
	default:
		v.done(broken)
	}
	return nil, cfg.crashed(c.who(), err)
}

// partError is a part of the caller's that is not understood.
type partError struct{ message string }

func (e *partError) Error() string { return e.message }

// pass sends the parts of the caller's half of a stream to the container. It
// returns nil when that half has ended.
func pass(ctx context.Context, conn *websocket.Conn, body io.Reader) error {
	parts := &partReader{decoder: eventstream.NewDecoder(), body: body}
	var message io.WriteCloser // nil between messages
	for {
		p, err := parts.next()
		switch {
		case err == io.EOF && message != nil:
			return &partError{"The request stream ended after a PARTIAL part."}
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if message == nil {
			if message, err = conn.Writer(ctx, p.kind); err != nil {
				return err
			}
		}
		if _, err := message.Write(p.payload); err != nil {
			return err
		}
		if p.last {
			if err := message.Close(); err != nil {
				return err
			}
			message = nil
		}
	}
}

// part is a PayloadPart: its bytes, the type of its message, and whether it is the
// last part of that.
type part struct {
	payload []byte
	kind    websocket.MessageType
	last    bool
}

// partReader reads the parts of the caller's half of a stream.
type partReader struct {
	decoder *eventstream.Decoder
	body    io.Reader
	n       int   // bytes of the event that is being read
	err     error // what ended the body, if that is not io.EOF
}

// Read implements io.Reader, for the decoder.
func (r *partReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.n += n
	if err != io.EOF {
		r.err = err
	}
	return n, err
}

// next returns the next part, and io.EOF at the end of the stream. Another error is a
// partError, or the body's: then the caller has left, or the stream is over.
func (r *partReader) next() (part, error) {
	r.n = 0
	event, err := r.decoder.Decode(r, nil)
	if err == io.EOF && r.n > 0 {
		err = io.ErrUnexpectedEOF // the decoder does not tell
	}
	// SDKs sign each event and send it as the payload of another, which is empty
	// at the end of the stream.
	if err == nil && event.Headers.Get(":chunk-signature") != nil {
		if len(event.Payload) == 0 {
			return part{}, io.EOF
		}
		if event, err = r.decoder.Decode(bytes.NewReader(event.Payload), nil); err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	switch {
	case err == io.EOF:
		return part{}, err
	case err != nil && r.err != nil:
		return part{}, r.err
	case err != nil:
		return part{}, &partError{fmt.Sprintf("The request stream is not an event stream: %v.", err)}
	}
	return readPart(event)
}

// readPart reads the headers of an event.
func readPart(event eventstream.Message) (part, error) {
	text := func(name string) string {
		if v, ok := event.Headers.Get(name).(eventstream.StringValue); ok {
			return string(v)
		}
		return ""
	}
	if name := text(":event-type"); name != "PayloadPart" {
		return part{}, &partError{fmt.Sprintf("The request stream has an event %q: expected PayloadPart.", cut(name, messageLimit/4))}
	}
	p := part{payload: event.Payload, kind: websocket.MessageBinary, last: true}
	switch v := text(memberType); v {
	case typeText:
		p.kind = websocket.MessageText
	case typeBinary, "":
	default:
		return part{}, &partError{fmt.Sprintf("DataType %q: expected %s or %s.", cut(v, messageLimit/4), typeText, typeBinary)}
	}
	switch v := text(memberState); v {
	case stateComplete, "":
	case statePartial:
		p.last = false
	default:
		return part{}, &partError{fmt.Sprintf("CompletionState %q: expected %s or %s.", cut(v, messageLimit/4), statePartial, stateComplete)}
	}
	return p, nil
}

// answerParts writes each message of the container's as a part, until the
// WebSocket ends, and returns why it has.
func answerParts(ctx context.Context, out *events, conn *websocket.Conn) error {
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		dataType := typeBinary
		if kind == websocket.MessageText {
			dataType = typeText
		}
		out.encode(message, "event", ":event-type", "PayloadPart", "application/octet-stream", memberType, dataType, memberState, stateComplete)
		if out.send(); out.err != nil {
			return out.err
		}
	}
}
