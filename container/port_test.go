package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestServerLog shows failing accepts, a few of many, and leaves port scanners
// to the debug level.
func TestServerLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		for range 2 {
			for range 50 {
				fmt.Fprintln(l, "http: Accept error: accept tcp [::]:8080: accept4: too many open files; retrying in 5ms")
				fmt.Fprintln(l, "http: TLS handshake error from 10.0.0.1:1: EOF")
			}
			time.Sleep(betweenWarnings)
		}
		got := out.String()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "too many open files") || !strings.Contains(got, "lines_left_out=49") {
			t.Errorf("logged:\n%s", got)
		}
	})
}
