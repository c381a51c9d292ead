// Package sagemaker is the hosting contract of Amazon SageMaker around the
// API: what the platform sends to a container, and what it understands of the
// answers.
//
// A request comes in through Hosting. What the platform asks of a container
// itself is answered here (execution parameters, sessions, the routes of
// multi-model endpoints and of adapters); everything that generates text goes
// on to the API, which sees an ordinary request. On the way in a request gets
// its deadline and its true route, a body of several lines becomes several
// requests, and a message of a WebSocket becomes one; on the way out events may
// become lines, and the usage a header.
//
//	hosting.go     which request goes where
//	invocation.go  one POST of /invocations, up to the API
//	attributes.go  the custom attributes: the route, the usage
//	session.go     stateful sessions
//	batch.go       bodies of several lines
//	events.go      server-sent events, each as a line
//	answer.go      what the API answers to a request made here
//	duplex.go      the WebSocket; socket.go one of its connections
//	registry.go    models to be loaded at run time, which are refused
//	adapters.go    adapters to be loaded at run time
//
// Not here: the deadlines themselves, the log, the API key (handler), the port
// and the drain (container), the client's side of the platform (its own
// packages below this one).
package sagemaker
