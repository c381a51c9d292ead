// Package deploy creates Lambda functions from an image and a model, calls them
// and deletes them.
//
// Callers use the alias live, never the function as it is last configured. Each
// deployment changes that, publishes a version of it, waits until the version can
// be called (with SnapStart: until its snapshot is taken), and only then moves
// the alias. So a version that does not start serves nobody, and what served
// before goes on. Versions that the alias has left are deleted: the snapshots of
// versions are billed.
//
// Lambda publishes nothing if nothing has changed, which makes Deploy
// idempotent: called again, it goes on where an interrupted run stopped.
//
// Everything made here carries the tag millrace:function=NAME. Only what has it is
// ever changed or deleted.
//
//	spec.go      what is wanted, checked before AWS is asked; policy.go its role
//	deploy.go    one deployment; url.go the function's URL
//	delete.go
//	invoke.go    a call of a function
//	cause.go     errors of Lambda in one line
//
// The version of service/lambda in go.mod is older than the newest on purpose:
// see sagemaker/deploy.
package deploy
