package handler

import (
	"slices"
	"strconv"

	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/handler/body"
)

// decodeStop reads a string or a list of them. An empty one asks for nothing.
func decodeStop(r *body.Reader) (stop []string, err error) {
	if r.IsString() {
		s, err := r.String()
		if s == "" {
			return nil, err
		}
		return []string{s}, err
	}
	const most = 100_000 // far beyond any limit: a few bytes of a body are many here
	stop, err = decodeStrings(r, most)
	return slices.DeleteFunc(stop, func(s string) bool { return s == "" }), err
}

// decodeStrings reads a list of at most so many strings.
func decodeStrings(r *body.Reader, most int) (all []string, err error) {
	err = r.Array("a sequence", func(i int) error {
		if i == most {
			return r.Errorf("more than %d strings", most)
		}
		s, err := r.String()
		all = append(all, s)
		return err
	})
	return all, err
}

// grammarType is the contract's GrammarType: what the output must match.
type grammarType struct {
	kind  string // json, json_object, json_schema or regex
	value []byte // JSON, part of the body: the schema, a string that holds it, or the regular expression
}

var grammarFields = []string{"type", "value"}

// decodeGrammar reads TGI's forms of a grammar. What a value must be depends on
// the type, which may follow it.
func decodeGrammar(r *body.Reader) (g grammarType, err error) {
	var value body.Reader // before the value
	err = r.Object("adjacently tagged enum GrammarType", grammarFields, func(field int) (err error) {
		if field == 0 {
			if g.kind, err = r.String(); err != nil {
				return err
			}
			switch g.kind {
			case "json", "json_object", "json_schema", "regex":
				return nil
			}
			return r.Errorf("unknown variant `%s`, expected one of `json`, `json_object`, `json_schema`, `regex`", body.Cut(g.kind))
		}
		value = *r
		g.value, err = r.Raw()
		return err
	})
	switch {
	case err != nil:
		return g, err
	case g.kind == "":
		return g, r.Missing("type")
	case g.value == nil:
		return g, r.Missing("value")
	case g.kind == "regex":
		_, err = value.String()
	case g.kind == "json_schema":
		g.value, err = decodeNamedSchema(&value)
	}
	return g, body.Within(err, "value")
}

// decodeNamedSchema reads the value of a json_schema: a schema and a name for
// it, which has no use.
func decodeNamedSchema(r *body.Reader) (schema []byte, err error) {
	err = r.Object("struct JsonSchemaConfig", []string{"schema"}, func(int) (err error) {
		schema, err = r.Raw()
		return err
	})
	if err == nil && schema == nil {
		err = r.Missing("schema")
	}
	return schema, err
}

// decodeLogitBias reads OpenAI's object from token ids to numbers. TGI's
// contract has a list of numbers instead, which has no effect there, nor here.
func decodeLogitBias(r *body.Reader) (all []sample.Bias, err error) {
	if r.IsArray() {
		return nil, r.Array("a sequence", func(int) error {
			_, err := r.Float32()
			return err
		})
	}
	err = r.Map("a map from token ids to numbers", func(name string) error {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id < 0 {
			return r.Errorf("invalid token id `%s`, expected a whole number", body.Cut(name))
		}
		value, err := r.Float32()
		all = append(all, sample.Bias{Token: int32(id), Bias: value})
		return err
	})
	return all, err
}

// decodeIDs reads a list of at most so many token ids.
func decodeIDs(r *body.Reader, most int) (ids []int32, err error) {
	err = r.Array("a sequence of token ids", func(i int) error {
		if i == most {
			return r.Errorf("more than %d token ids", most)
		}
		id, err := decodeID(r)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// decodeID reads a token id; whether there is such a token is not known here.
func decodeID(r *body.Reader) (int32, error) {
	id, err := r.Int32()
	if err == nil && id < 0 {
		err = r.Errorf("invalid value: integer `%d`, expected a token id", id)
	}
	return id, err
}
