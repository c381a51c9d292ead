// Package sample defines how a token is chosen from logits, and is the
// reference for it: backends that sample on the device are compared with it.
//
// # The definition
//
// Given the raw logits l of one row, float32, one per token id, and an Input: a
// sequence's Params, Biases and the Counts of what it has seen, the row's mask
// and the token that the row belongs to. Steps 3 to 7 round every product,
// quotient, sum and difference to float32, none fused.
//
//  1. If any l is NaN or +Inf, or all are -Inf, the row is invalid. A single
//     -Inf is fine: that token cannot be chosen.
//  2. Mask: l = -Inf for each id whose bit, id%32 of word id/32, is 0 or lies
//     beyond the mask. If nothing finite is left, the row is invalid.
//  3. Logit biases, one after the other, for the id of each: l += bias.
//  4. Params.Watermark = 1, for each id with Green(previous token, id):
//     l += WatermarkDelta.
//  5. Repetition penalty r ≠ 1, for each id of the prompt or generated so far:
//     l = l*r if l < 0, else l/r.
//  6. Frequency penalty f ≠ 0, for each id generated n > 0 times: l -= f*n.
//  7. Presence penalty p ≠ 0, for each id generated at least once: l -= p.
//     After 5 to 7 a +Inf, which only an overflow can make, is the largest
//     float32.
//  8. Params.Sample = 1, temperature t ≠ 1: l = (l - max l)/t. The shift
//     changes no probability and keeps a tiny t from overflowing.
//  9. Params.Sample = 1, top_k > 0: keep l ≥ the k-th largest, ties included.
//  10. Params.Sample = 1, top_p < 1: with p the softmax over what is kept, and
//     the order l descending, then id ascending: keep a token if the mass
//     before it is less than top_p; always at least one.
//  11. Params.Sample = 1, typical_p < 1: with p the softmax over what is kept
//     now and H its entropy, in the order |-ln p - H| ascending, then id
//     ascending: keep a token if the mass before it is less than typical_p;
//     always at least one (Meister et al., Locally Typical Sampling, 2022).
//  12. Params.Sample = 1, min_p > 0: keep a token if exp(l - max l) is at least
//     min_p, with the largest l that is kept now (Nguyen et al., Turning Up the
//     Heat: Min-p Sampling, 2024).
//  13. Greedy: the largest l, on ties the lowest id. Sampling: walk the kept
//     tokens by id, adding exp(l - max l) in float64; the first whose running
//     sum exceeds u times the whole sum is chosen (the last kept one if
//     rounding leaves none).
//  14. The log-probability of a token is its l minus the log of the summed
//     exponentials of the kept, in float64, rounded to float32 at the end. A
//     filtered-out token has none, and a token alone, by top_k = 1 or a mask,
//     has 0.
//  15. The n alternatives are the kept tokens in the order l descending, then
//     id ascending; those that tie in l with the n-th follow, up to a cap.
//
// Prompt scores are the log-softmax of the raw logits: steps 2 to 12 are left
// out, 14 and 15 hold.
//
// # The watermark
//
// Kirchenbauer et al., A Watermark for Large Language Models, 2023, with the
// soft rule: each token splits the vocabulary in two by a hash, and the green
// part is favoured by a fixed amount. Text of a length T that was written
// without it has about WatermarkGamma*T tokens that are green after their
// predecessor, text written with it many more; (green - γT) / sqrt(Tγ(1-γ))
// above 4 tells the second kind. The split is public: it marks honest text.
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
// The order of the steps is TGI's, but that it masks after the penalties, which
// gives the same result: no step raises -Inf. The frequency and presence penalties
// are OpenAI's: TGI scales the count by the padded width of its batch, and takes
// presence for repetition. So are logit biases, which TGI ignores; they change
// the logits that the model gave, so come first. The draw and the watermark's
// split differ: TGI takes both from the generator of the device at hand.
package sample
