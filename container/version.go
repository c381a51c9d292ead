package main

import "runtime/debug"

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

// revision is the commit the binary was built from, "" if unknown.
func revision() string {
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
