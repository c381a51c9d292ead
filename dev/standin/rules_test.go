package main

import (
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// TestRulesFit finds rules for arguments that the schema does not have.
func TestRulesFit(t *testing.T) {
	rules, providers := readAll(t)
	schemas := make(map[string]*tfprotov6.Schema)
	for _, p := range providers {
		for name, s := range p.resources {
			schemas[name] = s
		}
	}
	for name, r := range rules {
		schema := schemas[name]
		if strings.HasPrefix(name, "AWS::") {
			continue
		}
		if schema == nil {
			t.Errorf("%s: there are rules but no schema", name)
			continue
		}
		for _, problem := range misfits(name, r, schema.ValueType()) {
			t.Error(problem)
		}
	}
}

// misfits returns where a rule is for another type than the value has.
func misfits(path string, r *rule, kind tftypes.Type) []string {
	switch kind := kind.(type) {
	case tftypes.Object:
		names := r.Required
		for _, group := range r.Exclusive {
			names = append(names, group...)
		}
		var problems []string
		for name, member := range r.Members {
			names = append(names, name)
			if inner := kind.AttributeTypes[name]; inner != nil {
				problems = append(problems, misfits(path+"."+name, member, inner)...)
			}
		}
		for _, name := range names {
			if kind.AttributeTypes[name] == nil {
				problems = append(problems, path+"."+name+" is not in the schema")
			}
		}
		return problems
	case tftypes.List:
		return elementMisfits(path, r, kind.ElementType)
	case tftypes.Set:
		return elementMisfits(path, r, kind.ElementType)
	case tftypes.Map:
		return elementMisfits(path, r, kind.ElementType)
	}
	if r.shape == nil || kind.Is(tftypes.String) != (r.shape.Type == "string") {
		return []string{path + ": the rule is for another type"}
	}
	return nil
}

func elementMisfits(path string, r *rule, kind tftypes.Type) []string {
	if r.Element == nil {
		return nil
	}
	return misfits(path+"[]", r.Element, kind)
}

type object = map[string]any

func TestRulesRefuse(t *testing.T) {
	rules, _ := readAll(t)
	variant := func(more object) object {
		return object{"production_variants": []any{more}}
	}
	tests := []struct {
		name     string
		resource string
		value    object
		want     string // in the problems; empty where there must be none
	}{
		{"right", "aws_sagemaker_endpoint_configuration", variant(object{"instance_type": "ml.c7i.4xlarge", "initial_instance_count": 1.0, "serverless_config": []any{}}), ""},
		{"left out", "aws_sagemaker_endpoint_configuration", variant(object{"instance_type": nil, "model_name": ""}), ""},
		{"unknown yet", "aws_sagemaker_endpoint_configuration", object{"name": unknown{}, "name_prefix": unknown{}}, ""},
		{"enum", "aws_sagemaker_endpoint_configuration", variant(object{"instance_type": "ml.c7i.5xlarge"}), `production_variants[0].instance_type is "ml.c7i.5xlarge", which is not one of ml.t2.medium, `},
		{"least", "aws_sagemaker_endpoint_configuration", variant(object{"volume_size_in_gb": 0.0}), "production_variants[0].volume_size_in_gb is 0, the least is 1"},
		{"most", "aws_sagemaker_endpoint_configuration", variant(object{"model_data_download_timeout_in_seconds": 3601.0}), "is 3601, the most is 3600"},
		{"a fraction", "aws_lambda_capacity_provider", object{"capacity_provider_scaling_config": []any{object{"scaling_policies": []any{object{"target_value": 100.5}}}}}, "target_value is 100.5, the most is 100"},
		{"exclusive", "aws_sagemaker_endpoint_configuration", variant(object{"instance_type": "ml.c7i.4xlarge", "serverless_config": []any{object{}}}), "production_variants[0]: instance_type and serverless_config exclude each other"},
		{"exclusive names", "aws_iam_role", object{"name": "a", "name_prefix": "b"}, "name and name_prefix exclude each other"},
		{"length", "aws_iam_role", object{"name": strings.Repeat("ä", 65)}, "name has 65 characters, the most is 64"},
		{"pattern", "aws_sagemaker_model", object{"execution_role_arn": "arn:aws:iam::12:role/x"}, `which does not match arn:aws`},
		{"the whole of a pattern", "aws_lambda_function_scaling_config", object{"qualifier": "live"}, `qualifier is "live", which does not match`},
		{"list", "aws_lambda_function", object{"architectures": []any{"arm64", "x86_64"}}, "architectures has 2 elements, 1 are allowed"},
		{"element", "aws_lambda_function", object{"architectures": []any{"riscv64"}}, `architectures[0] is "riscv64", which is not one of x86_64, arm64`},
		{"map", "aws_sagemaker_model", object{"primary_container": []any{object{"environment": object{"A": strings.Repeat("x", 1025)}}}}, "primary_container[0].environment.A has 1025 characters, the most is 1024"},
		{"missing", "awscc_sagemaker_inference_component", object{"specification": object{"compute_resource_requirements": object{"number_of_cpu_cores_required": 1.0}}}, "specification.compute_resource_requirements.min_memory_required_in_mb is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			problems := rules[tt.resource].check("", tt.value)
			if tt.want == "" && len(problems) > 0 || !strings.Contains(strings.Join(problems, "\n"), tt.want) {
				t.Errorf("got %q, want %q", problems, tt.want)
			}
		})
	}
}

func TestTemplatesAreChecked(t *testing.T) {
	rules, _ := readAll(t)
	template := func(variant string) string {
		return `{"Resources": {"C": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [{"VariantName": "main"` + variant + `}]}}, "Other": {"Type": "AWS::S3::Bucket"}}}`
	}
	tests := []struct{ name, variant, want string }{
		{"right", `, "RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE", "PrefixAwareRoutingConfig": {"PrefixLength": 2048, "ConcurrencyThreshold": 8}}`, ""},
		{"misspelt", `, "RoutingConfg": {}`, "template_body: C.ProductionVariants[0].RoutingConfg does not exist"},
		{"least", `, "RoutingConfig": {"RoutingStrategy": "PREFIX_AWARE", "PrefixAwareRoutingConfig": {"PrefixLength": 512, "ConcurrencyThreshold": 8}}`, "PrefixLength is 512, the least is 1024"},
		{"missing", `, "InstancePools": [{"InstanceType": "ml.c7i.4xlarge"}]`, "InstancePools[0].Priority is missing"},
		{"exclusive", `, "InstanceType": "ml.c7i.4xlarge", "InstancePools": [{"InstanceType": "ml.c7i.4xlarge", "Priority": 1}]`, "InstanceType and InstancePools exclude each other"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(checkTemplate(rules, template(tt.variant)), "\n"); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if problems := checkTemplate(rules, "Resources:"); len(problems) != 1 {
		t.Errorf("a template that is not JSON: %q", problems)
	}
}

func readAll(t *testing.T) (map[string]*rule, map[string]*provider) {
	t.Helper()
	rules, err := readRules(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	providers, err := readSchemas(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return rules, providers
}
