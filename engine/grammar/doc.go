// Package grammar makes generated text follow a JSON schema, a regular
// expression or a Lark grammar.
//
// A Compiler is made once from the model's vocabulary. Compile turns a Spec
// into a Matcher on the request's own goroutine; the Matcher then follows one
// generated sequence. At each step it says which tokens may come next (Mask)
// or must come next (Forced), and is told which one came (Accept). The masks
// of all sequences of a step are computed by the Compiler's workers while the
// model runs (Begin, Masks).
//
// The parser is llguidance (github.com/guidance-ai/llguidance), reached
// through engine/native. What this package adds is what a server needs around
// it: canonical tokens for forced text, limits on what a stranger's grammar
// may cost, errors that name the fault, a cache of compiled grammars.
//
// # What a schema means here
//
// Properties come in the schema's order. Between the tokens of JSON one space
// may stand, as TGI's grammars allow it; no other white space. oneOf admits
// what anyOf would: a text that two branches match is not refused. Keywords
// that cannot be enforced while text is written (not, if, uniqueItems,
// contains, ...) and formats that are not known are errors, never ignored;
// annotations and keywords that JSON Schema does not define are ignored.
//
// Not here: which requests carry a grammar, and what TGI requires of it
// (handler), putting masks onto logits (the backends).
package grammar
