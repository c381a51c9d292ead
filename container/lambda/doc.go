// Package lambda serves an http.Handler as a Lambda function.
//
// A Runtime speaks the Lambda Runtime API (2018-06-01): it asks for an event,
// makes the event an http.Request, and posts the handler's answer in the form
// that the event's source expects. The types of events and answers are those of
// aws-lambda-go; the loop is our own, on net/http, because a served model needs
// what that module's loop does not have: events of all sources in one function,
// buffered and streamed answers side by side, the first event accepted while
// the weights still load, an initialization error reported, and several loops
// at once.
//
// Who waits for what: Serve asks for the first event once the model is ready
// or, at the latest, shortly before the platform gives up on the
// initialization. An event that comes before the model waits for it within its
// own time. A process is frozen from the moment its answer is taken until the
// next event, so everything that belongs to an answer is done before the loop
// asks again.
//
// With SnapStart the process is copied once it is ready, and each copy answers
// events. The copies share all memory, so what must differ between them is asked of
// the kernel when it is needed.
//
// Forms of answers. An answer in one piece is a JSON object with status,
// headers and body; one that is streamed begins with status and headers as
// JSON and eight zero bytes. An event that is not HTTP, a direct
// invocation, is itself a body for /invocations and gets the bare answer. An event does
// not tell whether its function URL streams; Mode says what to assume.
//
// Subpackage emulator is the other side of the same API, for trying a function
// locally.
package lambda
