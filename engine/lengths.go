package engine

import "math/bits"

// lengths predicts how many tokens sequences will generate from what the last
// ones did.
//
// It is the Kaplan-Meier estimator (1958) over buckets of growing width: of the
// sequences that reached a bucket, which part ended in it. One that still runs, or was
// cut off, only shows that it came so far. Without those, answers would seem short
// whenever a wave of long ones begins, since the short ones end first. Beyond the
// longest so far, a sequence is expected to generate as much again as it has.
type lengths struct {
	recent [recentLengths]outcome // a ring
	count  int                    // sequences that have ended so far

	ended [lengthBuckets]float64 // of recent: those that ended in a bucket,
	cut   [lengthBuckets]float64 // and those that were cut there

	alive [lengthBuckets]float64     // scratch of update: those that still run
	tail  [lengthBuckets + 1]float64 // tail[b]: the part that reaches bucket b
}

// outcome is how a sequence ended.
type outcome struct {
	bucket uint8
	cut    bool // it would have gone on
}

const (
	recentLengths = 1000
	lengthBuckets = 112 // four for each doubling, up to 2^29 tokens

	// What is believed before anything is known counts as much as priorWeight
	// sequences: from priorFrom tokens on, half of those that generate n tokens
	// generate 2n.
	priorWeight = 1
	priorFrom   = 128
	priorHazard = 1 - 0.8408964152537145 // 1 - 2 ** -(1/4)
)

// lengthBucket returns the bucket of a length.
func lengthBucket(n int) int {
	octave := bits.Len(uint(n)) - 1
	if octave < 2 {
		return n
	}
	return min((octave-1)*4+n>>(octave-2)&3, lengthBuckets-1)
}

// bucketStart returns the least length of a bucket, or of the one after the last.
func bucketStart(b int) int {
	if b < 4 {
		return b
	}
	return (4 + b%4) << (b/4 - 1)
}

// learn takes in a sequence that has ended after n tokens; cut says that it
// would have generated more.
func (l *lengths) learn(n int, cut bool) {
	at := &l.recent[l.count%recentLengths]
	if l.count >= recentLengths {
		l.add(*at, -1)
	}
	*at = outcome{uint8(lengthBucket(n)), cut}
	l.add(*at, 1)
	l.count++
}

func (l *lengths) add(o outcome, n float64) {
	if o.cut {
		l.cut[o.bucket] += n
	} else {
		l.ended[o.bucket] += n
	}
}

// see counts a sequence that runs, or waits to go on, for the next update.
func (l *lengths) see(generated int) { l.alive[lengthBucket(generated)]++ }

// update makes predictions follow what was learned and seen.
func (l *lengths) update() {
	reached := 0.0
	for b := range l.ended {
		reached += l.ended[b] + l.cut[b] + l.alive[b]
	}
	l.tail[0] = 1
	for b := range l.ended {
		// Those that are cut in a bucket have been through half of it.
		censored := l.cut[b] + l.alive[b]
		prior := 0.0
		if bucketStart(b) >= priorFrom {
			prior = priorHazard
		}
		hazard := (l.ended[b] + priorWeight*prior) / (reached - censored/2 + priorWeight)
		l.tail[b+1] = l.tail[b] * (1 - hazard)
		reached -= l.ended[b] + censored
	}
	clear(l.alive[:])
}

// predict returns how many tokens a sequence that has generated so many will
// have generated at its end. luck, 0 to 1, says which of the possible ends is
// meant: it is the part of such sequences that end before. Many sequences whose
// luck is spread evenly are together what is expected of them.
func (l *lengths) predict(generated int, luck float64) int {
	b := lengthBucket(generated)
	lo, hi := bucketStart(b), bucketStart(b+1)
	now := l.tail[b] + (l.tail[b+1]-l.tail[b])*float64(generated-lo)/float64(hi-lo)
	want := now * (1 - luck)
	for ; b < lengthBuckets && l.tail[b+1] > want; b++ {
	}
	if b == lengthBuckets {
		return bucketStart(b)
	}
	lo, hi = bucketStart(b), bucketStart(b+1)
	end := lo
	if fall := l.tail[b] - l.tail[b+1]; fall > 0 {
		end += int((l.tail[b] - want) / fall * float64(hi-lo))
	}
	return max(generated+1, end)
}
