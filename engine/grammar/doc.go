// Package grammar makes generated text follow a JSON schema, a regular
// expression or a Lark grammar.
//
// A Compiler is made once from the model's vocabulary. Compile turns a Spec
// into a Matcher; requests for the same Spec share one compilation. The Matcher
// then follows one generated sequence. At each step it says which tokens may come next (Mask)
// or must come next (Forced), and is told which one came (Accept). The masks
// of all sequences of a step are computed by the Compiler's workers while the
// model runs (Begin, Masks).
//
// The parser is llguidance (github.com/guidance-ai/llguidance), reached
// through engine/native. What this package adds is what a server needs around
// it: canonical tokens for forced text, limits on what a stranger's grammar
// may cost, errors that name the fault and its place, a cache of compiled grammars.
//
// # What a grammar may cost
//
// The library cannot be interrupted while it compiles, and no check of a source
// foresees what that costs. So a grammar is compiled in a process of its own
// first, the trial, which measures time and memory and follows a text of the
// grammar for some tokens: what a later mask would fail at shows there. A trial
// that overruns is killed, with all that it has taken, and the grammar is
// refused. Only what a trial has shown to be affordable is compiled in the
// server, and small grammars without anything that could be expensive (cheap).
//
// Trials begin in one of two quick places. One that takes more than 50 ms of
// processor time moves to a slow one or ends as ErrBusy where those are taken,
// so that expensive grammars wait for each other and not the others for them.
// They are nice: masks and the model go first.
//
// The process is this executable, started again with the first grammar that
// needs it; after five minutes without one it ends. It has the vocabulary and
// nothing else of the server: no environment, no files, no connections. Where
// no process can be started, OnUntried tells, and larger grammars are refused.
//
// # What a schema means here
//
// A schema is brought into a normal form before the library sees it
// (NormalizeSchema): one place decides what it means, for response formats,
// for TGI's grammars and for tools, and nothing is compiled that was not read.
//
// A schema without a type that has properties is one of an object, as in
// TGI's grammars, and so is one whose keywords are all for objects. An object
// has the members that its schemas name, in their order, and no others, unless
// additionalProperties or unevaluatedProperties allow them, or no schema names
// any. What applies to one value counts together: the keywords of a schema,
// its $ref, the parts of its allOf, and one branch of each anyOf. A tuple
// without items, minItems and maxItems is that tuple. With SchemaOptions.Open
// JSON Schema's own meaning holds instead.
//
// Between the tokens of JSON one space may stand, as TGI's grammars allow it;
// no other white space. oneOf admits what anyOf would: a text that two
// branches match is not refused.
//
// Keywords that cannot be enforced while text is written (not, if, contains,
// dependentRequired, ...) are errors with the place in the schema, never
// ignored. One is an exception, since every set of a program has it:
// uniqueItems is enforced where the items are of a few values, and has no
// effect elsewhere. Annotations have none: unknown keywords, titles,
// contentEncoding, and formats other than date, date-time, duration, email,
// hostname, ipv4, ipv6, time, uri and uuid.
//
// Not here: which requests carry a grammar, and what TGI requires of it
// (handler), putting masks onto logits (the backends).
package grammar
