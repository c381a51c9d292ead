package chat

import (
	"regexp"
	"strings"
)

// habits are what a template expects and does. They are found by rendering
// made-up conversations: a template is a program, and what it does is easier
// to see than to read.
type habits struct {
	strings       bool        // content may be a string
	lists         bool        // content may be a list of chunks
	tools         bool        // lists tools in the prompt
	calls         bool        // shows the calls of an assistant's message
	toolRole      bool        // shows messages of role tool
	textArguments bool        // takes the arguments of a call as a string
	shortIDs      bool        // takes only ids of nine characters
	absent        absentStyle // how a message without content looks
	format        *Format
	guideline     bool // prints the guideline
	// guidelineChecked: the template itself looks whether there is a guideline.
	guidelineChecked bool
	developer        bool // names the role developer
	xmlTools         bool // calls the tools xml_tools
}

// absentStyle is what stands for a content of null.
type absentStyle int

// The styles, in the order they are tried: transformers leaves null out since
// version 5, and passed it before.
const (
	leftOut absentStyle = iota
	asNull
	asEmpty
)

var guidelineCheck = regexp.MustCompile(`\bguideline\s+is\s+(not\s+)?(un)?defined\b|\bguideline\s*\|\s*default\b`)

// developerRole finds a template that knows OpenAI's newer name of the system's
// role. One that only shows any role would show a word that the model was not
// trained on.
var developerRole = regexp.MustCompile(`["']developer["']`)

// Words of the made-up conversations, which no template contains.
const (
	probeWord   = "probeword"
	probeTool   = "probetool"
	probeKey    = "probekey"
	probeResult = "proberesult"
)

// observe tries the template. tokens are those of a context. The error is of a
// template that goes beyond the limits of rendering.
func (c *compiled) observe(source string, tokens []byte) (habits, error) {
	p := &prober{c: c, tokens: tokens}
	user := Message{Role: "user", Content: Content{Text: probeWord}}
	list := Message{Role: "user", Content: Content{Chunks: []Chunk{{Text: probeWord}}}}

	h := habits{strings: true, toolRole: true, format: formatTGI, xmlTools: strings.Contains(source, "xml_tools")}
	if f := markedFormat(source); f != nil {
		h.format = f
	}
	h.strings = p.shows(h, Request{Messages: []Message{user}}, probeWord)
	lists := h
	lists.lists = true
	h.lists = p.showsChunks(lists, list)
	if !h.lists {
		h.strings = true // nothing else is left to try
	}

	withTool := Request{Messages: []Message{user}, Tools: []Tool{{Spec: []byte(
		`{"type": "function", "function": {"name": "` + probeTool + `", "description": "d", "parameters": {"type": "object", "properties": {"` +
			probeKey + `": {"type": "string", "description": "d"}}, "required": ["` + probeKey + `"]}}}`)}}}
	h.tools = p.shows(h, withTool, probeTool)
	guideline := probeResult
	h.guideline = p.shows(h, Request{Messages: []Message{user}, Guideline: &guideline}, probeResult)
	h = p.observeCalls(h, user, withTool.Tools)
	return h, p.overrun
}

// observeCalls finds the shape in which the template shows a call and its result.
func (p *prober) observeCalls(h habits, user Message, tools []Tool) habits {
	const id = "functions." + probeTool + ":0" // Kimi's show nothing but it
	conversation := []Message{
		user,
		{Role: "assistant", Content: Content{Absent: true}, Calls: []Call{{ID: id, Name: probeTool, Arguments: `{"` + probeKey + `": "v"}`}}},
		{Role: "tool", Name: probeTool, ToolCallID: id, Content: Content{Text: probeResult}},
	}
	r := Request{Messages: conversation, Tools: tools}
	if !h.tools {
		r.Tools = nil
	}
	for _, try := range h.callHabits() {
		text, ok := p.render(try, r)
		if !ok || !showsCall(text) || !strings.Contains(text, probeResult) {
			continue
		}
		if f := formatOf(text); f != nil {
			try.format = f
		}
		return try
	}
	// Without calls: a result after an answer, as what it is or as a user's.
	conversation[1] = Message{Role: "assistant", Content: Content{Text: probeWord}}
	conversation[2].ToolCallID = ""
	h.toolRole = p.shows(h, Request{Messages: conversation}, probeResult)
	h.absent = asEmpty
	return h
}

// callHabits lists the ways to show calls, likely ones first.
func (h habits) callHabits() (all []habits) {
	h.calls = true
	for _, h.toolRole = range []bool{true, false} {
		for _, h.shortIDs = range []bool{false, true} {
			for _, h.textArguments = range []bool{false, true} {
				for _, h.absent = range []absentStyle{leftOut, asNull, asEmpty} {
					all = append(all, h)
				}
			}
		}
	}
	return all
}

// showsCall reports whether a prompt has the made-up call with its argument in
// JSON, and no trace of an absent content.
func showsCall(text string) bool {
	after := text[max(0, strings.LastIndex(text, probeTool)):]
	return strings.Contains(text, probeTool) && !strings.Contains(text, "None") &&
		(strings.Contains(text, `"`+probeKey+`": "v"`) || strings.Contains(text, `"`+probeKey+`":"v"`) || strings.Contains(after, probeKey+`="v"`) || formatOf(text) != nil)
}

// maxProbeBytes is more than any template makes of a few words.
const maxProbeBytes = 1 << 20

// prober renders made-up conversations with a template.
type prober struct {
	c       *compiled
	tokens  []byte
	overrun error // the first; nothing is rendered after it
}

func (p *prober) render(h habits, r Request) (string, bool) {
	if p.overrun != nil {
		return "", false
	}
	w := contextWriter{habits: h}
	text, _, err := render(p.c.chat, w.context(r.Messages, r, p.tokens, true), maxProbeBytes, nil)
	p.overrun = overrun(err)
	return text, err == nil
}

// shows reports whether word is in the prompt.
func (p *prober) shows(h habits, r Request, word string) bool {
	text, ok := p.render(h, r)
	return ok && strings.Contains(text, word)
}

// showsChunks reports whether a list of chunks is shown as the text in it, and
// not as a list in Python's or JSON's notation.
func (p *prober) showsChunks(h habits, m Message) bool {
	text, ok := p.render(h, Request{Messages: []Message{m}})
	at := strings.Index(text, probeWord)
	if !ok || at < 0 {
		return false
	}
	before := strings.TrimRight(text[:at], `'"`)
	return !strings.HasSuffix(before, `'text': `) && !strings.HasSuffix(before, `"text": `) && !strings.HasSuffix(before, `"text":`)
}
