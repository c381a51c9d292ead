package chat

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// withTemplate returns f for answers that a response_template describes. Where
// the chat template shows calls that begin as the response_template says, they
// are written so; else the form follows from the response_template.
func (f *Format) withTemplate(t *responseTemplate) *Format {
	with := *f
	if t == nil {
		return &with
	}
	for _, text := range t.texts() {
		if strings.HasPrefix(text, "<|channel|>") { // harmony, which is more than regions
			with.Name, with.Calls, with.Reasoning = formatHarmony.Name, formatHarmony.Calls, formatHarmony.Reasoning
			return &with
		}
	}
	with.Template, with.Reasoning = t, t.reasoning()
	at := slices.IndexFunc(t.fields, func(f *templateField) bool { return f.name == "tool_calls" })
	if at < 0 {
		return &with
	}
	form, ok := t.fields[at].form()
	switch {
	case !ok:
		with.Name, with.Calls = "response_template", CallForm{}
	case f.Name == formatTGI.Name || form.Marker == "" || !strings.HasPrefix(form.Marker, f.Calls.Marker):
		with.Name, with.Calls = "response_template", form
	}
	return &with
}

// thinks reports whether a prompt ends inside the model's reasoning; tail is
// its end.
func (f *Format) thinks(prompt, tail string) bool {
	if f.Template != nil {
		return f.Template.thinks(prompt)
	}
	return f.Reasoning.opened(tail)
}

// form returns how calls are written that the field reads. It is false for
// what no text of calls follows from.
func (f *templateField) form() (form CallForm, ok bool) {
	before, after, ok := f.open.around()
	closing, _, closes := f.close.around()
	if !ok || !closes || before == "" {
		return form, false
	}
	form = CallForm{Marker: before, Begin: before, Middle: after, End: closing, Between: "\n"}
	if !f.repeats {
		form.Open, form.Begin, form.End, form.Close = before, "", "", closing
		form.Between = ", "
	}
	transform := map[string]string{}
	for _, m := range objectMembers(f.transform) {
		if m.key == "function" {
			if text, isString := scalar(m.value); isString {
				transform["function"] = text
			}
			for _, m := range objectMembers(m.value) {
				transform[m.key], _ = scalar(m.value)
			}
		}
	}
	name, arguments := strings.Trim(transform["name"], "{}"), strings.Trim(transform["arguments"], "{}")
	switch {
	case f.content == "python-call-list" && f.each && !f.repeats:
		form.Open += "["
		form.Close = "]" + form.Close
		form.Middle, form.Arguments = "(", PythonArguments
		return form, true
	case f.content == "json" && transform["function"] == "{content}" && f.repeats:
		name, arguments = "name", "arguments"
	case f.content == "json" && f.each && !f.repeats && name != "" && arguments != "" && !strings.Contains(name+arguments, "."):
		form.Open, form.Close = form.Open+"[", "]"+form.Close
	case f.content == "json" && f.repeats && strings.HasPrefix(name, "content.") && strings.HasPrefix(arguments, "content.") && strings.Count(name+arguments, ".") == 2:
		name, arguments = strings.TrimPrefix(name, "content."), strings.TrimPrefix(arguments, "content.")
	case name == "name" && arguments == "content" && f.repeats && slices.Contains(f.open.groups(), "name"):
		return f.namedForm(form)
	default:
		return form, false
	}
	form.Begin += "{" + quoted(name) + `: "`
	form.Middle = `", ` + quoted(arguments) + ": "
	form.End = "}" + form.End
	return form, true
}

// namedForm is the form of calls whose name the anchor has.
func (f *templateField) namedForm(form CallForm) (CallForm, bool) {
	switch {
	case f.content == "xml-inline":
		re, err := syntax.Parse(f.args.tag.String(), syntax.Perl)
		if err != nil {
			return form, false
		}
		var parts [3]string
		if !split(re, &parts) {
			return form, false
		}
		form.Arguments, form.Tags = TagArguments, Tags{Begin: parts[0], Middle: parts[1], End: parts[2]}
		return form, parts[0] != "" && parts[1] != "" && parts[2] != ""
	case f.content == "json" && f.args.UnquotedKeys && len(f.args.StringDelims) == 1 && f.args.StringDelims[0] == [2]string{gemmaQuote, gemmaQuote}:
		form.Arguments, form.Between = GemmaArguments, ""
		return form, true
	}
	return form, f.content == "json" && len(f.args.StringDelims) == 0
}

// around returns the texts of an anchor before and after the group name; all
// is before it if there is none. It is false if there is no one text.
func (a *anchor) around() (before, after string, ok bool) {
	if a.literals != nil {
		return a.literals[0], "", true
	}
	if a.source == nil {
		return "", "", true
	}
	var parts [3]string
	ok = split(a.source, &parts)
	return parts[0], parts[1], ok
}

// split writes the shortest text of an expression, cut at its named groups.
func split(re *syntax.Regexp, parts *[3]string) bool {
	at := func() *string {
		for i := range parts {
			if !strings.HasSuffix(parts[i], "\x00") {
				return &parts[i]
			}
		}
		return nil
	}
	ok := splitInto(re, at)
	for i := range parts {
		parts[i] = strings.TrimSuffix(parts[i], "\x00")
	}
	return ok
}

func splitInto(re *syntax.Regexp, at func() *string) bool {
	part := at()
	if part == nil {
		return false
	}
	switch re.Op {
	case syntax.OpLiteral:
		*part += string(re.Rune)
	case syntax.OpCapture:
		if re.Name != "" {
			*part += "\x00"
			return true
		}
		return splitInto(re.Sub[0], at)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if !splitInto(sub, at) {
				return false
			}
		}
	case syntax.OpStar, syntax.OpQuest, syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText:
	case syntax.OpPlus, syntax.OpRepeat:
		return re.Op == syntax.OpRepeat && re.Min == 0
	default:
		return false
	}
	return true
}
