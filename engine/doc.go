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
// waits for, schedule the next step and launch it, wait for a step, apply its
// results and publish them. A device that would wait for the host asks to be
// kept one step ahead (Caps.LaunchDepth): the step waited for is then the one
// before, and the price is a token computed in vain when a sequence turns out to
// have ended; it is dropped unseen. On any other the step waited for is the one
// just launched.
//
// A step has a budget of tokens, of which any sequence takes what it needs:
// one to generate the next, many to read a prompt or to resume. There are no
// other phases (schedule). While someone reads a sequence, prompts get no more
// than can be computed in good time, judged by the steps so far (pace).
//
// # Speculation
//
// A step may compute tokens of a sequence before they are known: a draft, as long as it
// pays by what steps took and by how often guesses were right (speculate). The device
// draws after each what it would have drawn without, and the draft counts as far as it
// equals that. So answers are the same with drafts and without, also under grammars and
// for recurrent models.
//
// # Memory
//
// Keys and values live in pages of 16 tokens, which prompts and answers with a
// common beginning share (package page). Layers are in groups, each with a page
// table of its own; a group whose layers see a window back gives pages back as
// it slides. Recurrent layers have a state for each sequence that runs; it is
// copied on a grid of tokens and at the end of prompts, under the key of the page
// that ends there. A sequence starts from cached pages as far as everything that
// its next token depends on is cached. What that is besides tokens (model, adapter,
// salt, rotations) is in the root of its keys.
//
// A sequence is admitted if the running ones are predicted to have enough pages
// until each of them has ended (admit, lengths). Where that prediction was wrong,
// the one admitted last is preempted, and computed again later. While the first in
// line does not fit, small ones may pass it, within bounds.
//
// Requests take memory of their own: for the prompt at once, for what they generate
// as it comes (account). Beyond a budget they are refused.
//
// # Images
//
// An image of a prompt is a run of tokens that stand for embedding rows. An encoder
// computes them on a goroutine of its own, and a cache by the image's hash keeps them,
// within a budget. A sequence waits for admission until its rows are there, unless its
// pages are cached: the keys of pages have the hash in place of the tokens. Tokens that
// attend both ways are computed in one step (images).
//
// # Grammars and forks
//
// A constrained sequence follows a grammar, from its beginning or after a trigger in
// its text. Its matcher moves when a token is committed, never before, so preemption,
// failed steps and steps in flight do not concern it. The compiler's workers move it,
// as they make the masks: a client's grammar cannot hold up the loop (advance,
// follow). The mask of a row needs the last step's token: a step with such rows is
// launched as ever, but told to sample only when the masks are there, while its
// forward pass runs (mask). A row whose mask is late is not sampled; a later step
// samples from what was computed for it (again). Tokens that the grammar forces are
// committed together, as many as a step may compute (force), and nobody reads the row
// that was launched too early (skip). Neither makes a token be computed twice. The
// workers tokenize a forced text once and as a whole, so that its tokens are those
// that the model would have read.
//
// A request's other rules for its tokens narrow the masks (rules). Where they do not
// depend on the last token, a step need not wait for it.
//
// Sequences of one prompt (SubmitN) are held at the first of them until its
// prompt's pages are in the cache, and start from there.
//
// # What always holds
//
// Between turns each page and each state is free or used by active sequences,
// never both, and each slot is free or has one sequence. A page is written by
// one sequence, before it has a key. A sequence is in one of four states: waiting,
// active, ended, or held by another that is waiting or active. Its Stream is told of
// the end once, by the loop. A step in flight may be for a sequence that has ended, or
// lost its pages, since: the device works in order, so pages, states and slots change
// hands without waiting for it.
//
// # Ends
//
// A request ends with its last token, or with an Error: when its caller has
// gone, when its logits are NaN, when the step it was part of failed, when the
// engine stops. Only a lost device, a panic, Drain or the context of
// Run end Run, and then everything open ends with it.
//
// The loop allocates next to nothing: chunks of some hundred tokens, keys as
// sequences grow, alternatives, and a matcher's mask when it is first needed.
// Everything else was made by New, or by Submit on its caller's time, which hashes
// the prompt's pages too.
//
// Text turns a Stream's tokens into characters, with stop strings, on the
// reader's goroutine.
//
// Not here: HTTP and JSON (handler), arithmetic (cpu, ref), the way from a
// checkpoint to a backend (loader), the shape of a model (plan).
package engine
