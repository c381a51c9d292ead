package grammar

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// SchemaOptions says how a JSON schema is read.
type SchemaOptions struct {
	// Open keeps JSON Schema's own meaning: a schema without a type is one for
	// all types, an object may have members that no keyword names.
	Open bool
	// Object asks for an object, whatever the schema says about types.
	Object bool
	// Member, if it is not "", is a member that comes before all others of the
	// object; its value is Value.
	Member, Value string
}

// ErrMemberTaken says that the schema has a property of the name that
// SchemaOptions want to give to another.
var ErrMemberTaken = errors.New("the schema has a property of this name")

// NormalizeSchema returns a schema of the same values, as the package comment
// has it, made of nothing but what the parser enforces: annotations are left
// out, references lead to definitions of its own, alternatives are written
// out, objects say whether they are open. It is its own normal form. The error
// is an *Error with the place of the fault, or ErrMemberTaken.
func NormalizeSchema(text string, o SchemaOptions) (string, error) {
	w, err := normalize(text, o)
	if err != nil {
		return "", err
	}
	return string(w.text), nil
}

const (
	// maxReferences bounds the definitions, along which the library recurses.
	maxReferences = 500
	// maxIntersected bounds how many regular expressions may apply to one
	// string: the library multiplies them out, two choices each.
	maxIntersected = 12
	// maxRemainders bounds the states of multipleOf: one for each remainder.
	maxRemainders = 100_000
	// maxNormal bounds the bytes of a normal form.
	maxNormal = 1 << 20
	// maxSet is the size of a set of which all arrangements are written out.
	maxSet = 4
)

// A schemaWriter writes the normal form of a document.
type schemaWriter struct {
	*document
	SchemaOptions
	text []byte

	definitions map[string]int // names, by what applies to the value
	pending     []definition
	work        int // how many schemas may still be looked at: allOf of anyOf multiplies
	size        int // what was written for them
	inside      int // alternatives with a common part: it is written for each

	sets map[*node]valueSet // of items that are to be unique
	// without are the definitions that have no values.
	without map[string]bool
	// unsatisfiable is the first reason why a part of the schema has no value.
	unsatisfiable *Error
	// patterns tell where a pattern stands that the library refuses.
	patterns []placedPattern
}

type definition struct {
	key   string // in definitions
	items []item
	top   *node
}

type valueSet struct {
	values []any
	ok     bool // there is no other value
}

type placedPattern struct{ text, place string }

func normalize(text string, o SchemaOptions) (*schemaWriter, error) {
	if len(text) > maxSchemaBytes {
		return nil, errorf("the schema has %d bytes, the limit is %d", len(text), maxSchemaBytes)
	}
	if !utf8.ValidString(text) {
		return nil, errorf("the schema is not valid UTF-8")
	}
	v, err := decodeJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	d, err := newDocument(v)
	if err != nil {
		return nil, err
	}
	w := &schemaWriter{document: d, SchemaOptions: o, work: 2000 + 2*len(text), without: map[string]bool{}, sets: map[*node]valueSet{}}
	for {
		if err := w.write(); err != nil {
			return nil, err
		}
		if found, err := w.withoutValues(); err != nil || !found {
			return w, err
		}
	}
}

// write writes the normal form, as if the definitions in without had no values.
func (w *schemaWriter) write() error {
	w.text, w.definitions, w.pending, w.patterns = nil, map[string]int{}, nil, nil
	items, _, err := w.expand(w.root, nil, nil)
	if err != nil {
		return err
	}
	root, err := w.body(items, w.root, true)
	if err != nil {
		return err
	}
	if string(root) == never {
		if w.unsatisfiable != nil {
			return w.unsatisfiable
		}
		return w.root.fault("", "no value is valid")
	}
	w.text = append(w.text, `{`+schemaOptions...)
	if string(root) != anything {
		w.text = append(append(w.text, ','), root[1:len(root)-1]...)
	}
	for i := 0; i < len(w.pending); i++ {
		if i == 0 {
			w.text = append(w.text, `,"$defs":{`...)
		} else {
			w.text = append(w.text, ',')
		}
		w.text = fmt.Appendf(w.text, `"%d":`, i)
		body, err := w.body(w.pending[i].items, w.pending[i].top, false)
		if err != nil {
			return err
		}
		w.text = append(w.text, body...)
	}
	if len(w.pending) > 0 {
		w.text = append(w.text, '}')
	}
	w.text = append(w.text, '}')
	return nil
}

// never is a schema without values, anything one of all.
const (
	never    = `false`
	anything = `{}`
)

// impossible notes why no value is valid, and returns that schema.
func (w *schemaWriter) impossible(reason *Error) []byte {
	if w.unsatisfiable == nil {
		w.unsatisfiable = reason
	}
	return []byte(never)
}
