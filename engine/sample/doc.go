// Package sample defines how a token is chosen from logits, and is the
// reference for it: backends that sample on the device are compared with it.
//
// # The definition
//
// Given the raw logits l of one row, float32, one per token id, a sequence's
// Params and the Counts of what it has seen. Steps 2 to 4 round every product,
// quotient and difference to float32, none fused.
//
//  1. If any l is NaN or +Inf, or all are -Inf, the row is invalid. A single
//     -Inf is fine: that token cannot be chosen.
//  2. Repetition penalty r ≠ 1, for each id of the prompt or generated so far:
//     l = l*r if l < 0, else l/r.
//  3. Frequency penalty f ≠ 0, for each id generated n > 0 times: l -= f*n.
//     After 2 and 3 a +Inf, which only an overflow can make, is the largest
//     float32.
//  4. Params.Sample = 1, temperature t ≠ 1: l = (l - max l)/t. The shift
//     changes no probability and keeps a tiny t from overflowing.
//  5. Params.Sample = 1, top_k > 0: keep l ≥ the k-th largest, ties included.
//  6. Params.Sample = 1, top_p < 1: with p the softmax over what is kept, and
//     the order l descending, then id ascending: keep a token if the mass
//     before it is less than top_p; always at least one.
//  7. Params.Sample = 1, typical_p < 1: with p the softmax over what is kept
//     now and H its entropy, in the order |-ln p - H| ascending, then id
//     ascending: keep a token if the mass before it is less than typical_p;
//     always at least one (Meister et al., Locally Typical Sampling, 2022).
//  8. Greedy: the largest l, on ties the lowest id. Sampling: walk the kept
//     tokens by id, adding exp(l - max l) in float64; the first whose running
//     sum exceeds u times the whole sum is chosen (the last kept one if
//     rounding leaves none).
//  9. The log-probability of a token is its l minus the log of the summed
//     exponentials of the kept, in float64, rounded to float32 at the end. A
//     filtered-out token has none, and top_k = 1 gives 0.
//  10. The n alternatives are the kept tokens in the order l descending, then
//     id ascending; those that tie in l with the n-th follow, up to a cap.
//
// Prompt scores are the log-softmax of the raw logits: steps 2 to 7 are left
// out, 9 and 10 hold.
//
// # The random draw
//
// u is uniform in [0, 1) and depends on nothing but the seed and how many
// tokens the sequence has generated, so neither batching nor preemption
// changes a text: Philox4x32-10 (Salmon et al., Parallel Random Numbers: As
// Easy as 1, 2, 3, 2011) with the key (low, high) half of Params.Seed and the
// counter (index of the token among the generated ones, 0, 0, 0). From its
// words x0, x1, … u = ((x0<<32 | x1) >> 11) * 2^-53.
//
// # Differences from TGI
//
// The order of the steps is TGI's. The frequency penalty is OpenAI's: TGI
// scales the count by the padded width of its batch. The draw differs: TGI
// takes the generator of the device at hand.
package sample
