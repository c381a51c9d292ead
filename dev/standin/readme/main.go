// Readme writes the tables of inputs and outputs into the README.md of Terraform
// modules, between two comments that it leaves in place:
//
//	readme FOLDER...         writes them
//	readme -check FOLDER...  fails where a table is not what it would write
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const begin, end = "<!-- inputs and outputs -->", "<!-- end -->"

func main() {
	check := flag.Bool("check", false, "fail where a table is out of date, and write nothing")
	flag.Parse()
	failed := false
	for _, folder := range flag.Args() {
		if err := update(folder, *check); err != nil {
			fmt.Fprintln(os.Stderr, "readme:", err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// update brings the tables of one module up to date, or says that they are not.
func update(folder string, check bool) error {
	inputs, err := blocks(filepath.Join(folder, "variables.tf"), "variable")
	if err != nil {
		return err
	}
	outputs, err := blocks(filepath.Join(folder, "outputs.tf"), "output")
	if err != nil {
		return err
	}
	path := filepath.Join(folder, "README.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s: has no %s followed by %s", path, begin, end)
	}

	var text bytes.Buffer
	fmt.Fprintf(&text, "%s%s\n\n## Inputs\n\n| Name | Meaning | Type | Default |\n| --- | --- | --- | --- |\n", head, begin)
	for _, in := range inputs {
		fallback := "required"
		if in.fallback != "" {
			fallback = "`" + in.fallback + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", in.name, in.description, typeCell(in.kind), fallback)
	}
	fmt.Fprint(&text, "\n## Outputs\n\n| Name | Meaning |\n| --- | --- |\n")
	for _, out := range outputs {
		fmt.Fprintf(&text, "| `%s` | %s |\n", out.name, out.description)
	}
	fmt.Fprintf(&text, "\n%s%s", end, tail)

	if bytes.Equal(text.Bytes(), old) {
		return nil
	}
	if check {
		return fmt.Errorf("%s: its tables are out of date; `make terraform-readme` writes them", path)
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// typeCell writes a type for a table: an object with a line for each attribute.
func typeCell(kind string) string {
	inner, object := strings.CutPrefix(kind, "object({")
	if !object || !strings.HasSuffix(inner, "})") {
		return "`" + kind + "`"
	}
	cell, depth, from := "object with", 0, 0
	inner = strings.TrimSuffix(inner, "})") + ","
	for i, r := range inner {
		switch {
		case strings.ContainsRune("({[", r):
			depth++
		case strings.ContainsRune(")}]", r):
			depth--
		case r == ',' && depth == 0:
			if attribute := strings.TrimSpace(inner[from:i]); attribute != "" {
				cell += "<br>`" + attribute + "`"
			}
			from = i + 1
		}
	}
	return cell
}

// A block is a variable or an output, with its expressions as they are written,
// on one line.
type block struct{ name, description, kind, fallback string }

func blocks(path, kind string) ([]block, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	file, diags := hclsyntax.ParseConfig(source, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	written := func(a *hclsyntax.Attribute) string {
		if a == nil {
			return ""
		}
		return oneLine(string(a.Expr.Range().SliceBytes(source)))
	}
	var out []block
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type != kind {
			continue
		}
		described := b.Body.Attributes["description"]
		if described == nil {
			return nil, fmt.Errorf("%s: %s has no description", path, b.Labels[0])
		}
		value, diags := described.Expr.Value(nil)
		if diags.HasErrors() {
			return nil, diags
		}
		typed := b.Body.Attributes["type"]
		if kind == "variable" && typed == nil {
			return nil, fmt.Errorf("%s: %s has no type", path, b.Labels[0])
		}
		out = append(out, block{
			name:        b.Labels[0],
			description: strings.ReplaceAll(strings.TrimSpace(value.AsString()), "\n", "<br>"),
			kind:        strings.ReplaceAll(written(typed), " = ", ": "),
			fallback:    written(b.Body.Attributes["default"]),
		})
	}
	return out, nil
}

var (
	fieldEnd = regexp.MustCompile(`([^\s{,])[ \t]*\n\s*([^\s}])`)
	spaces   = regexp.MustCompile(`\s+`)
)

// oneLine puts an expression of several lines on one, with the commas that the
// line ends stood for.
func oneLine(expression string) string {
	line := spaces.ReplaceAllString(fieldEnd.ReplaceAllString(expression, "$1, $2"), " ")
	return strings.NewReplacer("{ ", "{", " }", "}", "|", "\\|").Replace(line)
}
