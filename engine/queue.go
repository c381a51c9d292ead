package engine

import "sync/atomic"

// queue is a list of waiting sequences, linked through them.
type queue struct {
	head, tail *sequence
	length     int
}

func (q *queue) pushBack(s *sequence)  { q.insert(s, q.tail, nil) }
func (q *queue) pushFront(s *sequence) { q.insert(s, nil, q.head) }

func (q *queue) insert(s, before, after *sequence) {
	s.prev, s.next = before, after
	if before == nil {
		q.head = s
	} else {
		before.next = s
	}
	if after == nil {
		q.tail = s
	} else {
		after.prev = s
	}
	q.length++
}

func (q *queue) remove(s *sequence) {
	if s.prev == nil {
		q.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		q.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	q.length--
}

// inbox takes new sequences from any goroutine to the loop without a lock: a
// stack that is emptied at once.
type inbox struct{ top atomic.Pointer[sequence] }

// closedInbox is the top of an inbox that is closed.
var closedInbox = new(sequence)

// put reports false if the inbox is closed.
func (b *inbox) put(s *sequence) bool {
	for {
		top := b.top.Load()
		if top == closedInbox {
			return false
		}
		s.next = top
		if b.top.CompareAndSwap(top, s) {
			return true
		}
	}
}

// take returns what was put, linked through next in order of arrival.
func (b *inbox) take() *sequence {
	if b.top.Load() == nil {
		return nil
	}
	return reverse(b.top.Swap(nil))
}

// close returns what was put, as take does, and closes the inbox.
func (b *inbox) close() *sequence {
	top := b.top.Swap(closedInbox)
	if top == closedInbox {
		return nil
	}
	return reverse(top)
}

// closeIfEmpty closes the inbox unless something is in it.
func (b *inbox) closeIfEmpty() bool { return b.top.CompareAndSwap(nil, closedInbox) }

func reverse(s *sequence) *sequence {
	var first *sequence
	for s != nil {
		next := s.next
		s.next = first
		first, s = s, next
	}
	return first
}
