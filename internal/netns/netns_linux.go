package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to address, which has an IP address and no name, in the network
// namespace that a file stands for: /proc/PID/ns/net is that of a process. It
// needs root's rights.
//
// A socket belongs to the namespace of the thread that makes it, so one thread
// goes there and back; an address without a name is dialled by the thread that
// asks.
func Dial(ctx context.Context, namespace, network, address string) (net.Conn, error) {
	there, err := os.Open(namespace)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
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
		return nil, fmt.Errorf("enter the network namespace %s: %w", namespace, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if unix.Setns(int(here.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread() // otherwise the thread ends with its goroutine
	}
	return conn, err
}
