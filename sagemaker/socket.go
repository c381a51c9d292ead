package sagemaker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

const (
	mostRunning = 128 // requests of one socket
	mostID      = 64  // bytes of a request's name
)

// socket is one WebSocket, which serves many requests at once. A message of
// the client is one JSON object, sent as text or as bytes (the platform may
// turn one into the other):
//
//	{"inputs": …} {"messages": …} {"prompt": …}   a request, as on /invocations,
//	                                              with "id": "a" to name it
//	{"cancel": "a"}                               ends the request of that name
//
// A request without a name gets one, a number. What is sent about it, always
// as text, carries its name: first the events of a stream or the whole answer,
// then, in the last message, done.
//
//	{"id":"a","data":{…}}                                        an event of a stream
//	{"id":"a","done":true}                                       its end
//	{"id":"a","data":[{…}],"done":true}                          an answer in one piece
//	{"id":"a","status":422,"error":"…","error_type":"…","done":true}
//	{"id":"a","cancelled":true,"done":true}
//
// A message that is not a request is answered with an error whose id is null, and
// the socket goes on.
type socket struct {
	api   API
	first *http.Request // what the messages' requests are like
	limit int64         // bytes of a message

	conn *websocket.Conn
	ctx  context.Context // of all requests

	mu      sync.Mutex
	closing bool // new requests fail
	named   int  // requests that were given a name
	running map[string]context.CancelFunc
	ended   sync.WaitGroup // of those in running
}

// run serves conn until the client closes it, its lifetime is over or a
// message cannot be written.
func (s *socket) run(conn *websocket.Conn, ping, lifetime time.Duration) {
	defer conn.CloseNow() //nolint:errcheck // mostly it is closed already
	end := time.Now().Add(lifetime)
	ctx, cancel := context.WithCancel(cutBefore(context.WithoutCancel(s.first.Context()), end))
	defer cancel()
	conn.SetReadLimit(s.limit)
	s.mu.Lock()
	s.conn, s.ctx = conn, ctx
	closing := s.closing
	s.mu.Unlock()
	if closing { // between its handshake and now
		go s.finish("the server is shutting down")
	}

	go web.KeepAlive(ctx, conn, ping)
	over := time.AfterFunc(lifetime, func() { s.finish("its time is over") })
	defer over.Stop()
	for {
		_, r, err := conn.Reader(ctx)
		if err != nil {
			break
		}
		message, err := readHeld(s.api, r)
		if errors.Is(err, errFull) { // the rest of the message is not read: the socket ends
			s.sendError([]byte("null"), overloaded())
			conn.Close(websocket.StatusTryAgainLater, "no memory for the message") //nolint:errcheck // as in finish
		}
		if err != nil {
			break
		}
		s.take(message)
	}
	s.refuse()
	cancel()
	s.ended.Wait()
}

// refuse makes new requests fail.
func (s *socket) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
}

// finish closes the socket once the running requests have been answered.
func (s *socket) finish(why string) {
	s.refuse()
	s.ended.Wait()
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		conn.Close(websocket.StatusGoingAway, why) //nolint:errcheck // a peer that does not answer is closed anyway
	}
}

// take handles one message, which is held.
func (s *socket) take(message []byte) {
	id, cancelled, err := parseMessage(message)
	switch {
	case err != nil:
		s.sendError([]byte("null"), err)
	case cancelled != "":
		s.cancel(cancelled)
	default:
		s.begin(id, message)
		return // it holds the message
	}
	s.api.Release(int64(len(message)))
}

// parseMessage returns the name of a request, which may be "", or of the one
// that a message wants to end.
func parseMessage(message []byte) (id, cancelled string, fault *handler.Error) {
	var m struct {
		ID     *string `json:"id"`
		Cancel *string `json:"cancel"`
	}
	if err := json.Unmarshal(message, &m); err != nil {
		var kind *json.UnmarshalTypeError
		switch {
		case !errors.As(err, &kind):
			return "", "", badRequest("The message is not JSON: %s", body.Cut(err.Error()))
		case kind.Field == "":
			return "", "", badRequest("The message is not a JSON object")
		}
		return "", "", badRequest("%s: expected a string, found a JSON %s", kind.Field, kind.Value)
	}
	for _, f := range []struct {
		name string
		from *string
		to   *string
	}{{"id", m.ID, &id}, {"cancel", m.Cancel, &cancelled}} {
		if f.from == nil {
			continue
		}
		if *f.from == "" || len(*f.from) > mostID {
			return "", "", badRequest("%s: expected 1 to %d bytes, found %d", f.name, mostID, len(*f.from))
		}
		*f.to = *f.from
	}
	return id, cancelled, nil
}

// cancel ends a running request; one that has ended has said so itself.
func (s *socket) cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := s.running[id]; end != nil {
		end()
	}
}

// begin runs a request in parallel with the others, and releases its body.
func (s *socket) begin(id string, body []byte) {
	id, ctx, err := s.enter(id)
	name, _ := json.Marshal(id) //nolint:errchkjson // no string fails
	if err != nil {
		s.api.Release(int64(len(body)))
		s.sendError(name, err)
		return
	}
	go func() {
		defer s.ended.Done()
		last := s.serve(ctx, name, body)
		s.api.Release(int64(len(body)))
		s.leave(id)
		s.send(last) //nolint:errcheck // the read loop ends too
	}()
}

// enter makes room for a request, which gets a name if id is none, and returns
// the context that ends with it.
func (s *socket) enter(id string) (string, context.Context, *handler.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id == "" {
		s.named++
		if name := strconv.Itoa(s.named); s.running[name] == nil { // a client may count too
			id = name
		}
	}
	switch {
	case s.closing:
		return id, nil, failure(http.StatusServiceUnavailable, "unavailable", "The socket is closing")
	case s.running[id] != nil:
		return id, nil, failure(http.StatusConflict, "conflict", "A request with this id is running; give each its own")
	case len(s.running) >= mostRunning:
		return id, nil, failure(http.StatusTooManyRequests, "overloaded", "A socket runs at most %d requests at once", mostRunning)
	}
	ctx, end := context.WithCancel(s.ctx)
	s.running[id] = end
	s.ended.Add(1)
	return id, ctx, nil
}

// leave gives the room of a request back.
func (s *socket) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[id]()
	delete(s.running, id)
}

// serve runs a request, sends its events and returns its last message.
func (s *socket) serve(ctx context.Context, name, body []byte) (last []byte) {
	a := &answer{api: s.api, event: func(data []byte) error {
		return s.send(bytes.Join([][]byte{[]byte(`{"id":`), name, []byte(`,"data":`), data, []byte(`}`)}, nil))
	}}
	defer a.release()
	a.serve(withBody(ctx, s.first, s.first.Header, body))
	switch {
	case ctx.Err() != nil && a.status == 0 || ctx.Err() != nil && a.streamed:
		return fmt.Appendf(nil, `{"id":%s,"cancelled":true,"done":true}`, name)
	case a.streamed:
		return fmt.Appendf(nil, `{"id":%s,"done":true}`, name)
	case a.status == http.StatusOK:
		return fmt.Appendf(nil, `{"id":%s,"data":%s,"done":true}`, name, a.body)
	}
	fields := bytes.TrimPrefix(bytes.TrimSuffix(a.body, []byte("}")), []byte("{"))
	return fmt.Appendf(nil, `{"id":%s,"status":%d,%s,"done":true}`, name, a.status, fields)
}

// sendError sends an error that is not the API's.
func (s *socket) sendError(name []byte, e *handler.Error) {
	text, err := json.Marshal(e.Msg)
	if err == nil {
		s.send(fmt.Appendf(nil, `{"id":%s,"status":%d,"error":%s,"error_type":"%s","done":true}`, name, e.Status, text, e.Type)) //nolint:errcheck // as in begin
	}
}

// send sends one message. A client that does not take it in time loses the
// socket.
func (s *socket) send(message []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, web.WritePatience)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageText, message)
}
