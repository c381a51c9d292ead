package main

// sageMaker are the commands about SageMaker endpoints. Each has a method Run,
// which main calls with a context that a signal ends.
type sageMaker struct {
	Deploy    sageMakerDeploy    `cmd:"" help:"Make an endpoint of an image and a model, or update it."`
	Invoke    sageMakerInvoke    `cmd:"" help:"Call an endpoint and print the text."`
	Status    sageMakerStatus    `cmd:"" help:"Show an endpoint: machines, model, traffic, log."`
	Delete    sageMakerDelete    `cmd:"" help:"Delete an endpoint and what was deployed for it; files in S3 stay."`
	Transform sageMakerTransform `cmd:"" help:"Run a batch transform job on this machine: files of requests through containers."`
	Local     sageMakerLocal     `cmd:"" help:"Try an endpoint on this machine: the runtime API of SageMaker in front of containers."`
}
