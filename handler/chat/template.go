package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/native"
)

// Template is a checkpoint's chat template, or several by name, and its
// completion template. It may be used by any number of goroutines.
type Template struct {
	byName     map[string]*compiled
	standard   string               // the name of the one to use, "" if there is none
	completion *native.ChatTemplate // nil: none
	tokens     []byte               // special tokens, as members of a JSON object
	marks      *native.Marks        // nil: special tokens in messages count
}

// compiled is one template and what trying it has told.
type compiled struct {
	file string
	chat *native.ChatTemplate
	habits
}

// Override is a file that comes before the checkpoint's own: TGI's
// --tokenizer-config-path.
type Override struct {
	Name string // "" for none; a template itself if it ends in .jinja, else like tokenizer_config.json
	Data []byte
}

// Load compiles the templates of a checkpoint's folder. One without any gives
// a Template whose Render says so. The error is for the operator, one line
// that names the file.
func Load(folder fs.FS, override Override) (*Template, error) {
	s, err := readSources(folder, override.Name, override.Data)
	if err != nil {
		return nil, oneLine(err)
	}
	t := &Template{byName: map[string]*compiled{}}
	for _, name := range slices.Sorted(maps.Keys(s.tokens)) {
		t.tokens = fmt.Appendf(t.tokens, ", %q: %s", name, s.tokens[name])
	}
	response, err := readResponseTemplate(json.RawMessage(s.response.text))
	if err != nil {
		return nil, oneLine(fmt.Errorf("%s: %w", s.response.file, err))
	}
	for _, name := range slices.Sorted(maps.Keys(s.templates)) {
		src := s.templates[name]
		chat, err := native.NewChatTemplate(src.text)
		if err != nil {
			return nil, oneLine(fmt.Errorf("%s: template %q: %w", src.file, name, err))
		}
		c := &compiled{file: src.file, chat: chat}
		if c.habits, err = c.observe(src.text, t.tokens); err != nil {
			return nil, oneLine(fmt.Errorf("%s: template %q: %w", src.file, name, err))
		}
		c.guidelineChecked = guidelineCheck.MatchString(src.text)
		c.developer = developerRole.MatchString(src.text)
		format := *c.format
		if !format.Reasoning.Channels {
			format.Reasoning, format.Answer = reasoningOf(src.text), answerOf(src.text)
		}
		c.format = format.withTemplate(response)
		t.byName[name] = c
	}
	t.standard, _ = s.pick()
	if src := s.completion; src.text != "" {
		if t.completion, err = native.NewChatTemplate(src.text); err != nil {
			return nil, oneLine(fmt.Errorf("%s: %w", src.file, err))
		}
		_, err := t.RenderCompletion(probeWord, probeWord, maxProbeBytes)
		if err = overrun(err); err != nil {
			return nil, oneLine(fmt.Errorf("%s: %w", src.file, err))
		}
	}
	return t, nil
}

// Escape makes every text of a request, from messages to tools and variables,
// one that cannot hold special tokens: what is spelled like one stays text. Call
// it before t is shared, with the spellings of the tokens.
func (t *Template) Escape(special []string) (err error) {
	t.marks, err = native.NewMarks(stringList(special))
	return err
}

// SetSpecial tells which tokens are special: no text spells them, so a grammar
// must name them. Call it before t is shared.
func (t *Template) SetSpecial(ids map[string]int32) {
	for _, c := range t.byName {
		c.format = c.format.withSpecial(ids)
	}
}

func oneLine(err error) error {
	return fmt.Errorf("%s", strings.Join(strings.Fields(err.Error()), " "))
}

// Exists reports whether the checkpoint has a template.
func (t *Template) Exists() bool { return t.standard != "" }

// Format returns how the model writes its answers.
func (t *Template) Format() *Format {
	c, err := t.choose("", true)
	if err != nil {
		return formatTGI
	}
	return c.format
}

// choose returns the template of a name, or the one for the purpose.
func (t *Template) choose(name string, tools bool) (*compiled, error) {
	if c, ok := t.byName[toolUseName]; ok && name == "" && tools {
		return c, nil
	}
	if name == "" {
		name = t.standard
	}
	if c, ok := t.byName[name]; ok {
		return c, nil
	}
	return nil, templateError("template not found")
}

// Request is what a prompt is made from.
type Request struct {
	Messages   []Message
	Tools      []Tool  // of a Selection
	ToolPrompt string  // "" for TGI's own where one is needed
	Guideline  *string // nil if absent
	Variables  []byte  // JSON object of further variables (chat_template_kwargs), nil for none
	Template   string  // the name of a template, "" for the usual one
	MaxBytes   int     // of the prompt, 0 for DefaultMaxBytes
	// Placeholder is what stands for an image in a text, where the template takes no
	// lists of chunks; "" for Markdown with its URL.
	Placeholder string

	NewTurn            bool // a last message of the assistant is not continued
	NoGenerationPrompt bool // the prompt ends with the last message
}

// Continues reports whether the answer continues the last message.
func (r *Request) Continues() bool {
	last := len(r.Messages) - 1
	return last >= 0 && r.Messages[last].Continues() && !r.NewTurn
}

// DefaultMaxBytes is how long a prompt may be where no limit is given.
const DefaultMaxBytes = 64 << 20

// Prompt is the text for the model, special tokens spelled out and none to be
// added.
type Prompt struct {
	Text   string
	Images []Image // in the order of their places in the text
	// Thinking: the text ends inside the model's reasoning.
	Thinking bool

	// What to tokenize: Text with Mark inside of what is spelled like a special
	// token and is not one. Mark is 0 if there is nothing of the kind.
	Marked string
	Mark   rune
}

// Render makes the prompt of a request, as transformers makes it.
//
// A last message from the assistant is continued: the prompt ends with it,
// without the generation prompt, as from TGI 3 on. (TGI 2 opens a new turn
// after it.) A prompt that is too long is a *LengthError, any other fault an
// *Error.
func (t *Template) Render(r Request) (Prompt, error) {
	c, err := t.choose(r.Template, len(r.Tools) > 0)
	if err != nil {
		return Prompt{}, err
	}
	if r.Guideline == nil && c.guideline && !c.guidelineChecked {
		return Prompt{}, missingVariable("guideline")
	}
	messages := c.withTools(r)
	w := contextWriter{habits: c.habits, tagImages: r.Placeholder != ""}
	if last := len(messages) - 1; r.Continues() {
		messages = slices.Clone(messages)
		messages[last].Content = messages[last].Content.tagged()
		text, mark, err := render(c.chat, w.context(messages, r, t.tokens, false), r.MaxBytes, t.marks)
		if err != nil {
			return Prompt{}, err
		}
		if before, ok := cutTag(text); ok {
			p := newPrompt(before, mark, w.images, r.Placeholder)
			p.Thinking = c.format.thinks(p.Text, r.Messages[len(r.Messages)-1].Content.plain())
			return p, nil
		}
		return Prompt{}, templateError("the template leaves out the last message, which is the assistant's and would be continued")
	}
	text, mark, err := render(c.chat, w.context(messages, r, t.tokens, !r.NoGenerationPrompt), r.MaxBytes, t.marks)
	p := newPrompt(text, mark, w.images, r.Placeholder)
	if err == nil {
		p.Thinking = c.format.thinks(p.Text, lastLine(p.Text))
	}
	return p, err
}

// lastLine returns the last line that is not empty: a template that begins the
// model's reasoning ends with the mark, alone or after the role.
func lastLine(text string) string {
	text = strings.TrimRight(text, "\r\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// imageTag stands for an image in a text until the template has been rendered: the
// placeholder would be taken for text that is spelled like a special token.
const imageTag = "IMAGE_OF_MESSAGE_TAG"

func newPrompt(marked string, mark rune, images []Image, placeholder string) Prompt {
	if placeholder != "" {
		marked = strings.ReplaceAll(marked, imageTag, placeholder)
	}
	p := Prompt{Text: marked, Images: images, Marked: marked, Mark: mark}
	if mark != 0 {
		p.Text = strings.ReplaceAll(marked, string(mark), "")
	}
	return p
}

// largeContext is how long a context must be for the memory that rendering took
// to be worth giving back to the system.
const largeContext = 64 << 10

// render renders a context. What the template raises is for the client.
func render(t *native.ChatTemplate, context []byte, maxBytes int, marks *native.Marks) (text string, mark rune, err error) {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	text, mark, err = t.Render(context, maxBytes, marks)
	if len(context) > largeContext {
		native.Trim()
	}
	switch {
	case errors.Is(err, native.ErrTooLong):
		err = &LengthError{maxBytes}
	case errors.As(err, new(*native.LimitError)):
		err = fmt.Errorf("%w: %w", templateError("%s", err), err)
	case err != nil:
		err = templateError("%s", err)
	}
	return text, mark, err
}

// overrun returns what err says of limits that a rendering went beyond, nil if
// it says nothing of them. No template goes there on a few words unless it is
// made to.
func overrun(err error) error {
	var limit *native.LimitError
	var length *LengthError
	switch {
	case errors.As(err, &limit):
		return limit
	case errors.As(err, &length):
		return length
	}
	return nil
}

// Continues reports whether the model can go on with m.
func (m Message) Continues() bool {
	return m.Role == "assistant" && len(m.Calls) == 0 && strings.TrimSpace(m.Content.plain()) != ""
}

// continueTag marks where a message ends that is to be continued; the space
// tells whether the template trims.
const continueTag = "CONTINUE_FINAL_MESSAGE_TAG "

// tagged returns the content with the tag after its last text.
func (c Content) tagged() Content {
	if c.Chunks == nil {
		return Content{Text: c.Text + continueTag}
	}
	chunks := slices.Clone(c.Chunks)
	for i := len(chunks) - 1; i >= 0; i-- {
		if chunks[i].Image == "" {
			chunks[i].Text += continueTag
			break
		}
	}
	return Content{Chunks: chunks}
}

// cutTag returns the text before the tag, without the space that the template
// would have trimmed from the message.
func cutTag(text string) (string, bool) {
	at := strings.LastIndex(text, strings.TrimSpace(continueTag))
	if at < 0 {
		return "", false
	}
	if strings.HasPrefix(text[at:], continueTag) {
		return text[:at], true
	}
	return strings.TrimRight(text[:at], " \t\r\n"), true
}

// toolPrompt is TGI's: what tells a model how to call.
const toolPrompt = "\nGiven the functions available, please respond with a JSON for a function call with its proper arguments that best answers the given prompt. " +
	"Respond in the format {name: function name, parameters: dictionary of argument name and its value}.Do not use variables.\n"

// withTools returns the messages with what a template does not say of tools:
// where it does not list them, their specifications and a prompt stand after
// the last message that is not the assistant's. A template that lists tools
// and has a form of its own for calls explains it, so there only a prompt that
// the client gave is added; TGI adds its own always.
func (c *compiled) withTools(r Request) []Message {
	prompt := r.ToolPrompt
	if prompt == "" && (!c.tools || c.format.Name == formatTGI.Name) {
		prompt = toolPrompt
		if text, ok := c.format.write([]Call{{Name: "function name", Arguments: `{"argument name": "value"}`}}); ok {
			prompt = strings.Replace(toolPrompt, "{name: function name, parameters: dictionary of argument name and its value}", text+" ", 1)
		}
	}
	if len(r.Tools) == 0 || prompt == "" {
		return r.Messages
	}
	text := "\n---\n"
	if !c.tools {
		text += string(specifications(r.Tools)) + "\n"
	}
	messages := slices.Clone(r.Messages)
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role != "assistant" {
			messages[i].Content = messages[i].Content.with(text + prompt)
			break
		}
	}
	return messages
}

// specifications is the JSON list of what templates see of tools.
func specifications(tools []Tool) []byte {
	specs := make([][]byte, len(tools))
	for i, t := range tools {
		specs[i] = t.Spec
	}
	return slices.Concat([]byte("["), bytes.Join(specs, []byte(", ")), []byte("]"))
}
