package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// reportFaults makes sure that the process neither ends without a word nor for
// the sake of its words.
//
// What goes wrong on a goroutine, or in C that it calls, Go reports itself. On
// a thread that C++ or Rust has made, Go would end the process silently, unless
// somebody asks for the signal. Such a thread repeats its fault until exit.
// SIGABRT is not asked for: whoever aborts has said why, and from C that a
// goroutine calls Go reports it.
func reportFaults() {
	// Asked for, SIGPIPE does not end the process when nothing reads its log.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	faults := make(chan os.Signal, 1)
	signal.Notify(faults, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE)
	go func() {
		sig := <-faults
		text := "a fault of this program or of the machine's memory; please report it with what is in the log above"
		if sig == syscall.SIGBUS {
			text = "a file of weights was shortened or could not be read while it was served, or " + text
		}
		say(fmt.Sprintf("millrace: %s (%s) on a native thread: %s\n", signalName(sig), sig, text))
		exit(1)
	}()
}

func signalName(sig os.Signal) string {
	switch sig {
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGBUS:
		return "SIGBUS"
	case syscall.SIGILL:
		return "SIGILL"
	}
	return "SIGFPE"
}
