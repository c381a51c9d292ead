package chat

// Selection is what a request's tools mean for its answer.
type Selection struct {
	Tools    []Tool // shown to the model, and callable; none: a plain chat
	Required bool   // the answer is a call
	Parallel bool   // it may be several
	// OpenObjects lets calls have arguments that no schema names, as
	// grammar.SchemaOptions has it.
	OpenObjects bool
}

// SelectRequest is what a request says about tools.
type SelectRequest struct {
	Tools   []Tool
	Present bool // tools was there and not null
	Choice  ToolChoice
	Format  ResponseFormat
	Single  bool // parallel_tool_calls is false
}

// Select applies a tool_choice. As in TGI a named tool is the only one that
// the model is shown, and as from OpenAI it is called once; `none` hides them
// all, a choice without tools means nothing, and a response format excludes
// tools. Unlike in TGI, an empty list of tools is a plain chat.
func Select(r SelectRequest) (Selection, error) {
	if r.Present && r.Format.Kind != "" {
		return Selection{}, toolError("Grammar and tools are mutually exclusive")
	}
	s := Selection{Parallel: !r.Single}
	if len(r.Tools) == 0 || r.Choice.Mode == ToolNone {
		return s, nil
	}
	s.Required = r.Choice.Mode != ToolAuto
	if r.Choice.Mode != ToolNamed {
		s.Tools = r.Tools
		return s, nil
	}
	for i, t := range r.Tools {
		if t.Name == r.Choice.Name {
			s.Tools, s.Parallel = r.Tools[i:i+1], false
			return s, nil
		}
	}
	return Selection{}, toolError("Tool with name %s not found", r.Choice.Name)
}
