package engine

import "github.com/millrace-ai/millrace/engine/grammar"

// Guide holds the output of a request to a grammar, from the beginning or from
// behind a trigger on. Submit takes it over, also when it fails: the engine
// closes its matchers.
type Guide struct {
	Grammar  *grammar.Matcher // from the first token on; nil: none
	Triggers []Trigger        // only when Grammar is nil

	// NewDetokenizer makes what tells the text of the tokens, special ones
	// spelled out; needed with Triggers only.
	NewDetokenizer func() Detokenizer
}

// Trigger starts a grammar in the middle of free text: behind the last byte of
// Text the output must match Grammar. Bytes of the same token behind Text are
// given to the matcher first; if it refuses them, the text goes on free. What
// is triggered first holds to the end of the sequence.
type Trigger struct {
	Text    string
	AtStart bool // only where nothing but white space came before
	Grammar *grammar.Matcher
}
