package grammar

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

var (
	disjoint = regexp.MustCompile(`^(?:can't determine if )?patternProperty regexes (.*) and (.*) are (?:not )?disjoint$`)
	// inDefinition is what the library adds to a fault in one of the normal
	// form's definitions.
	inDefinition = regexp.MustCompile(`\n\s*while processing .*(#/\$defs/[0-9]+)$`)
)

// explain turns the library's error into one for the client. Its Place is one
// in the normal form; see located.
func explain(kind Kind, err error) *Error {
	text := err.Error()
	if strings.HasPrefix(text, "panic") {
		return errorf("%s is not supported: the grammar library failed on it", kind)
	}
	if strings.Contains(text, "too many expressions") || strings.Contains(text, "too many states") {
		return tooComplex(kind)
	}
	place := ""
	if m := inDefinition.FindStringSubmatch(text); m != nil && kind == JSONSchema {
		place = m[1]
	}
	text = strings.TrimPrefix(text, "Unsatisfiable schema: ")
	// A faulty regular expression is quoted whole, with a mark under the fault.
	regex := kind == Regex
	if _, fault, ok := strings.Cut(text, "\nerror: "); ok {
		text, regex = fault, true
	} else if _, fault, ok := strings.Cut(text, "(in regex): "); ok {
		text, regex = fault, true
	}
	text, _, _ = strings.Cut(text, "\n")
	both := disjoint.FindStringSubmatch(text)
	switch {
	case regex && kind == JSONSchema:
		text = "pattern: " + text
	case regex:
		text = "regex: " + text
	case kind == Lark:
		text = "lark: " + text
	case strings.HasPrefix(text, "Unable to determine if regex is empty"):
		text = "pattern: too complex together with format, minLength or maxLength"
	case strings.HasPrefix(text, "Regex is empty"):
		text = "pattern: no text matches it and the format, the length and the patterns beside it"
	case both != nil:
		text = "patternProperties: " + both[1] + " and " + both[2] + " may match the same name, which is not supported"
	}
	e := errorf("%s", text)
	e.Place = place
	return e
}

// located adds to a fault that the library has found where it is in the
// client's schema.
func (s Spec) located(err error) error {
	var fault *Error
	if s.Kind != JSONSchema || !errors.As(err, &fault) {
		return err
	}
	w, err := normalize(s.Text, SchemaOptions{Open: s.Open})
	if err != nil {
		return err
	}
	at := Error{Place: "#", Reason: fault.Reason}
	if name, ok := strings.CutPrefix(fault.Place, "#/$defs/"); ok {
		if n, err := strconv.Atoi(name); err == nil && n < len(w.pending) {
			at.Place = w.pending[n].items[0].node.place()
		}
	}
	reason, ok := strings.CutPrefix(fault.Reason, "pattern: ")
	if !ok || len(w.patterns) == 0 {
		return &at
	}
	// The library does not tell which. What Go cannot read either is it.
	at.Place, at.Reason = w.patterns[0].place, reason
	for _, p := range w.patterns {
		if _, err := syntax.Parse(p.text, syntax.Perl); err != nil {
			at.Place = p.place
			break
		}
	}
	return &at
}
