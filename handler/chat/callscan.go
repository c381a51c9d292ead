package chat

import "encoding/json"

// callScan follows the JSON object of a call, in any of the forms that models
// use:
//
//	{"name": f, "arguments": {…}}                        also "parameters", also as a string
//	{"type": "function", "function": {"name": f, …}}     OpenAI's
//	{"function": {"_name": f, argument: …, …}}           TGI's
//
// Members may come in any order, but for TGI's, where the name comes first.
type callScan struct {
	known  map[string]bool // the names that may be called
	json   scan
	level  int // open brackets where the call's members are
	member member
	text   []byte // of the key or value that is being read
	name   string
	inline bool   // the members after the name are the arguments
	skip   bool   // white space before the first of them is left out
	args   []byte // arguments that were not taken yet
	begun  bool   // the arguments have begun
}

// member says what a key of the call stands for.
type member int

const (
	memberOther member = iota // read and dropped
	memberName
	memberInlineName
	memberFunction
	memberArguments
	memberText // arguments as a string
)

// inlineName is the member of TGI's calls that has the tool's name.
const inlineName = "_name"

func memberOf(key string) (m member, ok bool) {
	switch key {
	case "name":
		return memberName, true
	case inlineName:
		return memberInlineName, true
	case "function":
		return memberFunction, true
	case "arguments", "parameters":
		return memberArguments, true
	case "type", "id", "description":
		return memberOther, true
	}
	return 0, false
}

func newCallScan(known map[string]bool) *callScan {
	return &callScan{known: known, level: 1}
}

// newArgumentScan follows the arguments alone of a call whose name is known.
func newArgumentScan(name string) *callScan {
	return &callScan{name: name, member: memberArguments}
}

// ready reports whether the call is one for certain: its name is known and its
// arguments have begun, or there are none.
func (c *callScan) ready() bool {
	return c.name != "" && (c.begun || c.done())
}

func (c *callScan) done() bool { return c.json.state == scanDone }

// partialName returns the name, or what there is of it if it is being read: its
// end may be missing, so that it may be another's.
func (c *callScan) partialName() string {
	if (c.member == memberName || c.member == memberInlineName) && c.json.state == scanString && !c.json.key && len(c.text) > 0 {
		return string(c.text[1:]) // without its quote
	}
	return c.name
}

// whole reports whether the arguments have ended, if not all that is around them.
func (c *callScan) whole() bool { return c.begun && !c.inline && len(c.json.open) <= c.level }

// take returns the arguments that came since the last take.
func (c *callScan) take() []byte {
	if c.done() && !c.begun {
		c.begun = true
		return []byte("{}")
	}
	args := c.args
	c.args = c.args[:0]
	return args
}

// next takes one byte, and reports whether the text is still that of a call.
func (c *callScan) next(b byte) bool {
	before := c.json.state
	depth := len(c.json.open)
	if !c.json.next(b) {
		return false
	}
	if c.inline && depth >= c.level {
		c.inlined(before, b)
		return true
	}
	switch after := c.json.state; {
	case depth > c.level: // inside of a value
		c.value(before, b)
	case depth < c.level: // outside of the call, or at its opening bracket
	case before == scanString && c.json.key:
		if after != scanColon {
			c.text = append(c.text, b)
			return len(c.text) <= maxKey
		}
		return c.keyed()
	case c.json.key && after == scanString: // its quote, or after an escape, which no key of a call has
		c.text = c.text[:0]
	case before == scanValue && !isSpace(b):
		return c.open(b)
	case !c.json.key && (before == scanString || before == scanEscape || before == scanHex):
		c.value(before, b)
		if after == scanAfter {
			return c.closed()
		}
	}
	return true
}

// maxKey is more than the longest key that a call can have.
const maxKey = 16

// keyed has read a key.
func (c *callScan) keyed() (ok bool) {
	c.member, ok = memberOf(string(c.text))
	return ok
}

// open takes the first byte of a member's value.
func (c *callScan) open(b byte) bool {
	c.text = append(c.text[:0], b)
	switch c.member {
	case memberName, memberInlineName:
		return b == '"' && c.name == ""
	case memberFunction:
		if b == '{' && c.level == 1 {
			c.level = 2
			return true
		}
		c.member = memberName // a few models give the name here
		return b == '"' && c.name == ""
	case memberArguments:
		switch {
		case c.begun || !isAny(b, `{"n`):
			return false
		case b == '"':
			c.member = memberText
		case b == '{':
			c.begun = true
			c.args = append(c.args, b)
		}
	}
	return true
}

// value takes a further byte of a member's value.
func (c *callScan) value(before scanState, b byte) {
	switch c.member {
	case memberArguments:
		c.argument(before, b)
	case memberName, memberInlineName, memberText:
		c.text = append(c.text, b)
	}
}

// argument takes a byte of the arguments.
func (c *callScan) argument(before scanState, b byte) {
	if before == scanString && b < 0x20 {
		c.args = appendCharacter(c.args, rune(b))
		return
	}
	c.args = append(c.args, b)
}

// closed has read a string that is a member's value.
func (c *callScan) closed() bool {
	switch c.member {
	case memberName, memberInlineName:
		c.inline = c.member == memberInlineName
		return json.Unmarshal(c.text, &c.name) == nil && c.known[c.name]
	case memberText:
		args, ok := asObject(string(c.text))
		if string(c.text) == `""` {
			args, ok = "{}", true
		}
		c.args, c.begun = append(c.args, args...), true
		return ok
	}
	return true
}

// inlined takes a byte after TGI's `_name`: the arguments are what is left of
// its object.
func (c *callScan) inlined(before scanState, b byte) {
	switch {
	case c.begun && c.skip && isSpace(b):
		return
	case c.begun:
		c.skip = false
		c.argument(before, b)
	case b == ',':
		c.begun, c.skip = true, true
		c.args = append(c.args, '{')
	case b == '}':
		c.begun = true
		c.args = append(c.args, "{}"...)
	}
	if len(c.json.open) < c.level {
		c.inline, c.member = false, memberOther
	}
}
