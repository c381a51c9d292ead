package local

import (
	"fmt"
	"strings"
	"time"
)

// Ending counts how the requests ended that an instance was working on when it
// was told to stop, or that came to it while it stopped.
type Ending struct {
	Complete int // answered whole
	Broken   int // cut off: the container ended first
	Given    int // up: the caller left, or the time was over
}

// Stopped is how an instance ended.
type Stopped struct {
	Instance   int
	ExitStatus int
	Killed     bool // SIGTERM was not enough
	Took       time.Duration
	InFlight   int // requests at SIGTERM
	Ending     Ending
}

func (s *Stopped) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exit status %d after %.1f s", s.ExitStatus, s.Took.Seconds())
	if s.Killed {
		b.WriteString(", killed")
	}
	fmt.Fprintf(&b, "; %d requests in flight at SIGTERM: %d answered whole, %d broken, %d given up",
		s.InFlight, s.Ending.Complete, s.Ending.Broken, s.Ending.Given)
	return b.String()
}

// Clean reports whether the instance ended as SageMaker asks: by itself, with
// status 0, and without cutting an answer off.
func (s *Stopped) Clean() bool {
	return !s.Killed && s.ExitStatus == 0 && s.Ending.Broken == 0
}

// Summary is what happened at an endpoint.
type Summary struct {
	Instances []Stopped // all that were ever stopped, in the order they ended
}

// Clean reports whether all instances ended so.
func (s *Summary) Clean() bool {
	for i := range s.Instances {
		if !s.Instances[i].Clean() {
			return false
		}
	}
	return true
}

func (fl *fleet) summary() *Summary {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return &Summary{Instances: fl.stopped}
}
