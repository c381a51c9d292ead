// Package deploy creates SageMaker endpoints from an image and a model, shows their
// status, calls them and deletes them.
//
// An endpoint has three parts: a model (image, weights, environment, role), an
// endpoint configuration (machines) and the endpoint itself. Models and
// configurations cannot be changed, so they are named after what they hold:
// NAME, a hyphen and a digest of the request. That makes Deploy idempotent:
// what an interrupted run has created is found again by its name, and any change
// gives new names, to which an existing endpoint is updated. A folder's
// files go to a prefix named after their content, for the same reason: what a
// running endpoint reads is never overwritten.
//
// This is the client's side of the platform: the package imports nothing of package
// sagemaker, which is inside of the container. What it shares with deployments to
// Lambda is in internal/account and internal/call.
//
// Everything made here carries the tag millrace:endpoint=NAME. Only what has
// it is ever changed or deleted.
//
//	spec.go      what is wanted, checked before AWS is asked
//	instance.go  what is known of instance types
//	request.go   from a Spec to the requests
//	client.go    the services
//	deploy.go    one deployment; wait.go its progress; failure.go why it failed
//	folder.go    a model's files on this machine; upload.go their way to S3
//	resources.go what belongs to an endpoint
//	status.go, delete.go
//	call.go      a call of an endpoint
//	cause.go     errors of SageMaker in one line
//
// The versions of four services' packages in go.mod are older than the newest
// on purpose, service/lambda's among them: later ones build tables of every operation when a process starts,
// which for service/sagemaker alone takes 20 to 140 ms and 14 MB, in the server
// too. A test holds them to it.
package deploy
