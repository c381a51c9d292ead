// Package sim is a backend without a model: it computes a hash where others
// compute a transformer, in no time or in virtual time, and fails on request.
//
// What it hashes is what a model would look at. Each position of each page holds
// a value that depends on the token, the position, the adapter, the rotations and
// all that is known before it: for each group of caches the values that its
// window sees, read through the slot's page table, and with recurrent layers a
// hash of all tokens so far, which is the state. The next token depends on the
// same. So a wrong page table, a page that was not written, that was overwritten,
// that is another group's or held another prompt, a token out of order, a state
// that was given a token twice or is another's, a wrong count or bias or someone
// else's parameters all change the output, and Model tells what the output should
// be. What no window sees is never read. A mask is obeyed: what it forbids gives
// way to what it allows. Sequences read before any of them writes: sharing a page
// within the step that fills it shows too.
//
// It trusts its batches like every backend; Backend.Checked is for all tests but
// those of speed. Only what can be seen nowhere else ends in an error, which
// wraps device.ErrLost: a Batch that was touched while in flight, and a page that
// two sequences or two groups write in one step.
package sim
