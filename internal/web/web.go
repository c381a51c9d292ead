// Package web holds what the HTTP servers of Millrace share: how long they wait
// for clients, how they write an answer in one piece, what the error in such an
// answer says, and how they keep a WebSocket alive.
package web

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

const (
	// BodyPatience is how long a whole body may take to arrive.
	BodyPatience = time.Minute
	// WritePatience is how long a client may leave what is written to it in the
	// socket: a place in the server is not held for one that has stopped reading.
	WritePatience = 90 * time.Second
)

var contentTypeJSON = []string{"application/json"}

// WriteJSON answers with a complete JSON body.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	write(w, status, contentTypeJSON, body)
}

// Write answers with a complete body.
func Write(w http.ResponseWriter, status int, contentType string, body []byte) {
	write(w, status, []string{contentType}, body)
}

func write(w http.ResponseWriter, status int, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client is gone; no one is left to tell
}

// Panicked is the error that a recovered panic becomes.
func Panicked(p any) error { return fmt.Errorf("panic: %v\n%s", p, debug.Stack()) }
