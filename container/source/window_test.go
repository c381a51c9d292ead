package source

import "testing"

func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		name     string
		perConn  float64 // MB/s of one connection
		link     float64 // MB/s of all
		most     int
		from, to int // where the limit is to end up
	}{
		{name: "a link for forty", perConn: 90, link: 3600, most: 96, from: 36, to: 66},
		{name: "as many as allowed", perConn: 90, link: 1e6, most: 64, from: 58, to: 64},
		{name: "one core is the limit", perConn: 500, link: 1000, most: 96, from: 8, to: 12},
		{name: "no room", perConn: 90, link: 3600, most: 8, from: 8, to: 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := window{limit: min(8, tt.most), most: tt.most}
			for range 60 {
				if n := c.next(min(tt.link, float64(c.limit)*tt.perConn), false); n < fewest || n > tt.most {
					t.Fatalf("limit %d of %d", n, tt.most)
				}
			}
			if c.limit < tt.from || c.limit > tt.to {
				t.Errorf("limit %d, want %d to %d", c.limit, tt.from, tt.to)
			}
		})
	}
}

func TestWindowHalvesWhenThrottled(t *testing.T) {
	c := window{limit: 16, most: 32}
	for _, want := range []int{8, 4, 2, 2} {
		if got := c.next(1000, true); got != want {
			t.Errorf("limit %d after being throttled, want %d", got, want)
		}
	}
}
