package main

import "runtime/debug"

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
