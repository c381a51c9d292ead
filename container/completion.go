package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCommand is the command that prints a shell's completion script.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// scripts ask the program itself how a line may go on, so that they never are
// out of date. Where it offers nothing, the shell offers files.
var scripts = map[string]string{
	"bash": `_millrace() {
  local cur="${COMP_WORDS[COMP_CWORD]}" IFS=$'\n'
  COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1)" -- "$cur"))
}
complete -o default -F _millrace millrace
`,
	"zsh": `#compdef millrace
_millrace() {
  local -a found
  local line
  for line in ${(f)"$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
    found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  if (( ${#found} )); then _describe millrace found; else _files; fi
}
compdef _millrace millrace
`,
	"fish": `function __millrace_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] __complete $words[2..-1] 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c millrace -f -a '(__millrace_complete)'
`,
}

// Run prints the script.
func (c *completionCommand) Run(ctx *kong.Context) error {
	_, err := io.WriteString(ctx.Stdout, scripts[c.Shell])
	return err
}

// completeCommand answers the scripts.
type completeCommand struct {
	Words []string `arg:"" optional:""`
}

// Run prints one possible next word per line, and after a tab what it is.
func (c *completeCommand) Run(ctx *kong.Context) error {
	words := c.Words
	if len(words) == 0 {
		words = []string{""}
	}
	for _, line := range complete(ctx.Model.Node, words) {
		if _, err := fmt.Fprintln(ctx.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// complete returns what the last word may become, after those before it.
func complete(root *kong.Node, words []string) (found []string) {
	node, last := root, words[len(words)-1]
	var waiting *kong.Flag // for its value
	for _, word := range words[:len(words)-1] {
		switch {
		case waiting != nil:
			waiting = nil
		case strings.HasPrefix(word, "-"):
			if f := flagNamed(node, word); f != nil && !f.IsBool() {
				waiting = f
			}
		default:
			if child := childNamed(node, word); child != nil {
				node = child
			}
		}
	}
	add := func(word, help string) {
		if strings.HasPrefix(word, last) {
			found = append(found, word+"\t"+firstSentence(help))
		}
	}
	switch {
	case waiting != nil:
		for _, value := range waiting.EnumSlice() {
			add(value, "")
		}
	case strings.HasPrefix(last, "-"):
		for _, f := range flagsOf(node) {
			add("--"+f.Name, f.Help)
		}
	default:
		if node.Name == "help" {
			node = root
		}
		for _, child := range node.Children {
			if !child.Hidden {
				add(child.Name, child.Help)
			}
		}
		for _, p := range node.Positional {
			for _, value := range p.EnumSlice() {
				add(value, "")
			}
		}
	}
	return found
}

// flagsOf are the flags that may follow node, those of its default command too.
func flagsOf(node *kong.Node) (flags []*kong.Flag) {
	for n := node; n != nil; n = n.Parent {
		flags = append(flags, n.Flags...)
	}
	if node.DefaultCmd != nil {
		flags = append(flags, node.DefaultCmd.Flags...)
	}
	visible := flags[:0]
	for _, f := range flags {
		if !f.Hidden {
			visible = append(visible, f)
		}
	}
	return visible
}

// flagNamed is the flag that word gives without its value, nil if there is none.
func flagNamed(node *kong.Node, word string) *kong.Flag {
	for _, f := range flagsOf(node) {
		if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
			return f
		}
	}
	return nil
}

func childNamed(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// firstSentence is the beginning of a help text, for lists.
func firstSentence(help string) string {
	first, _, _ := strings.Cut(help, ". ")
	return strings.TrimSuffix(first, ".")
}
