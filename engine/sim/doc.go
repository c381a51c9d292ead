// Package sim is a backend without a model: it computes a hash where others
// compute a transformer, in no time or in virtual time, and fails on request.
//
// What it hashes is what a transformer would look at. Each position of each
// page holds a value that depends on the token, the position and all values
// before it as read through the slot's page table, and the next token depends
// on all of them. So a wrong page table, a page that was not written, that
// was overwritten or that held another prompt, a token out of order, a wrong
// count or bias or someone else's parameters all change the output, and Model
// tells what the output should be. A mask is obeyed: what it forbids gives way
// to what it allows. Sequences read before any of them writes:
// sharing a page within the step that fills it shows too.
//
// It also checks the caller: a Batch that breaks the contract of package
// device, or was touched while in flight, ends in an error that wraps
// device.ErrLost.
package sim
