package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
)

// manCommand is the command that prints the manual page, in groff's man macros.
type manCommand struct{}

// Run prints the page.
func (manCommand) Run(ctx *kong.Context) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH MILLRACE 1 \"\" \"%s\" \"User Commands\"\n", manText("millrace "+version))
	fmt.Fprintf(&b, ".SH NAME\nmillrace \\- serve text generation over TGI's and OpenAI's APIs\n")
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B millrace\n[\\fICOMMAND\\fR] [\\fIflags\\fR]\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\nWithout a command it is serve. A flag wins over its environment variable, and that over the config file.\n")
	fmt.Fprintf(&b, ".SH COMMANDS\n")
	for _, command := range ctx.Model.Leaves(true) {
		writeCommand(&b, command)
	}
	fmt.Fprintf(&b, ".SH EXIT STATUS\n0 after an orderly end, 1 if something failed while running, 2 if the command line, the configuration or the model is wrong.\n")
	writeExamples(&b, "")
	_, err := b.WriteTo(ctx.Stdout)
	return err
}

// writeCommand describes a command and its flags.
func writeCommand(b *bytes.Buffer, command *kong.Node) {
	fmt.Fprintf(b, ".SS millrace %s\n%s\n", manText(command.Summary()), manText(command.Help))
	for _, p := range command.Positional {
		fmt.Fprintf(b, ".TP\n\\fI%s\\fR\n%s\n", manText(p.Summary()), manText(p.Help))
	}
	if path := commandPath(command); path == "env" || path == "lambda run" { // whose flags are serve's
		fmt.Fprintf(b, ".PP\nThe flags of serve.\n")
		return
	}
	for _, f := range command.Flags {
		if f.Hidden {
			continue
		}
		fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s\n", manText(f.String()), manText(config.Help(f.Value)))
	}
}

// writeExamples shows the examples of a command as help does.
func writeExamples(b *bytes.Buffer, command string) {
	_, lines, _ := strings.Cut(examples[command], "\n")
	fmt.Fprintf(b, ".SH EXAMPLES\n.nf\n%s.fi\n", manText(lines))
}

// manText is text as groff prints it literally.
func manText(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") { // a request otherwise
			lines[i] = `\&` + line
		}
	}
	var b strings.Builder
	for _, r := range strings.Join(lines, "\n") {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}
