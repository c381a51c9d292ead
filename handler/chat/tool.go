package chat

import (
	"github.com/millrace-ai/millrace/handler/body"
)

// Tool is a function that the model may call.
type Tool struct {
	Index      int // in the request's list
	Name       string
	Parameters []byte // JSON schema of the arguments, an object
	// Spec is the tool as a template sees it: the client's JSON, with the schema
	// under `parameters` where TGI's clients say `arguments`.
	Spec []byte
}

// noParameters is the schema of a function without parameters.
const noParameters = `{"type": "object", "properties": {}}`

var (
	toolFields       = []string{"type", "function"}
	definitionFields = []string{"name", "description", "parameters", "arguments"}
	choiceFields     = []string{"type", "function", "Function"}
	nameFields       = []string{"name"}
)

// DecodeTools reads the tools of a request. present tells an empty list from
// null, which TGI does too.
func DecodeTools(r *body.Reader) (tools []Tool, present bool, err error) {
	if null, err := r.Null(); null {
		return nil, false, err
	}
	err = r.Array("a sequence", func(i int) error {
		tool, err := decodeTool(r)
		tool.Index = i
		tools = append(tools, tool)
		return err
	})
	return tools, true, err
}

func decodeTool(r *body.Reader) (t Tool, err error) {
	from := r.Offset()
	legacy := false // the schema is not under `parameters`
	hasFunction := false
	err = r.Object("struct Tool", toolFields, func(field int) error {
		if toolFields[field] == "type" { // TGI takes any
			return r.Skip()
		}
		hasFunction = true
		legacy, err = decodeDefinition(r, &t)
		return err
	})
	switch {
	case err != nil:
	case !hasFunction:
		err = r.Missing("function")
	case legacy:
		t.Spec = t.standard()
	default:
		t.Spec = r.Since(from)
	}
	return t, err
}

func decodeDefinition(r *body.Reader, t *Tool) (legacy bool, err error) {
	hasParameters := false
	var description []byte
	err = r.Object("struct FunctionDefinition", definitionFields, func(field int) (err error) {
		switch key := definitionFields[field]; {
		case key == "name":
			t.Name, err = r.String()
		case key == "description":
			description, err = r.Raw()
		case r.IsObject():
			hasParameters = hasParameters || key == "parameters"
			t.Parameters, err = r.Raw()
		default:
			var null bool
			if null, err = r.Null(); !null && err == nil {
				err = r.Object("a JSON schema", nil, nil) // says what is there instead
			}
		}
		return err
	})
	switch {
	case err != nil:
		return false, err
	case t.Name == "":
		return false, r.Missing("name")
	case hasParameters:
		return false, nil
	case t.Parameters == nil:
		t.Parameters = []byte(noParameters)
	}
	t.Spec = description
	return true, nil
}

// standard is the tool's specification with OpenAI's names; Spec holds the
// JSON of its description, nil for none.
func (t *Tool) standard() []byte {
	spec := []byte(`{"type": "function", "function": {"name": `)
	spec = appendString(spec, t.Name)
	if t.Spec != nil {
		spec = append(spec, `, "description": `...)
		spec = append(spec, t.Spec...)
	}
	spec = append(spec, `, "parameters": `...)
	spec = append(spec, t.Parameters...)
	return append(spec, "}}"...)
}

// ToolMode is what a request's tool_choice says.
type ToolMode int

// The modes. With ToolRequired and ToolNamed the answer is a call.
const (
	ToolAuto ToolMode = iota
	ToolNone
	ToolRequired
	ToolNamed
)

// ToolChoice says which tools the model may or must call.
type ToolChoice struct {
	Mode ToolMode
	Name string // of ToolNamed
}

// DecodeToolChoice reads a tool_choice: null, auto, none, required, a bare
// name (TGI), {"type","function":{"name"}} (OpenAI) or {"function":{"name"}}.
func DecodeToolChoice(r *body.Reader) (ToolChoice, error) {
	if null, err := r.Null(); null {
		return ToolChoice{}, err
	}
	if r.IsString() {
		s, err := r.String()
		switch s {
		case "auto":
			return ToolChoice{}, err
		case "none":
			return ToolChoice{Mode: ToolNone}, err
		case "required":
			return ToolChoice{Mode: ToolRequired}, err
		}
		return ToolChoice{Mode: ToolNamed, Name: s}, err
	}
	name := ""
	err := r.Object("a tool choice", choiceFields, func(field int) error {
		if choiceFields[field] == "type" {
			return r.Skip()
		}
		return r.Object("struct FunctionName", nameFields, func(int) (err error) {
			name, err = r.String()
			return err
		})
	})
	if err == nil && name == "" {
		err = r.Missing("function")
	}
	return ToolChoice{Mode: ToolNamed, Name: name}, err
}
