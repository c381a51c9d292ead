package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// TrialLimits bound what a trial may cost.
type TrialLimits struct {
	Matcher        MatcherLimits
	Nice, SlowNice int           // before and after it is slow
	Quick          time.Duration // of processor time: then it is slow
	CPU            time.Duration // of processor time
	Wall           time.Duration
	Memory         int // bytes
	Steps          int // tokens of one text of the grammar that are tried after the first mask
}

// TrialStatus is how a trial ended.
type TrialStatus uint64

// The ends of a trial.
const (
	TrialOK      TrialStatus = iota
	TrialRefused             // the library does not compile it: Message has its words
	TrialNoMask              // the first mask fails
	TrialNoWalk              // the first mask does not fail, a later one does
	TrialLate                // it takes more processor time than it may
	TrialBusy                // it did not get that much processor time
	TrialSlow                // it has not ended: it goes on as a slow one
	TrialDied                // the process ended without an answer: out of memory or by a fault
)

// TrialResult is what a trial has to say.
type TrialResult struct {
	Status     TrialStatus
	CPU        time.Duration // that the compilation and its first mask took
	Bytes      int           // the compiled grammar after its first mask
	CloneBytes int           // a clone of it
	Peak       int           // the most that was needed meanwhile
	Message    string
}

const (
	answerHeader = 6 * 8
	maxMessage   = 4096
)

var errAnswer = errors.New("the trial process does not speak as it should")

// parseAnswer reads the header of an answer, and how long its message is.
func parseAnswer(b []byte) (r TrialResult, message int, err error) {
	if len(b) != answerHeader {
		return r, 0, errAnswer
	}
	var n [6]uint64
	for i := range n {
		n[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	const most = 1 << 40 // bytes, microseconds
	for _, v := range n[1:5] {
		if v > most {
			return r, 0, fmt.Errorf("%w: %d", errAnswer, v)
		}
	}
	if n[0] > uint64(TrialSlow) || n[5] > maxMessage {
		return r, 0, fmt.Errorf("%w: status %d, a message of %d bytes", errAnswer, n[0], n[5])
	}
	return TrialResult{
		Status:     TrialStatus(n[0]),
		CPU:        time.Duration(n[1]) * time.Microsecond,
		Bytes:      int(n[2]),
		CloneBytes: int(n[3]),
		Peak:       int(n[4]),
	}, int(n[5]), nil
}
