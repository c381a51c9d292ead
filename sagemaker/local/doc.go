// Package local emulates the SageMaker runtime API in front of model
// containers on this machine, so that real AWS clients meet them as they would
// on SageMaker: boto3, the AWS CLI and aws-sdk-go-v2 need only another
// endpoint URL.
//
// An Endpoint is one endpoint with one production variant of several
// instances. Each instance is a container that a Launcher starts: a child
// process, a docker container, or a server that already runs somewhere. The
// Endpoint polls /ping, takes an instance out of service that does not answer
// and replaces it, routes each call by the variant's strategy (Routing), and
// stops all with SIGTERM and, 30 seconds later, SIGKILL.
//
// The Endpoint is the runtime API (endpoint.go, call.go, invoke.go, stream.go,
// async.go, openai.go); its fleet has the instances and picks one for each call
// (fleet.go, instance.go, routing.go).
//
// Between caller and container it does what the platform does, so that what
// works on a laptop and fails on SageMaker fails here too:
//
//   - only the documented headers pass, in both directions (call.go, invoke.go);
//   - a body over 25 MB, an answer after 60 s, a stream over 8 min end as they
//     do there (Limits);
//   - a status other than 2xx becomes 424 ModelError, a stream that breaks off
//     becomes ModelStreamError inside the event stream (fault.go, stream.go);
//   - the parts of a stream do not line up with what the container wrote
//     (cutter.go).
//
// This package stands for the platform, and package sagemaker is inside of the
// container: neither imports the other.
//
// A Transform is a batch transform job, which has a fleet of its own and no
// runtime API (transform.go).
//
// Signatures are not checked and the control plane is not emulated. Where
// AWS documents no rule the comments say what is assumed.
//
// Run owns the instances: it starts them and returns once all have ended. The
// handler may be served before Run and must be served until it has returned,
// because running calls end while the containers stop.
package local
