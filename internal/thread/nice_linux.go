package thread

import (
	"runtime"
	"syscall"
)

// Nice runs f on a thread that gives way to the others of this process by so
// much (see nice(2)), and returns what f returns; a panic of f is one of the
// caller. The thread ends with f, since only a privileged process may raise a
// priority again; one that cannot be lowered does no harm.
func Nice(by int, f func() error) (err error) {
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		runtime.LockOSThread()                                          // and never unlocked, so the thread ends with its goroutine
		syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), by) //nolint:errcheck // see above
		err = f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}
