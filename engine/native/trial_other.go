//go:build !linux

package native

import (
	"context"
	"errors"
)

// A TrialProcess is for Linux: see trial_linux.go.
type TrialProcess struct{}

// StartTrials fails.
func StartTrials([][]byte, []int32) (*TrialProcess, error) {
	return nil, errors.New("trials of grammars need Linux")
}

// A Trial is for Linux.
type Trial struct{}

// NewTrial fails.
func (*TrialProcess) NewTrial() (*Trial, error) { return nil, errors.New("trials need Linux") }

// Pid returns 0.
func (*TrialProcess) Pid() int { return 0 }

// Close does nothing.
func (*TrialProcess) Close() {}

// Ready fails.
func (*Trial) Ready(context.Context) error { return errors.New("trials need Linux") }

// Start fails.
func (*Trial) Start(string, string, TrialLimits) error { return errors.New("trials need Linux") }

// Result fails.
func (*Trial) Result(context.Context) (TrialResult, error) {
	return TrialResult{}, errors.New("trials need Linux")
}

// Close does nothing.
func (*Trial) Close() {}
