package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/zclconf/go-cty/cty"
)

// TestObjectKeys finds what Terraform passes over: a misspelt key of an object
// that is written for an attribute of a resource, or for a variable of a
// module. Terraform drops a key that the type does not have, and if the one
// that was meant may be left out, says nothing.
func TestObjectKeys(t *testing.T) {
	providers, err := readSchemas(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob("../../terraform/*/*/versions.tf")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no modules found: %v", err)
	}
	for _, versions := range folders {
		folder := filepath.Dir(versions)
		t.Run(strings.TrimPrefix(folder, "../../terraform/"), func(t *testing.T) {
			for _, problem := range objectProblems(t, folder, providers) {
				t.Error(problem)
			}
		})
	}
}

// TestObjectKeysAreFound has the search find what is wrong on purpose.
func TestObjectKeysAreFound(t *testing.T) {
	providers, err := readSchemas(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.tf": `resource "awscc_sagemaker_inference_component" "x" {
  endpoint_name = "x"
  specification = true ? { data_cache_confg = { enable_caching = true } } : null
}
module "x" {
  source     = "./child"
  deployment = { stategy = "canary" }
  nested     = { inner = [{ a = 1, c = 2 }] }
}`,
		"child/variables.tf": `variable "deployment" { type = object({ strategy = optional(string) }) }
variable "nested" { type = object({ inner = optional(list(object({ a = number }))) }) }`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := objectProblems(t, dir, providers)
	for _, want := range []string{"data_cache_confg", "stategy", "c: not one of a"} {
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("%q was not found in %q", want, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("found %d problems, want 3: %q", len(got), got)
	}
}

func objectProblems(t *testing.T, folder string, providers map[string]*provider) []string {
	t.Helper()
	var problems []string
	for _, b := range blocksOf(t, folder) {
		switch b.Type {
		case "resource":
			for _, p := range providers {
				schema := p.resources[b.Labels[0]]
				if schema == nil {
					continue
				}
				for _, a := range schema.Block.Attributes {
					if written := b.Body.Attributes[a.Name]; written != nil && a.NestedType != nil {
						problems = append(problems, keysOf(written.Expr, nestedType(a.NestedType))...)
					}
				}
			}
		case "module":
			source, diags := b.Body.Attributes["source"].Expr.Value(nil)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			for name, kind := range variables(t, filepath.Join(folder, source.AsString())) {
				if written := b.Body.Attributes[name]; written != nil {
					problems = append(problems, keysOf(written.Expr, kind)...)
				}
			}
		}
	}
	return problems
}

// keysOf compares the keys of every object written in an expression with those
// of the type it is for.
func keysOf(expr hclsyntax.Expression, want cty.Type) []string {
	var problems []string
	switch e := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		return keysOf(e.Expression, want)
	case *hclsyntax.ConditionalExpr:
		return append(keysOf(e.TrueResult, want), keysOf(e.FalseResult, want)...)
	case *hclsyntax.ForExpr:
		if want.IsCollectionType() {
			return keysOf(e.ValExpr, want.ElementType())
		}
	case *hclsyntax.TupleConsExpr:
		if want.IsCollectionType() {
			for _, element := range e.Exprs {
				problems = append(problems, keysOf(element, want.ElementType())...)
			}
		}
	case *hclsyntax.ObjectConsExpr:
		for _, item := range e.Items {
			key := hcl.ExprAsKeyword(item.KeyExpr)
			switch {
			case want.IsMapType():
				problems = append(problems, keysOf(item.ValueExpr, want.ElementType())...)
			case !want.IsObjectType() || key == "":
			case !want.HasAttribute(key):
				names := strings.Join(slices.Sorted(maps.Keys(want.AttributeTypes())), ", ")
				problems = append(problems, fmt.Sprintf("%s: %s: not one of %s", item.KeyExpr.Range(), key, names))
			default:
				problems = append(problems, keysOf(item.ValueExpr, want.AttributeType(key))...)
			}
		}
	}
	return problems
}

// nestedType is the type of a nested attribute, as far as keys are concerned.
func nestedType(o *tfprotov6.SchemaObject) cty.Type {
	fields := make(map[string]cty.Type)
	for _, a := range o.Attributes {
		fields[a.Name] = cty.DynamicPseudoType
		if a.NestedType != nil {
			fields[a.Name] = nestedType(a.NestedType)
		}
	}
	if o.Nesting == tfprotov6.SchemaObjectNestingModeSingle {
		return cty.Object(fields)
	}
	return cty.List(cty.Object(fields))
}

func variables(t *testing.T, folder string) map[string]cty.Type {
	t.Helper()
	out := make(map[string]cty.Type)
	for _, b := range blocksOf(t, folder) {
		if b.Type != "variable" {
			continue
		}
		kind, _, diags := typeexpr.TypeConstraintWithDefaults(b.Body.Attributes["type"].Expr)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		out[b.Labels[0]] = kind
	}
	return out
}

func blocksOf(t *testing.T, folder string) []*hclsyntax.Block {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	var out []*hclsyntax.Block
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, diags := hclsyntax.ParseConfig(source, path, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		out = append(out, file.Body.(*hclsyntax.Body).Blocks...)
	}
	return out
}
