package main

// sageMaker are the commands about SageMaker endpoints. Each has a method Run,
// which main calls with a context that a signal ends.
type sageMaker struct {
	Local sageMakerLocal `cmd:"" help:"Try an endpoint on this machine: the runtime API of SageMaker in front of containers."`
}
