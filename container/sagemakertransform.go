package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/sagemaker/local"
)

// sageMakerTransform is the command that runs a batch transform job on this
// machine.
type sageMakerTransform struct {
	Input  string   `arg:"" type:"path" help:"A file of requests, or a folder with all below it."`
	Output string   `arg:"" type:"path" help:"A folder for the answers: NAME.out for each file NAME."`
	Args   []string `arg:"" optional:"" placeholder:"ARGS" help:"After --: flags of serve for the containers."`

	Image       string   `placeholder:"IMAGE" help:"Run this image by docker as SageMaker does. Default: this program, as a child process."`
	Model       string   `placeholder:"FOLDER" help:"Model: a folder, mounted read-only at /opt/ml/model with --image, or s3://BUCKET/PREFIX."`
	Instances   int      `default:"1" help:"Containers to start."`
	Env         []string `env:"-" sep:"none" placeholder:"K=V" help:"Variable for the containers; may be given several times."`
	NetworkNone bool     `help:"Network isolation: no way out of the containers (--image), no AWS credentials in them."`
	Memory      string   `placeholder:"8g" help:"Memory of a container, with --image."`
	CPUs        string   `name:"cpus" placeholder:"4" help:"CPUs of a container, with --image."`

	SplitType     string        `enum:"None,Line" default:"Line" help:"Whether a file is a record, or each of its lines: ${enum}."`
	AssembleWith  string        `enum:"None,Line" default:"Line" help:"What follows each answer: ${enum}."`
	BatchStrategy string        `enum:",SingleRecord,MultiRecord" default:"" placeholder:"SingleRecord" help:"Whether a call has one record or as many as it takes: SingleRecord,MultiRecord. Default: the container's."`
	MaxPayload    int           `placeholder:"MB" help:"Most of a call, 1 to 100. Default: the container's."`
	MaxConcurrent int           `placeholder:"N" help:"Calls at once for each instance; times --max-payload at most 100. Default: the container's."`
	ContentType   string        `default:"application/json" help:"Of the records."`
	Accept        string        `placeholder:"TYPE" help:"Of the answers."`
	CallTimeout   time.Duration `default:"10m" help:"A call must be answered: 1s to 1h."`
	Retries       int           `default:"3" help:"Of a call that fails for another reason than its body: 0 to 3."`

	StartupTimeout time.Duration `default:"8m" help:"A container must be healthy."`
}

// Run runs the job.
func (c *sageMakerTransform) Run(ctx context.Context) error {
	variables := []string{"SAGEMAKER_BATCH=true"}
	for name, value := range map[string]int{"SAGEMAKER_MAX_PAYLOAD_IN_MB": c.MaxPayload, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": c.MaxConcurrent} {
		if value != 0 {
			variables = append(variables, fmt.Sprintf("%s=%d", name, value))
		}
	}
	endpoint := sageMakerLocal{
		Image: c.Image, Args: c.Args, Model: c.Model, Instances: c.Instances, Env: append(variables, c.Env...),
		NetworkNone: c.NetworkNone, Memory: c.Memory, CPUs: c.CPUs,
		UnaryTimeout: local.DefaultLimits.Unary, StreamTimeout: local.DefaultLimits.Stream, StartupTimeout: c.StartupTimeout,
	}
	if _, err := os.Stat(c.Input); err != nil {
		return usageError{fmt.Errorf("sagemaker transform: %w", err)}
	}
	cfg, closeLauncher, err := endpoint.config(ctx)
	if err != nil {
		return err
	}
	defer closeLauncher()
	job := &local.Transform{
		Input: c.Input, Output: c.Output, ContentType: c.ContentType, Accept: c.Accept,
		Split: c.SplitType == "Line", Assemble: c.AssembleWith == "Line", Strategy: local.Strategy(c.BatchStrategy),
		MaxPayloadMB: c.MaxPayload, MaxConcurrent: c.MaxConcurrent, Timeout: c.CallTimeout, Retries: c.Retries,
	}
	if err := job.Check(); err != nil {
		return usageError{fmt.Errorf("sagemaker transform: %w", err)}
	}
	result, err := job.Run(ctx, cfg)
	if err != nil {
		return fmt.Errorf("sagemaker transform: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(result.Failed)) {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, result.Failed[name])
	}
	fmt.Printf("%d files transformed by %d calls (%s)\n", result.Files, result.Calls, result.Settings)
	switch {
	case len(result.Failed) > 0:
		return fmt.Errorf("sagemaker transform: Failed: %d files have no output", len(result.Failed))
	case !result.Summary.Clean():
		return errors.New("sagemaker transform: not every instance ended in order")
	}
	return nil
}
