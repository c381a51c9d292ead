package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialInside connects to at in a network namespace, which is a file. A socket
// belongs to the namespace of the thread that makes it, so one thread goes
// there and back.
func dialInside(ctx context.Context, namespace string, at port) (net.Conn, error) {
	there, err := os.Open(namespace)
	if err != nil {
		return nil, fmt.Errorf("the container's network namespace cannot be opened: %w", err)
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer here.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the container's network namespace: %w", err)
	}
	conn, err := at.Dial(ctx) // an IP address: dialled by this goroutine itself
	if unix.Setns(int(here.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // otherwise the thread ends with the goroutine
	}
	return conn, err
}
