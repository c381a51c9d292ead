package chat

import (
	"regexp"
	"strings"
	"sync"
)

// Format is how a model writes its answers. It is data: one Parser reads, and
// one grammar holds calls to, what it says.
type Format struct {
	Name      string // of the form of its calls
	Reasoning Reasoning
	Answer    Reasoning // marks around the answer, which are not part of it
	Calls     CallForm
	// Template is the checkpoint's response_template, nil if it has none.
	Template *responseTemplate

	special map[string]int32 // tokens that no text spells, of those in Calls
}

// CallForm is how a model writes calls: Open, one call after the other with
// Between in between, Close. A call is Begin, the function's name, Middle, the
// arguments, End. {id} stands for an id that the model makes up.
//
// White space in these texts is what the model was trained on: a Parser takes
// any other too.
type CallForm struct {
	Marker      string // the beginning of Open or Begin that tells a call from words
	AtStart     bool   // the marker counts only at the beginning of an answer
	Open, Close string
	Between     string
	Begin, End  string
	Middle      string
	Arguments   ArgumentForm
	Tags        Tags   // of TagArguments
	IDs         string // a regular expression for them; "" for letters and digits
	ID          string // of a call in an answer, made of {name} and {id}; "" for one of our own
	// Object: a call is a JSON object, of which the texts above are one way to write it.
	Object bool
}

// ArgumentForm is how the arguments of a call are written.
type ArgumentForm int

// The forms of arguments.
const (
	JSONArguments   ArgumentForm = iota // {"a": 1}
	TagArguments                        // <a>1</a>, see Tags
	PythonArguments                     // a=1), the closing parenthesis included
	GemmaArguments                      // {a:1,b:<|"|>text<|"|>}
)

// Tags are the marks of arguments that are written one by one: Begin, the
// argument's name, Middle, its value, End. Strings stand as they are, other
// values as JSON.
type Tags struct {
	Begin, Middle, End string
	// String is the Middle of strings, where it is another.
	String string
}

// The texts of forms that models use also where their template shows another.
const (
	hermesOpen  = "<tool_call>"
	hermesClose = "</tool_call>"
	mistralOpen = "[TOOL_CALLS]"
	mistralArgs = "[ARGS]"
	pythonTag   = "<|python_tag|>"
)

// formatTGI is the form of models that have none of their own:
// {"function": {"_name": "f", "a": 1}}, TGI's, or as formatLlama.
var formatTGI = &Format{Name: "tgi", Calls: CallForm{Object: true}}

// formats are those with a form, the likelier of two that a call matches first.
var formats = []*Format{
	formatHermes, formatMistral, formatMistralIDs, formatMistralArgs,
	{Name: "qwen3-coder", Calls: CallForm{
		Marker: "<tool_call>", Begin: "<tool_call>\n<function=", Middle: ">\n", End: "</function>\n</tool_call>", Between: "\n",
		Arguments: TagArguments, Tags: Tags{Begin: "<parameter=", Middle: ">\n", End: "\n</parameter>\n"},
	}},
	{Name: "seed", Calls: CallForm{
		Marker: "<seed:tool_call>", Begin: "<seed:tool_call>\n<function=", Middle: ">\n", End: "</function>\n</seed:tool_call>", Between: "\n",
		Arguments: TagArguments, Tags: Tags{Begin: "<parameter=", Middle: ">", End: "</parameter>\n"},
	}},
	{Name: "minimax-m2", Calls: CallForm{
		Marker: "<minimax:tool_call>", Open: "<minimax:tool_call>\n", Begin: `<invoke name="`, Middle: "\">\n", End: "</invoke>", Between: "\n", Close: "\n</minimax:tool_call>",
		Arguments: TagArguments, Tags: Tags{Begin: `<parameter name="`, Middle: `">`, End: "</parameter>\n"},
	}},
	deepSeekMarkup("function_calls"), deepSeekMarkup("tool_calls"),
	{Name: "glm-4.5", Calls: CallForm{
		Marker: "<tool_call>", Begin: "<tool_call>", Middle: "\n", End: "</tool_call>", Between: "\n",
		Arguments: TagArguments, Tags: Tags{Begin: "<arg_key>", Middle: "</arg_key>\n<arg_value>", End: "</arg_value>\n"},
	}},
	{Name: "glm-4.7", Calls: CallForm{
		Marker: "<tool_call>", Begin: "<tool_call>", End: "</tool_call>",
		Arguments: TagArguments, Tags: Tags{Begin: "<arg_key>", Middle: "</arg_key><arg_value>", End: "</arg_value>"},
	}},
	{Name: "hunyuan-3", Calls: CallForm{
		Marker: "<tool_calls:opensource>", Open: "<tool_calls:opensource>\n", Begin: "<tool_call:opensource>", Middle: "<tool_sep:opensource>\n",
		End: "</tool_call:opensource>", Between: "\n", Close: "\n</tool_calls:opensource>", Arguments: TagArguments,
		Tags: Tags{Begin: "<arg_key:opensource>", Middle: "</arg_key:opensource>\n<arg_value:opensource>", End: "</arg_value:opensource>\n"},
	}},
	{Name: "gigachat", Calls: CallForm{
		Marker: "<|function_call|>", Begin: "<|function_call|>" + `{"name": "`, Middle: `", "arguments": `, End: "}", Object: true,
	}},
	{Name: "llama4-json", Calls: CallForm{
		Marker: "<|python_start|>", Begin: "<|python_start|>" + `{"name": "`, Middle: `", "parameters": `, End: "}<|python_end|>", Object: true,
	}},
	{Name: "minicpm", Calls: CallForm{
		Marker: "<function", Begin: `<function name="`, Middle: `">`, End: "</function>", Between: "\n",
		Arguments: TagArguments, Tags: Tags{Begin: `<param name="`, Middle: `">`, End: "</param>"},
	}},
	{Name: "deepseek-v3", Calls: CallForm{
		Marker: "<｜tool▁calls▁begin｜>", Open: "<｜tool▁calls▁begin｜>", Begin: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", Middle: "\n```json\n",
		End: "\n```<｜tool▁call▁end｜>", Between: "\n", Close: "<｜tool▁calls▁end｜>",
	}},
	{Name: "deepseek-v3.1", Calls: CallForm{
		Marker: "<｜tool▁calls▁begin｜>", Open: "<｜tool▁calls▁begin｜>", Begin: "<｜tool▁call▁begin｜>", Middle: "<｜tool▁sep｜>",
		End: "<｜tool▁call▁end｜>", Close: "<｜tool▁calls▁end｜>",
	}},
	{Name: "kimi-k2", Calls: CallForm{
		Marker: "<|tool_calls_section_begin|>", Open: "<|tool_calls_section_begin|>", Begin: "<|tool_call_begin|>functions.", Middle: ":{id}<|tool_call_argument_begin|>",
		End: "<|tool_call_end|>", Close: "<|tool_calls_section_end|>", ID: "functions.{name}:{id}", IDs: "[0-9]{1,3}",
	}},
	{Name: "solar", Calls: CallForm{
		Marker: "<|tool_calls|>", Open: "<|tool_calls|>", Begin: "<|tool_call:begin|>{id}<|tool_call:name|>", Middle: "<|tool_call:args|>", End: "<|tool_call:end|>", ID: "{id}",
	}},
	{Name: "command-r7b", Calls: CallForm{
		Marker: "<|START_ACTION|>", Open: "<|START_ACTION|>[\n", Begin: `    {"tool_call_id": "{id}", "tool_name": "`, Middle: `", "parameters": `,
		End: "}", Between: ",\n", Close: "\n]<|END_ACTION|>",
	}},
	{Name: "command-r", Calls: CallForm{
		Marker: "Action:", AtStart: true, Open: "Action: ```json\n[\n", Begin: "    {\n        \"tool_name\": \"", Middle: "\",\n        \"parameters\": ",
		End: "\n    }", Between: ",\n", Close: "\n]```",
	}},
	{Name: "apertus", Calls: CallForm{
		Marker: "<|tools_prefix|>", Open: "<|tools_prefix|>[", Begin: `{"`, Middle: `": `, End: "}", Between: ", ", Close: "]<|tools_suffix|>",
	}},
	{Name: "functionary", Calls: CallForm{Marker: "<function=", Begin: "<function=", Middle: ">", End: "</function>"}},
	list("granite", "<|tool_call|>", ""), list("granite", "<tool_call>", ""), list("phi-4", "<|tool_call|>", "<|/tool_call|>"), list("phi-4", "functools", ""),
	list("nemotron", "<TOOLCALL>", "</TOOLCALL>"), list("hunyuan", "<tool_calls>", "</tool_calls>"),
	{Name: "minimax-m1", Calls: CallForm{
		Marker: "<tool_calls>", Open: "<tool_calls>\n", Begin: `{"name": "`, Middle: `", "arguments": `, End: "}\n", Close: "</tool_calls>", Object: true,
	}},
	{Name: "internlm", Calls: CallForm{
		Marker: "<|action_start|>", Begin: "<|action_start|><|plugin|>\n" + `{"name": "`, Middle: `", "parameters": `, End: "}<|action_end|>", Between: "\n",
	}},
	python("lfm2", "<|tool_call_start|>", "<|tool_call_end|>"), python("llama4", "<|python_start|>", "<|python_end|>"), python("llama4", "", ""),
	{Name: "olmo3", Calls: CallForm{
		Marker: "<function_calls>", Open: "<function_calls>", Middle: "(", Between: "\n", Close: "</function_calls>", Arguments: PythonArguments,
	}},
	{Name: "gemma4", Calls: CallForm{
		Marker: "<|tool_call>", Begin: "<|tool_call>call:", End: "<tool_call|>", Arguments: GemmaArguments,
	}},
	formatHarmony, formatLlama,
}

// The formats that others are compared with, each with an example of a call of
// f with {"a": 1}.
var (
	// {"name": "f", "parameters": {"a": 1}}, sometimes after <|python_tag|>
	formatLlama = &Format{Name: "llama", Calls: CallForm{
		Marker: `{"name":`, AtStart: true, Begin: `{"name": "`, Middle: `", "parameters": `, End: "}", Between: "\n", Object: true,
	}}
	// <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>, also Qwen's
	formatHermes = &Format{Name: "hermes", Calls: CallForm{
		Marker: hermesOpen, Begin: hermesOpen + "\n" + `{"name": "`, Middle: `", "arguments": `, End: "}\n" + hermesClose, Between: "\n", Object: true,
	}}
	// [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]
	formatMistral = list("mistral", mistralOpen, "")
	// [TOOL_CALLS]f[ARGS]{"a": 1}
	formatMistralArgs = &Format{Name: "mistral-args", Calls: CallForm{
		Marker: mistralOpen, Begin: mistralOpen, Middle: mistralArgs,
	}}
	// [TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}
	formatMistralIDs = &Format{Name: "mistral-ids", Calls: CallForm{
		Marker: mistralOpen, Begin: mistralOpen, Middle: "[CALL_ID]{id}" + mistralArgs, ID: "{id}", IDs: "[a-zA-Z0-9]{9}",
	}}
	// <|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>
	formatHarmony = &Format{Name: "harmony", Reasoning: Reasoning{Open: "<|channel|>analysis<|message|>", Close: "<|channel|>final<|message|>", Channels: true}}
)

// list is the form of a JSON list of calls between two marks.
func list(name, open, closing string) *Format {
	return &Format{Name: name, Calls: CallForm{
		Marker: open, Open: open + " [", Begin: `{"name": "`, Middle: `", "arguments": `, End: "}", Between: ", ", Close: "]" + closing, Object: true,
	}}
}

// python is the form of a Python list of calls between two marks.
func python(name, open, closing string) *Format {
	return &Format{Name: name, Calls: CallForm{
		Marker: open, Open: open + "[", Middle: "(", Between: ", ", Close: "]" + closing, Arguments: PythonArguments,
	}}
}

// deepSeekMarkup is the form of DeepSeek V3.2 and V4.
func deepSeekMarkup(section string) *Format {
	const mark = "｜DSML｜"
	return &Format{Name: "deepseek-v3.2", Calls: CallForm{
		Marker: "<" + mark + section + ">", Open: "<" + mark + section + ">\n", Begin: "<" + mark + `invoke name="`, Middle: "\">\n",
		End: "</" + mark + "invoke>", Between: "\n", Close: "\n</" + mark + section + ">", Arguments: TagArguments,
		Tags: Tags{
			Begin: "<" + mark + `parameter name="`, Middle: `" string="false">`, String: `" string="true">`, End: "</" + mark + "parameter>\n",
		},
	}}
}

// example returns a regular expression for a call of a function with one
// argument, a string. text makes one of a text.
func (f *CallForm) example(name, key, value string, text func(string) string) string {
	var arguments string
	switch f.Arguments {
	case JSONArguments:
		arguments = `{"` + key + `": "` + value + `"}`
	case TagArguments:
		middle := f.Tags.Middle
		if f.Tags.String != "" {
			middle = f.Tags.String
		}
		arguments = f.Tags.Begin + key + middle + value + f.Tags.End
	case PythonArguments:
		arguments = key + `="` + value + `")`
	case GemmaArguments:
		arguments = `{` + key + `:<|"|>` + value + `<|"|>}`
	}
	return text(f.Open+f.Begin+name+f.Middle+arguments) + `(?:,\s*"id":\s*"[^"]*")?` + text(f.End+f.Close)
}

// exactly returns an expression for a text, with any ids.
func exactly(text string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(text), `\{id\}`, `[^\s"<\[]*`)
}

// flexible returns an expression for a text in any white space, with any ids.
func flexible(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(text, "{id}") {
		if i > 0 {
			b.WriteString(`[^\s"<\[]*`)
		}
		for _, c := range part {
			switch {
			case isSpace(byte(c)) && c < 0x80:
			case c == '"' || c == '\'':
				b.WriteString(`\s*["']\s*`)
			default:
				b.WriteString(`\s*` + regexp.QuoteMeta(string(c)))
			}
		}
	}
	return b.String()
}

// formatOf returns the format of a prompt that shows a call of probeTool with
// probeKey "v", and nil if it shows none that is known.
func formatOf(prompt string) *Format {
	if strings.Contains(prompt, "<|channel|>") && strings.Contains(prompt, "to=functions."+probeTool) {
		return formatHarmony
	}
	for i, f := range formats {
		if f != formatHarmony && shapes()[i].exact.MatchString(prompt) {
			return f
		}
	}
	for i, f := range formats {
		if f != formatHarmony && shapes()[i].loose.MatchString(prompt) {
			return f
		}
	}
	return nil
}

// shape is how a call looks: with the white space of the format, and with any.
type shape struct{ exact, loose *regexp.Regexp }

// shapes returns those of formats.
var shapes = sync.OnceValue(func() []shape {
	all := make([]shape, len(formats))
	for i, f := range formats {
		all[i] = shape{
			regexp.MustCompile(f.Calls.example(probeTool, probeKey, "v", exactly)),
			regexp.MustCompile(f.Calls.example(probeTool, probeKey, "v", flexible)),
		}
	}
	return all
})

// formatMarks tell the format of templates that show no calls but explain them.
var formatMarks = []struct{ mark, also, format string }{
	{"<｜tool▁sep｜>", "```json", "deepseek-v3"},
	{"<｜tool▁sep｜>", "", "deepseek-v3.1"},
	{"<|tool_calls_section_begin|>", "", "kimi-k2"},
	{"<|tool_list_start|>", "", "lfm2"},
	{"List of tools: ", "<|im_start|>", "lfm2"},
	{"respond only with <|tool_call|>", "", "granite"},
	{"<|/tool|>", "<|tool|>", "phi-4"},
	{"<|tool_call>", "<tool_call|>", "gemma4"},
	{"[func_name1(", "", "llama4"},
	{"<tool_calls>", "", "hunyuan"},
	{"<function=", "<tool_call>", "qwen3-coder"},
	{"<arg_key>", "<tool_call>", "glm-4.5"},
	{"<tool_call>", `"arguments":`, "hermes"},
}

// markedFormat returns the format that the source of a template explains, nil
// if there is none.
func markedFormat(source string) *Format {
	for _, m := range formatMarks {
		if strings.Contains(source, m.mark) && strings.Contains(source, m.also) {
			for _, f := range formats {
				if f.Name == m.format {
					return f
				}
			}
		}
	}
	return nil
}

// withSpecial returns f with the ids of its special tokens.
func (f *Format) withSpecial(ids map[string]int32) *Format {
	with := *f
	with.special = map[string]int32{}
	for text, id := range ids {
		if f.IsMarker([]byte(text)) {
			with.special[text] = id
		}
	}
	return &with
}

// texts are all that f's answers are marked with.
func (f *Format) texts() []string {
	c := &f.Calls
	all := []string{
		hermesOpen, hermesClose, mistralOpen, mistralArgs, pythonTag,
		f.Reasoning.Open, f.Reasoning.Close, f.Answer.Open, f.Answer.Close, c.Open, c.Close, c.Between, c.Begin, c.Middle, c.End, c.Tags.Begin, c.Tags.Middle, c.Tags.String, c.Tags.End,
	}
	if c.Arguments == GemmaArguments {
		all = append(all, gemmaQuote)
	}
	if f.Reasoning.Channels {
		all = append(all, channelMarks...)
	}
	if f.Template != nil {
		all = append(all, f.Template.texts()...)
	}
	return all
}

// IsMarker reports whether text, that of a special token, marks a call or
// reasoning. A Parser must see such tokens; others are not part of a text.
func (f *Format) IsMarker(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	for _, t := range f.texts() {
		if strings.Contains(t, string(text)) {
			return true
		}
	}
	return false
}
