package main

import (
	"context"
	"io"
	"testing"
)

func TestInterruptible(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	typed, silent := func() (string, error) { return "yes", nil }, func() (string, error) {
		cancel()
		select {} // a terminal at which nobody types
	}
	if text, err := interruptible(ctx, typed); text != "yes" || err != nil {
		t.Errorf("%q, %v; want what was typed", text, err)
	}
	if text, err := interruptible(ctx, func() (string, error) { return "", io.EOF }); text != "" || err != io.EOF {
		t.Errorf("%q, %v; want the error of the read", text, err)
	}
	if text, err := interruptible(ctx, silent); text != "" || err == nil {
		t.Errorf("%q, %v; want the interruption", text, err)
	}
}
