package chat

import (
	"github.com/millrace-ai/millrace/handler/body"
)

// ResponseFormat is the form that a request asks its answer to have. The zero
// value is free text.
type ResponseFormat struct {
	Kind   GrammarKind // "" for free text
	Schema []byte      // JSON of a schema, or of a string that holds one; nil: any object
	Regex  string
}

var (
	responseFormatFields = []string{"type", "value", "json_schema", "schema"}
	jsonSchemaFields     = []string{"schema"}
)

// DecodeResponseFormat reads a response_format in TGI's forms (json and
// json_object with a value, regex) and in OpenAI's (text, json_object,
// json_schema). A schema is part of the body and is not looked into.
func DecodeResponseFormat(r *body.Reader) (f ResponseFormat, err error) {
	if null, err := r.Null(); null {
		return f, err
	}
	var (
		kind      string
		value     []byte
		regex     string
		hasString bool
	)
	err = r.Object("adjacently tagged enum GrammarType", responseFormatFields, func(field int) (err error) {
		if null, err := r.Null(); null {
			return err
		}
		switch responseFormatFields[field] {
		case "type":
			kind, err = decodeFormatKind(r)
		case "json_schema":
			value, err = decodeJSONSchema(r)
		default:
			if hasString = r.IsString(); hasString {
				regex, value, err = stringAndRaw(r)
			} else {
				value, err = r.Raw()
			}
		}
		return err
	})
	switch {
	case err != nil:
	case kind == "":
		err = r.Missing("type")
	case kind == "text":
	case kind == "json_object":
		f = ResponseFormat{Kind: JSONSchema, Schema: value}
	case value == nil && kind == "json_schema":
		err = r.Missing("json_schema")
	case value == nil:
		err = r.Missing("value")
	case kind == "regex" && !hasString:
		err = r.Errorf("value: a regex is a string")
	case kind == "regex":
		f = ResponseFormat{Kind: Regex, Regex: regex}
	default:
		f = ResponseFormat{Kind: JSONSchema, Schema: value}
	}
	return f, err
}

func decodeFormatKind(r *body.Reader) (string, error) {
	kind, err := r.String()
	if err != nil {
		return "", err
	}
	switch kind {
	case "text", "json", "json_object", "json_schema", "regex":
		return kind, nil
	}
	return "", r.Errorf("unknown variant `%s`, expected one of `json`, `json_object`, `json_schema`, `regex`, `text`", body.Cut(kind))
}

// decodeJSONSchema reads OpenAI's {"name", "schema", "strict"}. Decoding is
// always strict here, and the name has no use.
func decodeJSONSchema(r *body.Reader) (schema []byte, err error) {
	err = r.Object("struct JsonSchema", jsonSchemaFields, func(int) (err error) {
		schema, err = r.Raw()
		return err
	})
	if err == nil && schema == nil {
		err = r.Missing("schema")
	}
	return schema, err
}

// stringAndRaw reads a string and returns it as it means and as it is written.
func stringAndRaw(r *body.Reader) (string, []byte, error) {
	raw, err := r.Raw()
	if err != nil {
		return "", nil, err
	}
	s, err := body.NewReader(raw).String()
	return s, raw, err
}

// Grammar returns what the answer must match; its Kind is "" for free text.
func (f ResponseFormat) Grammar() Grammar {
	switch {
	case f.Kind == Regex:
		return Grammar{Kind: Regex, Text: f.Regex}
	case f.Kind == "":
		return Grammar{}
	case f.Schema == nil:
		return Grammar{Kind: JSONSchema, Text: `{"type":"object"}`}
	case f.Schema[0] == '"':
		// A string that holds the schema; it was read before, so it reads.
		s, _ := body.NewReader(f.Schema).String()
		return Grammar{Kind: JSONSchema, Text: s}
	}
	return Grammar{Kind: JSONSchema, Text: string(f.Schema)}
}
