//go:build !linux

package thread

// Nice runs f and returns what f returns: here the priority of a single thread
// cannot be lowered.
func Nice(_ int, f func() error) error { return f() }
