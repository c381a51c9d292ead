// Package netns reaches into the networks of containers that have none to the
// outside.
package netns
