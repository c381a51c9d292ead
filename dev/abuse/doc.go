// Package abuse finds out what hostile clients do to a server and to its good
// clients. It serves tests and `make soak`.
//
// Good clients keep the server under full load with a deck of requests that
// covers the routes, each of which always has the same answer. Before all else
// the deck is answered alone, one request after the other; every answer under
// load, and all of them once more at the end, must have the same text.
//
// Time is divided into phases. In every other one hostile clients attack, with
// what has hurt servers: huge bodies, schemas and patterns that take long to
// compile, floods, connections that neither send nor read, clients that leave.
// So latencies with and without them are of the same minutes. What takes place
// just after a change of phase belongs to neither.
//
// A run fails if a good request fails or has another text, if a hostile one
// gets a status of 5xx or no answer, or if goroutines, descriptors or pages of
// the cache are not given back. Latencies and memory are reported, since what is
// good enough depends on the machine.
package abuse
