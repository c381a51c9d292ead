package handler

import (
	"fmt"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/openapi"
)

var repetitionFields = []string{"max_pattern_size", "min_pattern_size", "min_count"}

// repetitionSchema documents repetition_detection.
var repetitionSchema = openapi.Object{
	"type": "object", "description": "Ends a text that repeats itself: the reason is `repetition`, on the generate routes `length` with `cut` `repetition`",
	"properties": openapi.Object{
		"max_pattern_size": openapi.Object{"type": "integer", "minimum": 0, "maximum": engine.MaxRepeated, "description": "The most tokens that are repeated; 0: off"},
		"min_pattern_size": openapi.Object{"type": "integer", "minimum": 0, "description": "The fewest"},
		"min_count":        openapi.Object{"type": "integer", "minimum": 0, "description": "How many times in a row they come, 2 or more"},
	},
}

// decodeRepetition reads vLLM's repetition_detection. A fault is a value that
// makes no sense.
func decodeRepetition(r *body.Reader) (rep engine.Repetition, fault string, err error) {
	var sizes [3]uint32
	err = r.Object("struct RepetitionDetectionParams", repetitionFields, func(field int) (err error) {
		if null, err := r.Null(); null {
			return err
		}
		sizes[field], err = r.Uint32()
		return err
	})
	most, least, count := sizes[0], sizes[1], sizes[2]
	switch {
	case most > engine.MaxRepeated:
		fault = fmt.Sprintf("`max_pattern_size` must be <= %d. Given: %d", engine.MaxRepeated, most)
	case least > most:
		fault = fmt.Sprintf("`min_pattern_size` must be <= `max_pattern_size`. Given: %d and %d", least, most)
	case most > 0 && count < 2:
		fault = fmt.Sprintf("`min_count` must be >= 2. Given: %d", count)
	case most > 0:
		rep = engine.Repetition{Min: int(max(1, least)), Max: int(most), Count: int(min(count, 1<<30))}
	}
	return rep, fault, err
}

// ParseRepetition reads a repetition_detection as requests have it. The error is
// for the operator.
func ParseRepetition(text string) (engine.Repetition, error) {
	if text == "" {
		return engine.Repetition{}, nil
	}
	rep, fault, err := decodeRepetition(body.NewReader([]byte(text)))
	if err == nil && fault != "" {
		err = fmt.Errorf("%s", fault)
	}
	return rep, err
}
