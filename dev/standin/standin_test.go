package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTerraformChecks has Terraform check configurations against the stand-in,
// as it does the modules. test.sh says in MILLRACE_TERRAFORM which program that
// is, and in TF_CLI_CONFIG_FILE where the stand-in is installed.
func TestTerraformChecks(t *testing.T) {
	terraform := os.Getenv("MILLRACE_TERRAFORM")
	if terraform == "" {
		t.Skip("run by terraform/test.sh, which installs the stand-in")
	}
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		cmd := exec.Command(terraform, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TF_IN_AUTOMATION=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("versions.tf", `terraform {
  required_providers {
    aws   = { source = "hashicorp/aws" }
    awscc = { source = "hashicorp/awscc" }
  }
}`)
	if out, err := run("init", "-backend=false", "-input=false", "-no-color"); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}

	alias := func(arguments string) string {
		return `resource "aws_lambda_alias" "x" {
  function_name    = "f"
  function_version = "1"
` + arguments + `
}`
	}
	model := func(container string) string {
		return `resource "aws_sagemaker_model" "x" {
  execution_role_arn = "arn:aws:iam::123456789012:role/x"
  primary_container {
` + container + `
  }
}`
	}
	component := func(specification string) string {
		return `resource "awscc_sagemaker_inference_component" "x" {
  endpoint_name = "e"
  specification = { ` + specification + ` }
}`
	}
	cases := map[string]struct { // each in a file named like the case
		config string
		want   string // in the error; empty where there must be none
	}{
		"right":                            {config: alias(`name = "a"`)},
		"right block":                      {config: model(`image = "i"`)},
		"right nested attribute":           {config: component(`data_cache_config = { enable_caching = true }`)},
		"misspelt resource":                {config: `resource "aws_lambda_alais" "x" {}`, want: "does not support resource type"},
		"misspelt argument":                {config: alias("name = \"a\"\nfuncton_name = \"f\""), want: `argument named "functon_name" is not expected`},
		"missing argument":                 {config: alias(""), want: `"name" is required`},
		"mistyped argument":                {config: alias(`name = ["a"]`), want: "string required"},
		"computed argument":                {config: alias("name = \"a\"\narn = \"a\""), want: "arn is computed"},
		"computed argument in a block":     {config: `resource "aws_lambda_function" "x" { ` + "\nfunction_name = \"f\"\nrole = \"r\"\nvpc_config {\nsubnet_ids = []\nsecurity_group_ids = []\nvpc_id = \"v\"\n}\n}", want: "vpc_id is computed"},
		"misspelt argument in a block":     {config: model(`imgae = "i"`), want: `argument named "imgae" is not expected`},
		"unknown block":                    {config: model("image_cfg {\n}"), want: `type "image_cfg" are not expected`},
		"argument for a block":             {config: model(`image_config = { repository_access_mode = "Vpc" }`), want: `argument named "image_config" is not expected`},
		"block for an argument":            {config: model("environment {\n}"), want: `type "environment" are not expected`},
		"block too many":                   {config: model("image_config {\nrepository_access_mode = \"Vpc\"\n}\nimage_config {\nrepository_access_mode = \"Vpc\"\n}"), want: "No more than 1"},
		"block missing":                    {config: model("model_data_source {\n}"), want: "At least 1 \"s3_data_source\" blocks"},
		"mistyped nested attribute":        {config: component(`data_cache_config = { enable_caching = "often" }`), want: "bool"},
		"missing attribute in a typed one": {config: `resource "aws_lambda_capacity_provider" "x" { ` + "\nname = \"x\"\ninstance_requirements = [{ architectures = [] }]\n}", want: `attributes "allowed_instance_types"`},
		"value that the API has not":       {config: `resource "aws_lambda_function_url" "x" { ` + "\nfunction_name = \"f\"\nauthorization_type = \"OPEN\"\n}", want: `authorization_type is "OPEN", which is not one of`},
		"number out of range in a block":   {config: `resource "aws_lambda_function" "x" { ` + "\nfunction_name = \"f\"\nrole = \"arn:aws:iam::123456789012:role/x\"\nephemeral_storage {\nsize = 100\n}\n}", want: "ephemeral_storage[0].size is 100, the least is 512"},
		"nested attribute out of range":    {config: component(`compute_resource_requirements = { min_memory_required_in_mb = 1 }`), want: "min_memory_required_in_mb is 1, the least is 128"},
		"template that the API refuses":    {config: `resource "aws_cloudformation_stack" "x" { ` + "\nname = \"s\"\ntemplate_body = jsonencode({ Resources = { C = { Type = \"AWS::SageMaker::EndpointConfig\", Properties = { ProductionVariants = [], Varants = [] } } } })\n}", want: "C.Varants does not exist"},
		"template that is not JSON":        {config: `resource "aws_cloudformation_stack" "x" { ` + "\nname = \"s\"\ntemplate_body = \"Resources:\"\n}", want: "template_body"},
		"unknown data source":              {config: `data "aws_caller_identitty" "x" {}`, want: "does not support data source"},
	}
	for name, tt := range cases {
		label := strings.ReplaceAll(name, " ", "_")
		write(label+".tf", strings.ReplaceAll(tt.config, `"x"`, `"`+label+`"`))
	}
	out, _ := run("validate", "-json") // fails, as most of it is wrong
	var report struct {
		Diagnostics []struct {
			Summary, Detail string
			Range           struct{ Filename string }
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	errors := make(map[string]string)
	for _, d := range report.Diagnostics {
		errors[d.Range.Filename] += d.Summary + ": " + d.Detail + " "
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			file := strings.ReplaceAll(name, " ", "_") + ".tf"
			if got := errors[file]; tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s\ngot %q\nwant %q in it", tt.config, got, tt.want)
			}
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("plan", func(t *testing.T) {
		write("main.tf", `data "aws_caller_identity" "x" {}
resource "aws_iam_role" "x" {
  name_prefix        = data.aws_caller_identity.x.account_id
  assume_role_policy = "{}"
}
output "arn" {
  value = aws_iam_role.x.arn
}`)
		out, err := run("plan", "-no-color", "-input=false")
		out = strings.Join(strings.Fields(out), " ")
		if err != nil || !strings.Contains(out, `+ name_prefix = "123456789012"`) || !strings.Contains(out, "+ arn = (known after apply)") {
			t.Errorf("plan: %v\n%s", err, out)
		}
	})

	t.Run("apply is refused", func(t *testing.T) {
		if out, err := run("apply", "-auto-approve", "-no-color", "-input=false"); err == nil || !strings.Contains(out, "only plans") {
			t.Errorf("apply: %v\n%s", err, out)
		}
	})
}
