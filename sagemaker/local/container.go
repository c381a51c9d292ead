package local

import (
	"context"
	"net"
)

// A Launcher starts containers.
type Launcher interface {
	// Launch starts the container of an instance, numbered from 1. It need not
	// listen yet when Launch returns. ctx bounds the call, not the container.
	Launch(ctx context.Context, instance int) (Container, error)
}

// A Container is a model server that a Launcher has started. Its methods may
// be called at the same time and after it has ended.
type Container interface {
	// Address is its HTTP port, host:port, and Dial a new connection to it.
	Address() string
	Dial(ctx context.Context) (net.Conn, error)
	// Terminate asks it to end (SIGTERM), Kill ends it (SIGKILL). Neither waits
	// until it has.
	Terminate()
	Kill()
	// Exited is closed once it has ended. It is nil for a server that was not
	// started here: Terminate and Kill do nothing to that.
	Exited() <-chan struct{}
	// ExitStatus is its exit status once it has ended, 128 + the number of a
	// signal that ended it.
	ExitStatus() int
}

// Servers launches nothing: the instances are servers that run already, one
// per address, which must be as many as instances.
type Servers []string

// Launch returns the server of that number.
func (s Servers) Launch(_ context.Context, instance int) (Container, error) {
	return server{port(s[instance-1])}, nil
}

type server struct{ port }

func (server) Terminate()              {}
func (server) Kill()                   {}
func (server) Exited() <-chan struct{} { return nil }
func (server) ExitStatus() int         { return 0 }

// port is an HTTP port that this process can reach, host:port.
type port string

func (p port) Address() string { return string(p) }

func (p port) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(p))
}
