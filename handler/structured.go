package handler

import (
	"regexp"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
)

var structuredFields = []string{
	"json", "regex", "choice", "json_object", "grammar", "structural_tag", "whitespace_pattern", "disable_any_whitespace",
}

// decodeFormat reads the value, which is not null, of a field that holds the
// answer to a form.
func (p *parameters) decodeFormat(r *body.Reader, field string) (err error) {
	var f chat.ResponseFormat
	switch field {
	case "response_format":
		f, err = chat.DecodeResponseFormat(r)
	case "guided_json", "json_schema":
		f, err = decodeSchema(r)
	case "guided_regex":
		f, err = decodeRegex(r)
	case "guided_choice":
		f, err = p.decodeChoice(r, field)
	case "structured_outputs":
		return p.decodeStructured(r)
	case "grammar":
		if r.IsString() { // llama.cpp's
			text, err := r.String()
			if text != "" {
				p.refuse(unsupported(field, "in GBNF or Lark is not supported: send a JSON schema or a regular expression"))
			}
			return err
		}
		var g grammarType
		if g, err = decodeGrammar(r); err == nil {
			spec, fault := g.spec()
			if fault != nil {
				p.refuse(asError(fault))
			}
			f = chat.ResponseFormat{Kind: chat.GrammarKind(spec.Kind), Schema: g.value, Regex: spec.Text}
		}
	}
	p.setFormat(field, f)
	return err
}

// setFormat keeps the format of a field, of which there may be one.
func (p *parameters) setFormat(field string, f chat.ResponseFormat) {
	switch {
	case f.Kind == "": // free text
	case p.formatField != "":
		p.refuse(invalid("`%s` and `%s` are mutually exclusive", p.formatField, field))
	default:
		p.format, p.formatField = f, field
	}
}

// decodeStructured reads vLLM's structured_outputs: one of several kinds.
func (p *parameters) decodeStructured(r *body.Reader) error {
	return r.Object("struct StructuredOutputsParams", structuredFields, func(field int) (err error) {
		if null, err := r.Null(); null {
			return err
		}
		name := structuredFields[field]
		path := "structured_outputs." + name
		var f chat.ResponseFormat
		switch name {
		case "json":
			f, err = decodeSchema(r)
		case "regex":
			f, err = decodeRegex(r)
		case "choice":
			f, err = p.decodeChoice(r, path)
		case "json_object":
			var object bool
			if object, err = r.Bool(); object {
				f.Kind = chat.JSONSchema
			}
		case "disable_any_whitespace":
			var disable bool
			if disable, err = r.Bool(); disable {
				p.refuse(unsupported(path, "is not supported, except for false"))
			}
		default:
			p.refuse(unsupported(path, "is not supported: send `json`, `regex` or `choice`"))
			err = r.Skip()
		}
		p.setFormat(path, f)
		return err
	})
}

// decodeSchema reads a JSON schema, or a string that holds one.
func decodeSchema(r *body.Reader) (chat.ResponseFormat, error) {
	if !r.IsString() && !r.IsObject() {
		return chat.ResponseFormat{}, r.Object("a JSON schema", nil, nil) // says what is there instead
	}
	schema, err := r.Raw()
	return chat.ResponseFormat{Kind: chat.JSONSchema, Schema: schema}, err
}

func decodeRegex(r *body.Reader) (chat.ResponseFormat, error) {
	s, err := r.String()
	return chat.ResponseFormat{Kind: chat.Regex, Regex: s}, err
}

// decodeChoice reads texts of which the answer must be one.
func (p *parameters) decodeChoice(r *body.Reader, field string) (chat.ResponseFormat, error) {
	const most = 10_000 // more than a grammar of them can have
	all, err := decodeStrings(r, most)
	if len(all) == 0 {
		p.refuse(invalid("`%s` must not be empty", field))
	}
	for i := range all {
		all[i] = regexp.QuoteMeta(all[i])
	}
	return chat.ResponseFormat{Kind: chat.Regex, Regex: strings.Join(all, "|")}, err
}
