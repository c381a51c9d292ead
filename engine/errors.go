package engine

// Kind is what went wrong, for code; the sentence is in Error.Msg.
type Kind int

// Kinds of failure. The zero value means a fault of ours.
const (
	Internal   Kind = iota
	Invalid         // the request can never work
	Overloaded      // no room now; the same request may work later
	Failed          // generation failed: NaN logits, a failed step, a lost device
	Cancelled       // the caller's context ended, or the Stream was closed
	Stopping        // the engine is shutting down
	Expired         // the deadline passed while the request waited or its prompt was read
)

func (k Kind) String() string {
	return [...]string{"internal", "invalid", "overloaded", "failed", "cancelled", "stopping", "expired"}[k]
}

// Error is what the engine returns to callers. Msg is for the client; Err, if
// any, is the cause and is for the log.
type Error struct {
	Kind Kind
	Msg  string
	Err  error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}

func (e *Error) Unwrap() error { return e.Err }
