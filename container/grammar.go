package main

import (
	"errors"
	"sync"

	"github.com/millrace-ai/millrace/engine/grammar"
)

// lazyCompiler is the one compiler of grammars. It is made when it is first
// asked for: that takes up to half a second, and many servers never need it.
type lazyCompiler struct {
	make func() (*grammar.Compiler, error)

	mu       sync.Mutex
	made     bool
	compiler *grammar.Compiler
	err      error
}

// get returns the compiler, after close an error.
func (l *lazyCompiler) get() (*grammar.Compiler, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made {
		l.made = true
		l.compiler, l.err = l.make()
	}
	return l.compiler, l.err
}

// warnUntried says that grammars cannot be tried before they are compiled.
func (s *server) warnUntried(err error) {
	s.log.Warn("large grammars are refused, and one that takes long cannot be stopped", "err", err)
}

// close gives the compiler's memory back once the last grammar is closed. No
// grammar may be compiling.
func (l *lazyCompiler) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.compiler != nil {
		l.compiler.Close()
	}
	l.made, l.compiler, l.err = true, nil, errors.New("the server is shutting down")
}
