package sse

import (
	"errors"
	"slices"
	"testing"
)

func TestFeed(t *testing.T) {
	for _, tt := range []struct {
		name, stream string
		want         []string
	}{
		{"one event", "data: a\n\n", []string{"a"}},
		{"no space, and a second one kept", "data:a\n\ndata:  b\n\n", []string{"a", " b"}},
		{"lines of data", "data: a\ndata: b\n\n", []string{"a\nb"}},
		{"carriage returns", "data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n", []string{"a", "b\nc"}},
		{"other fields and comments", ":\n\nevent: x\nid: 1\ndata: a\nretry: 5\n\n: c\n\n", []string{"a"}},
		{"a field with a longer name", "database: a\n\ndata: b\n\n", []string{"b"}},
		{"empty data", "data\n\ndata:\n\ndata\ndata\n\n", []string{"", "", "\n"}},
		{"many blank lines", "\n\ndata: a\n\n\n\ndata: b\n\n", []string{"a", "b"}},
		{"no end", "data: a\n\ndata: b\n", []string{"a"}},
		{"a letter of several bytes", "data: Grüße €\n\n", []string{"Grüße €"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for size := 1; size <= len(tt.stream); size++ {
				var (
					e   Events
					got []string
				)
				for piece := range slices.Chunk([]byte(tt.stream), size) {
					if err := e.Feed(piece, func(data []byte) error { got = append(got, string(data)); return nil }); err != nil {
						t.Fatal(err)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("in pieces of %d: %q, want %q", size, got, tt.want)
				}
			}
		})
	}
}

// An error ends the call after the event that it is about.
func TestFeedWhoseCalleeFails(t *testing.T) {
	var e Events
	stop := errors.New("stop")
	seen := 0
	if err := e.Feed([]byte("data: a\n\ndata: b\n\n"), func([]byte) error { seen++; return stop }); !errors.Is(err, stop) || seen != 1 {
		t.Errorf("%v after %d events", err, seen)
	}
}
