// Package thread runs work on operating system threads of its own.
package thread
