package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/engine/cpu"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "0.0.0-dev"

// dockerLabel is the image's tag, set by the image's build as version is; ""
// outside of images.
var dockerLabel string

// commit is set by the image's build, which does not see the repository.
var commit string

// revision is the commit the binary was built from, "" if unknown.
func revision() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// versionLine is what --version prints.
func versionLine() string { return strings.TrimSpace("millrace " + version + " " + revision()) }

// versionFlag prints the version and ends the program.
type versionFlag bool

// BeforeReset prints the version before anything else about the command line
// can be wrong.
func (versionFlag) BeforeReset(ctx *kong.Context) error {
	fmt.Fprintln(ctx.Stdout, versionLine())
	ctx.Kong.Exit(0)
	return nil
}

// versionCommand is --version with what a report of a fault should say.
type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(ctx *kong.Context) error {
	fmt.Fprintln(ctx.Stdout, versionLine())
	fmt.Fprintf(ctx.Stdout, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	caps, err := cpu.Probe()
	if err != nil {
		return err
	}
	fmt.Fprintf(ctx.Stdout, "%s: %s, %d threads\n", caps.Name, caps.Detail, caps.Threads)
	return nil
}
