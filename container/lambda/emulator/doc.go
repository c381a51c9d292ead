// Package emulator emulates Lambda for one function. It offers the Runtime API to
// a process or a docker image, and to clients the invoke APIs and a function URL,
// so that boto3, aws-sdk-go-v2 and curl reach the function as they would in AWS.
//
// It enforces Lambda's limits: the time of an initialization, after which it is
// repeated within the event; the time of an event, after which the process is
// killed; the size of events and answers; the error types that it keeps; and one event at a time. Between events
// the process is frozen. Where Lambda would start another environment for an
// event that comes while one runs, the event waits.
//
// An Emulator has at most one environment: a sandbox with the server of its
// Runtime API. When one has failed, the next event gets a new one.
package emulator
