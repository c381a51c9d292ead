//go:build !linux

package netns

import (
	"context"
	"errors"
	"net"
)

// Dial fails: only Linux has network namespaces.
func Dial(context.Context, string, string, string) (net.Conn, error) {
	return nil, errors.New("only Linux has network namespaces")
}
