// Package bench puts load on a server that speaks TGI's or OpenAI's API and
// measures what a client sees: time to the first token, between tokens and to
// the end of each request, tokens and requests per second, errors by kind.
//
// Closed loop (Concurrency): as many clients as told, each sends its next
// request when its last one has ended. It finds the throughput.
// Open loop (Rate): requests start at the times of a Poisson process, whether
// earlier ones have ended or not. It finds the latency under a given demand,
// which a closed loop flatters by waiting for slow answers.
//
// A run with the same Seed sends the same prompts and lengths in the same
// order.
//
// The client must not be what is measured: it looks at the bytes of an event
// without decoding them, stamps the time once per read from the socket, and
// keeps latencies in histograms. Tokens that arrive in one read count as
// arriving together, with a gap of zero between them.
package bench
