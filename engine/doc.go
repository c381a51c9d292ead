// Package engine turns prompts into tokens.
//
// One goroutine, the one inside Run, owns everything that changes: the
// queues, the page pool, the backend. Others meet it in two places only:
// Submit puts a request in, the Stream it returns hands tokens out. So a step
// reads top to bottom and holds no lock.
//
// Text turns a Stream's tokens into characters, with stop strings, on the
// reader's goroutine.
//
// Not here: HTTP and JSON (handler), arithmetic (cpu, ref, cuda), files
// (weights), the shape of a model (plan).
package engine
