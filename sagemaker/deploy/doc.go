// Package deploy makes SageMaker endpoints out of an image and a model, says
// how they are, calls them and takes them away.
//
// An endpoint has three parts: a model (image, weights, environment, role), an
// endpoint configuration (machines) and the endpoint itself. Models and
// configurations cannot be changed, so they are named after what they hold:
// NAME, a hyphen and a digest of the request. That makes Deploy idempotent:
// what an interrupted run has made is found again by its name, and a change of
// anything gives new names, which an existing endpoint is moved to. A folder's
// files go to a prefix named after their content, for the same reason: what a
// running endpoint reads is never overwritten.
//
// Everything made here carries the tag millrace:endpoint=NAME. Only what has
// it is ever changed or deleted.
//
//	spec.go      what is wanted, checked before anything is asked of AWS
//	instance.go  what is known of instance types
//	request.go   from a Spec to the requests
//	client.go    the services; dryrun.go the one that only takes notes
//	deploy.go    one deployment; wait.go how it goes; failure.go why it failed
//	folder.go    a model's files on this machine; upload.go their way to S3
//	resources.go what belongs to an endpoint
//	status.go, delete.go
//	call.go      a call of an endpoint; answer.go what comes back
//	cause.go     errors of AWS in one line
//
// The versions of three services' packages in go.mod are older than the newest
// on purpose: later ones build tables of every operation when a process starts,
// which for service/sagemaker alone takes 20 to 140 ms and 14 MB, in the server
// too. A test holds them to it.
package deploy
