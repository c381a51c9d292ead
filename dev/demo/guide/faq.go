package guide

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// The chapters that are about nothing.
var chatter = map[string]bool{"12-small-talk.md": true, "13-off-topic.md": true}

// FAQ returns the guide in Markdown: a table of contents, then the questions
// and answers by chapter. Small talk, and what the model says about itself, are
// left out.
func FAQ(chapters []Chapter) []byte {
	var contents, body bytes.Buffer
	for _, c := range chapters {
		if chatter[c.File] {
			continue
		}
		fmt.Fprintf(&contents, "\n**%s**\n\n", c.Title)
		fmt.Fprintf(&body, "\n## %s\n", c.Title)
		for _, t := range c.Topics {
			if strings.HasPrefix(t.Answer, "I ") {
				continue
			}
			fmt.Fprintf(&contents, "- [%s](#%s)\n", t.Question(), slug(t.Question()))
			fmt.Fprintf(&body, "\n### %s\n\n%s\n", t.Question(), markdown(t.Answer))
		}
	}
	return fmt.Appendf(nil, "# Questions and answers\n\n"+
		"The built-in demo model learns these answers; `make faq` writes this page from the same text, [dev/demo/text](../dev/demo/text).\n%s%s",
		contents.Bytes(), body.Bytes())
}

var unlinked = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// slug returns the anchor that GitHub gives a heading.
func slug(heading string) string {
	return strings.ReplaceAll(unlinked.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// code matches what is typed or read by a program: commands, calls, JSON,
// images, addresses, flags, paths, variables and fields.
var code = regexp.MustCompile(strings.Join([]string{
	`\bmillrace (?:serve|chat|pull|inspect|sagemaker (?:deploy|invoke|status|delete|local)|lambda (?:run|local|deploy)|bench|env|completion|--version)\b(?: (?:\S*/\S*\w|[A-Z]+\b|--[a-z-]+))*`,
	`\bdocker run [^.;]*IMAGE(?: serve\b)?`,
	`\bmake (?:run|test|bench-peer|bench|cuda)\b`,
	`!\[\]\(\w+\)`,
	`\w[\w.]*\([^()]*["=][^()]*(?:\([^()]*\)[^()]*)?\)(?:\.json\(\))?(?:\["\w+"\])?`,
	`\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}`,
	`"[a-z_]+": [a-z]+`,
	`(?:s3|https?)://[\w./:-]*[\w/]`,
	`--[a-z][\w-]*(?:=\w+| (?:\d+|N|openai|tgi|auto|cpu|cuda|s3://[\w/]+|/path/to/model)\b)?`,
	`\b[\w-]+/[\w./-]*\w@\w+`,
	`(?:\b[\w.-]+)?/[\w./-]*[\w/]`,
	`\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b(?:=\w+)?`,
	`\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?:\.json)?\b(?:: true)?`,
}, "|"))

// markdown marks the code in an answer.
func markdown(answer string) string {
	if strings.HasPrefix(answer, "curl ") {
		return "```sh\n" + answer + "\n```"
	}
	return code.ReplaceAllString(answer, "`$0`")
}
