// Package abi is millrace.h, the seam between the engine and its backends in C, and
// what backends in C++ share of its other side.
//
// A package whose C code includes these headers imports this one: go build watches
// the archives of a package's imports, not the headers in other folders.
package abi

import "embed"

// headers are in the archive, so that the archive changes with them.
//
//go:embed *.h
var headers embed.FS

var _ = headers
