// Package abi is millrace.h, the seam between the engine and its backends in C.
//
// A package whose C code includes the header imports this one: go build watches
// the archives of a package's imports, not the headers in other folders.
package abi

import _ "embed"

// header is in the archive, so that the archive changes with it.
//
//go:embed millrace.h
var header string

var _ = header
