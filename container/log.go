package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/millrace-ai/millrace/container/config"
)

const (
	logRoom   = 1 << 20                // bytes of lines that may wait to be written
	lastLines = 1 * time.Second        // that the end of the process waits for its last lines
	idleLines = 100 * time.Millisecond // that a function waits for them before it may be frozen
)

// stderr is the way of the server's log to standard error.
var stderr = newLogQueue(os.Stderr, logRoom)

// logQueue writes lines in the background. Whatever reads a log may stall for
// as long as it likes, or be gone: logging never waits for it. Lines without
// room are dropped and counted, and a line says so where they are missing.
type logQueue struct {
	out  io.Writer
	room int
	wake chan struct{}

	mu      sync.Mutex
	waiting []byte        // whole lines
	lines   int           // in waiting
	lost    int           // lines dropped since a line has told of them
	dropped int64         // lines dropped in all
	written chan struct{} // closed when the batch now being written, or else the next, is done
	writing bool
	notice  func(lost int) []byte // the line that tells of lost ones
}

func newLogQueue(out io.Writer, room int) *logQueue {
	q := &logQueue{out: out, room: room, wake: make(chan struct{}, 1), written: make(chan struct{}), notice: plainNotice}
	go q.drain()
	return q
}

func plainNotice(lost int) []byte {
	return fmt.Appendf(nil, "millrace: %d lines of the log were dropped, because nothing read them\n", lost)
}

// Write takes one line, or drops it. It never waits and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	if len(q.waiting)+len(line) > q.room {
		q.lost++
		q.dropped++
	} else {
		q.waiting = append(q.waiting, line...)
		q.lines++
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default: // drain knows already
	}
	return len(line), nil
}

// drain writes what waits, in batches, as long as the process lives.
func (q *logQueue) drain() {
	var spare []byte
	for range q.wake {
		q.mu.Lock()
		for q.lines > 0 {
			batch, lines, lost := q.waiting, q.lines, q.lost
			if lost > 0 { // only once the queue was full: they are missing after its last line
				batch = append(batch, q.notice(lost)...)
			}
			q.waiting, q.lines, q.lost, q.writing = spare[:0], 0, 0, true
			q.mu.Unlock()
			n, err := q.out.Write(batch)
			q.mu.Lock()
			if err != nil { // the reader is gone, or the disk is full
				unwritten := lines - min(lines, bytes.Count(batch[:n], []byte("\n")))
				q.dropped += int64(unwritten)
				q.lost += lost + unwritten
			}
			spare, q.writing = batch, false
			close(q.written)
			q.written = make(chan struct{})
		}
		q.mu.Unlock()
	}
}

// flush waits until the lines logged so far are written, but no longer than
// patience.
func (q *logQueue) flush(patience time.Duration) {
	late := time.After(patience)
	for range 2 { // the batch being written, and what waits for it
		q.mu.Lock()
		written, idle := q.written, q.lines == 0 && !q.writing
		q.mu.Unlock()
		if idle {
			return
		}
		select {
		case <-written:
		case <-late:
			return
		}
	}
}

// Dropped returns how many lines have been dropped so far.
func (q *logQueue) Dropped() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// say writes a last word, which has room even if the queue has none.
func say(line string) {
	stderr.mu.Lock()
	stderr.room += len(line)
	stderr.mu.Unlock()
	fmt.Fprint(stderr, line)
	stderr.flush(lastLines)
}

// exit ends the process once its last lines are written.
func exit(status int) {
	stderr.flush(lastLines)
	os.Exit(status)
}

// newLogger logs to standard error: short lines for people on a terminal,
// whole ones as text, or one JSON object a line, whose time, level and message
// are called as in TGI's.
func newLogger(cfg *config.Serve) *slog.Logger {
	level, _ := cfg.Level() // config has checked it
	people := isTerminal(os.Stderr)
	to := func(w io.Writer) *slog.Logger {
		switch {
		case cfg.JSONOutput:
			return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: nameAsTGI}))
		case people:
			opts := &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !colours()}
			if level > slog.LevelDebug {
				opts.ReplaceAttr = shorten
			}
			return slog.New(tint.NewTextHandler(w, opts))
		}
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	}
	stderr.mu.Lock()
	defer stderr.mu.Unlock()
	stderr.notice = func(lost int) []byte {
		var line bytes.Buffer
		to(&line).Error("lines of the log were dropped, because nothing read them", "lines", lost)
		return line.Bytes()
	}
	return to(stderr)
}

// colours reports whether a terminal may be written to in colour; see
// no-color.org.
func colours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// forPrograms are fields that people miss only while they debug.
var forPrograms = map[string]bool{
	"request_id": true, "trace_id": true, "stream": true, "cached_tokens": true, "preempted": true,
	"address": true, "source": true, "bytes": true, "gb_per_second": true, "detail": true, "request_memory": true,
	"autoscaling_target": true, "kv_tokens": true, "max_input_tokens": true,
}

// shorten leaves out what makes a line longer than a terminal is wide.
func shorten(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 || forPrograms[a.Key] {
		return slog.Attr{}
	}
	return a
}

func nameAsTGI(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		a.Key = "timestamp"
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

// logSettings logs settings, secrets hidden.
func logSettings(log *slog.Logger, what string, settings []config.Setting) {
	attrs := make([]any, 0, len(settings))
	for _, s := range settings {
		attrs = append(attrs, slog.String(s.Flag, s.Value))
	}
	log.Info(what, attrs...)
}

// isTerminal reports whether people read f, or write it.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
