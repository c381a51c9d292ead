// Package engine turns prompts into tokens.
//
// One goroutine, the one inside Run, owns everything that changes: the
// queues, the page pool, the backend. Others meet it in two places only:
// Submit puts a request in, the Stream it returns hands tokens out. So a step
// reads top to bottom and holds no lock. The rest of what is shared is
// atomic: counters for Stats, and three flags.
//
// # A step
//
// tick is one turn of the loop: receive what was submitted, drop what nobody
// waits for, schedule the next step and launch it, and only then wait for the
// step before, apply its results and publish them. So the device always has
// its next step when it finishes one. The price is a token computed in vain
// when a sequence turns out to have ended; it is dropped unseen.
//
// A step has a budget of tokens, of which any sequence takes what it needs:
// one to generate the next, many to read a prompt or to resume. There are no
// other phases (schedule). Keys and values live in pages of 16 tokens, which
// prompts and answers with a common beginning share (package page). Sequences
// are admitted by an estimate of the pages they will need; where it was wrong
// the one admitted last is preempted, and later computed again.
//
// # Grammars and forks
//
// A guided sequence is held to a grammar, from its beginning or from behind a
// trigger in its text on. Its matcher moves when a token is committed, never
// before, so preemption, failed steps and what is in flight do not concern it.
// The mask of its next row needs the last step's token: a step with such rows
// is launched as ever, but told to sample only when the step before has been
// applied and the masks are there, while its forward pass runs (mask). A mask
// that is late, or tokens that the grammar forces, which are committed at once,
// turn the row launched too early into one that nobody reads (skip): the
// sequence then goes on from the tokens that are known.
//
// Sequences of one prompt (SubmitN) are held at the first of them until its
// prompt's pages are in the cache, and start from there.
//
// # What always holds
//
// Between turns each page is on the free list or used by active sequences,
// never both, and each slot is free or has one sequence. A page is written by
// one sequence, before it has a key. A sequence is waiting, held by one that
// waits or is active, active or ended; its Stream is told of the end once, by the loop. What is in flight may be
// for a sequence that has ended or lost its pages since: the device works in
// order, so pages and slots change hands without waiting for it.
//
// # Ends
//
// A request ends with its last token, or with an Error: when its caller has
// gone, when its logits are no numbers, when the step it was part of failed,
// when the engine stops. Only a lost device, a panic, Drain or the context of
// Run end Run, and then everything open ends with it.
//
// The loop allocates nothing, but for a matcher's mask when it is first needed:
// Submit makes all that a request will need, on its caller's time, and hashes
// the prompt's pages there too.
//
// Text turns a Stream's tokens into characters, with stop strings, on the
// reader's goroutine. Plan and Load bring a checkpoint into a backend.
//
// Not here: HTTP and JSON (handler), arithmetic (cpu, ref, cuda), files
// (weights), the shape of a model (plan).
package engine
