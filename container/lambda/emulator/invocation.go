package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
)

// invocation is one event on its way through the function, and its answer.
type invocation struct {
	id       string
	event    []byte
	deadline time.Time

	wantsLog  bool          // the caller gets the log's tail
	asked     chan struct{} // closed when the event after this one is asked for
	begun     chan struct{} // closed once the answer begins, or there is none
	done      chan struct{} // closed once it is complete
	ended     chan struct{} // closed once Lambda has logged its end
	once      sync.Once     // closes begun
	finish    sync.Once     // closes done
	answering sync.Once     // lets one answer through

	// Valid once begun, if failure is nil.
	contentType string
	body        io.ReadCloser // the caller closes it

	log string // the tail of the log; valid once ended

	mu      sync.Mutex
	failure *failure       // set before done is closed
	pipe    *io.PipeWriter // what body reads, if streamed
}

func newInvocation(event []byte) *invocation {
	return &invocation{id: uuid.NewString(), event: event, begun: make(chan struct{}), done: make(chan struct{}), ended: make(chan struct{})}
}

// failure is why an event has no answer, or only a part of one, in the function's
// or Lambda's words.
type failure struct {
	Type    string `json:"errorType,omitempty"`
	Message string `json:"errorMessage"`

	payload []byte // what the function said, instead of the above
	timeout bool
}

// data is the payload that the caller gets.
func (f *failure) data() []byte {
	if f.payload != nil {
		return f.payload
	}
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // two texts
	}
	return data
}

func (f *failure) status() string {
	if f.timeout {
		return "timeout"
	}
	return "error\tError Type: " + f.Type
}

// parseFailure reads the error that a function reports.
func parseFailure(data []byte) *failure {
	f := &failure{payload: data}
	if json.Unmarshal(data, f) != nil || f.Message == "" {
		f.Message = string(data)
	}
	return f
}

func timedOut(id string, after time.Duration) *failure {
	return &failure{timeout: true, Type: "Sandbox.Timedout", Message: fmt.Sprintf(
		"%s %s Task timed out after %.2f seconds", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), id, after.Seconds())}
}

// tooLarge is the failure of an answer above limit, in bytes.
func tooLarge(limit int) *failure {
	return &failure{Type: "Function.ResponseSizeTooLarge", Message: fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", limit)}
}

// answer begins a streamed answer. What is written to the pipe is read from body.
func (inv *invocation) answer(contentType string) *io.PipeWriter {
	body, pipe := io.Pipe()
	inv.contentType, inv.body = contentType, body
	inv.mu.Lock()
	inv.pipe = pipe
	inv.mu.Unlock()
	inv.once.Do(func() { close(inv.begun) })
	return pipe
}

// answerAll gives a buffered answer.
func (inv *invocation) answerAll(contentType string, data []byte) {
	inv.contentType, inv.body = contentType, io.NopCloser(bytes.NewReader(data))
	inv.once.Do(func() { close(inv.begun) })
	inv.end()
}

// fail ends an event without an answer, or cuts off the answer that it has.
func (inv *invocation) fail(f *failure) {
	inv.mu.Lock()
	if inv.failure == nil {
		inv.failure = f
	}
	pipe := inv.pipe
	inv.mu.Unlock()
	inv.once.Do(func() { close(inv.begun) })
	if pipe != nil {
		pipe.Close()
	}
	inv.end()
}

func (inv *invocation) end() { inv.finish.Do(func() { close(inv.done) }) }

// failed returns why the answer is missing or cut off, nil if it is not. For a
// streamed answer this is known once body has been read.
func (inv *invocation) failed() *failure {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return inv.failure
}
