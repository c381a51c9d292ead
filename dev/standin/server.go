package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// account is what the data sources say of the account that is deployed to; the
// documentation of AWS uses the same account for examples.
var account = map[string]map[string]string{
	"aws_caller_identity": {"account_id": "123456789012", "arn": "arn:aws:iam::123456789012:user/stand-in", "id": "123456789012", "user_id": "AIDASTANDIN"},
	"aws_partition":       {"partition": "aws", "dns_suffix": "amazonaws.com", "id": "aws", "reverse_dns_prefix": "com.amazonaws"},
	"aws_region":          {"region": "eu-west-1", "name": "eu-west-1", "id": "eu-west-1", "endpoint": "ec2.eu-west-1.amazonaws.com", "description": "Europe (Ireland)"},
}

// A server answers Terraform for one provider. The parts of the protocol that
// schema.json has nothing of (functions, ephemeral resources) are those of the
// embedded interface, which is nil: Terraform does not call what the schema
// does not offer.
type server struct {
	tfprotov6.ProviderServer
	*provider
	rules map[string]*rule
}

func (s *server) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	resp := &tfprotov6.GetMetadataResponse{}
	for name := range s.resources {
		resp.Resources = append(resp.Resources, tfprotov6.ResourceMetadata{TypeName: name})
	}
	for name := range s.data {
		resp.DataSources = append(resp.DataSources, tfprotov6.DataSourceMetadata{TypeName: name})
	}
	return resp, nil
}

func (s *server) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return &tfprotov6.GetProviderSchemaResponse{Provider: s.config, ResourceSchemas: s.resources, DataSourceSchemas: s.data}, nil
}

func (s *server) GetResourceIdentitySchemas(context.Context, *tfprotov6.GetResourceIdentitySchemasRequest) (*tfprotov6.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov6.GetResourceIdentitySchemasResponse{}, nil
}

func (s *server) ValidateProviderConfig(_ context.Context, req *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: req.Config}, nil
}

func (s *server) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (s *server) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

// ValidateResourceConfig makes the checks that Terraform leaves to providers: an
// argument that only the provider sets must not be given, and the others must be
// what the API takes.
func (s *server) ValidateResourceConfig(_ context.Context, req *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	schema := s.resources[req.TypeName]
	if schema == nil {
		return nil, fmt.Errorf("%s: not in schema.json", req.TypeName)
	}
	config, err := req.Config.Unmarshal(schema.ValueType())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	resp := &tfprotov6.ValidateResourceConfigResponse{}
	err = tftypes.Walk(config, func(path *tftypes.AttributePath, v tftypes.Value) (bool, error) {
		if a := attribute(schema.Block, path); a != nil && a.Computed && !a.Optional && !v.IsNull() {
			resp.Diagnostics = append(resp.Diagnostics, &tfprotov6.Diagnostic{
				Severity: tfprotov6.DiagnosticSeverityError, Attribute: path,
				Summary: "Computed argument", Detail: a.Name + " is computed by the provider and cannot be set.",
			})
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	problems, err := s.refusals(req.TypeName, config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	for _, problem := range problems {
		resp.Diagnostics = append(resp.Diagnostics, &tfprotov6.Diagnostic{
			Severity: tfprotov6.DiagnosticSeverityError, Summary: "AWS would refuse this", Detail: problem + ".",
		})
	}
	return resp, nil
}

// refusals returns what the API would refuse of a configuration.
func (s *server) refusals(name string, config tftypes.Value) ([]string, error) {
	r := s.rules[name]
	if r == nil {
		return nil, nil
	}
	value, err := plainValue(config)
	if err != nil {
		return nil, err
	}
	problems := r.check("", value)
	arguments, _ := value.(map[string]any)
	if template, ok := arguments["template_body"].(string); ok {
		problems = append(problems, checkTemplate(s.rules, template)...)
	}
	return problems, nil
}

func (s *server) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

// PlanResourceChange plans what the configuration says; what the provider would
// have computed is unknown, as it is in a real first plan.
func (s *server) PlanResourceChange(_ context.Context, req *tfprotov6.PlanResourceChangeRequest) (*tfprotov6.PlanResourceChangeResponse, error) {
	planned, err := s.complete(s.resources[req.TypeName], req.ProposedNewState, func(string, tftypes.Type) (any, bool) {
		return tftypes.UnknownValue, true
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	return &tfprotov6.PlanResourceChangeResponse{PlannedState: planned}, nil
}

// ReadDataSource answers about the account of the examples.
func (s *server) ReadDataSource(_ context.Context, req *tfprotov6.ReadDataSourceRequest) (*tfprotov6.ReadDataSourceResponse, error) {
	answers, ok := account[req.TypeName]
	if !ok {
		return nil, fmt.Errorf("the stand-in provider has no answer for the data source %s", req.TypeName)
	}
	state, err := s.complete(s.data[req.TypeName], req.Config, func(name string, _ tftypes.Type) (any, bool) {
		answer, ok := answers[name]
		return answer, ok
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	return &tfprotov6.ReadDataSourceResponse{State: state}, nil
}

// ApplyResourceChange refuses: a state file must not say that something exists
// which does not.
func (s *server) ApplyResourceChange(_ context.Context, req *tfprotov6.ApplyResourceChangeRequest) (*tfprotov6.ApplyResourceChangeResponse, error) {
	return &tfprotov6.ApplyResourceChangeResponse{NewState: req.PriorState, Diagnostics: []*tfprotov6.Diagnostic{{
		Severity: tfprotov6.DiagnosticSeverityError,
		Summary:  "The stand-in provider only plans",
		Detail:   "It has the schema of " + req.TypeName + " and creates nothing. To deploy, run terraform without the CLI configuration that installs the stand-in.",
	}}}, nil
}

// UpgradeResourceState and ReadResource return the state that they are given:
// OpenTofu asks for it even of what a test only pretends to have made.
func (s *server) UpgradeResourceState(_ context.Context, req *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	schema := s.resources[req.TypeName]
	if schema == nil {
		return nil, fmt.Errorf("%s: not in schema.json", req.TypeName)
	}
	value, err := req.RawState.Unmarshal(schema.ValueType())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.TypeName, err)
	}
	state, err := tfprotov6.NewDynamicValue(schema.ValueType(), value)
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

func (s *server) ReadResource(_ context.Context, req *tfprotov6.ReadResourceRequest) (*tfprotov6.ReadResourceResponse, error) {
	return &tfprotov6.ReadResourceResponse{NewState: req.CurrentState}, nil
}

// complete returns the value with each computed attribute that it leaves out
// set to what fill says; fill says false to leave it null.
func (s *server) complete(schema *tfprotov6.Schema, dynamic *tfprotov6.DynamicValue, fill func(name string, t tftypes.Type) (any, bool)) (*tfprotov6.DynamicValue, error) {
	if schema == nil {
		return nil, fmt.Errorf("not in schema.json")
	}
	t := schema.ValueType()
	value, err := dynamic.Unmarshal(t)
	if err != nil {
		return nil, err
	}
	completed, err := tftypes.Transform(value, func(path *tftypes.AttributePath, v tftypes.Value) (tftypes.Value, error) {
		a := attribute(schema.Block, path)
		if !v.IsNull() || a == nil || !a.Computed {
			return v, nil
		}
		if filled, ok := fill(a.Name, v.Type()); ok {
			return tftypes.NewValue(v.Type(), filled), nil
		}
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	out, err := tfprotov6.NewDynamicValue(t, completed)
	return &out, err
}

// attribute returns the attribute that a path leads to, or nil if it leads to a
// block or into a list, set or map.
func attribute(block *tfprotov6.SchemaBlock, path *tftypes.AttributePath) *tfprotov6.SchemaAttribute {
	attributes, blocks := block.Attributes, block.BlockTypes
	var found *tfprotov6.SchemaAttribute
	for _, step := range path.Steps() {
		found = nil
		name, ok := step.(tftypes.AttributeName)
		if !ok {
			continue // an element has the schema of the others
		}
		for _, a := range attributes {
			if a.Name == string(name) {
				found = a
			}
		}
		inner := slices.IndexFunc(blocks, func(b *tfprotov6.SchemaNestedBlock) bool { return b.TypeName == string(name) })
		switch {
		case inner >= 0:
			attributes, blocks = blocks[inner].Block.Attributes, blocks[inner].Block.BlockTypes
		case found != nil && found.NestedType != nil:
			attributes, blocks = found.NestedType.Attributes, nil
		default:
			attributes, blocks = nil, nil
		}
	}
	return found
}
