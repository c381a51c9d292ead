// Package emulator is Lambda on this machine, for one function: the Runtime
// API in front of a process or a docker image, and behind it the invoke APIs
// and a function URL, so that boto3, aws-sdk-go-v2 and curl reach the function
// as they would in AWS.
//
// It enforces what Lambda does: the time of an initialization, after which it
// is begun anew inside the event, the time of an event, after which the
// process is killed, the size of events and answers, one event at a time, and
// that a process between events is frozen. Where Lambda would start another
// environment for an event that comes meanwhile, the event waits here.
//
// An Emulator has at most one environment: a sandbox with the server of its
// Runtime API. One environment is replaced by the next when it has failed.
package emulator
