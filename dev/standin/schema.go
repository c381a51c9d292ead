package main

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// schemaFile is what schema.py wrote, in the format that Terraform's command
// `providers schema -json` prints.
//
//go:embed schema.json
var schemaFile []byte

// A provider is one entry of that file.
type provider struct {
	version   string
	config    *tfprotov6.Schema
	resources map[string]*tfprotov6.Schema
	data      map[string]*tfprotov6.Schema
}

type jsonSchema struct {
	Version int64     `json:"version"`
	Block   jsonBlock `json:"block"`
}

type jsonBlock struct {
	Attributes map[string]jsonAttribute `json:"attributes"`
	BlockTypes map[string]struct {
		NestingMode string    `json:"nesting_mode"`
		Block       jsonBlock `json:"block"`
		MinItems    int64     `json:"min_items"`
		MaxItems    int64     `json:"max_items"`
	} `json:"block_types"`
}

type jsonAttribute struct {
	Type     json.RawMessage `json:"type"`
	Required bool            `json:"required"`
	Optional bool            `json:"optional"`
	Computed bool            `json:"computed"`
	Nested   *struct {
		Attributes  map[string]jsonAttribute `json:"attributes"`
		NestingMode string                   `json:"nesting_mode"`
	} `json:"nested_type"`
}

var blockNesting = map[string]tfprotov6.SchemaNestedBlockNestingMode{
	"single": tfprotov6.SchemaNestedBlockNestingModeSingle,
	"list":   tfprotov6.SchemaNestedBlockNestingModeList,
	"set":    tfprotov6.SchemaNestedBlockNestingModeSet,
	"map":    tfprotov6.SchemaNestedBlockNestingModeMap,
}

var objectNesting = map[string]tfprotov6.SchemaObjectNestingMode{
	"single": tfprotov6.SchemaObjectNestingModeSingle,
	"list":   tfprotov6.SchemaObjectNestingModeList,
	"set":    tfprotov6.SchemaObjectNestingModeSet,
	"map":    tfprotov6.SchemaObjectNestingModeMap,
}

// readSchemas returns the providers of a schema file by their names below a
// registry: "hashicorp/aws".
func readSchemas(file []byte) (map[string]*provider, error) {
	var doc struct {
		Providers map[string]struct {
			Version   string                `json:"version"`
			Provider  jsonSchema            `json:"provider"`
			Resources map[string]jsonSchema `json:"resource_schemas"`
			Data      map[string]jsonSchema `json:"data_source_schemas"`
		} `json:"provider_schemas"`
	}
	if err := json.Unmarshal(file, &doc); err != nil {
		return nil, fmt.Errorf("schema.json: %w", err)
	}
	providers := make(map[string]*provider)
	for address, d := range doc.Providers {
		p := &provider{version: d.Version}
		var err error
		if p.config, err = d.Provider.schema(); err != nil {
			return nil, fmt.Errorf("schema.json: %s: %w", address, err)
		}
		if p.resources, err = schemas(d.Resources); err != nil {
			return nil, fmt.Errorf("schema.json: %w", err)
		}
		if p.data, err = schemas(d.Data); err != nil {
			return nil, fmt.Errorf("schema.json: %w", err)
		}
		providers[address] = p
	}
	return providers, nil
}

func schemas(in map[string]jsonSchema) (map[string]*tfprotov6.Schema, error) {
	out := make(map[string]*tfprotov6.Schema, len(in))
	for name, s := range in {
		var err error
		if out[name], err = s.schema(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

func (s jsonSchema) schema() (*tfprotov6.Schema, error) {
	block, err := s.Block.block()
	return &tfprotov6.Schema{Version: s.Version, Block: block}, err
}

func (b jsonBlock) block() (*tfprotov6.SchemaBlock, error) {
	out := &tfprotov6.SchemaBlock{}
	var err error
	if out.Attributes, err = attributes(b.Attributes); err != nil {
		return nil, err
	}
	for name, nested := range b.BlockTypes {
		inner, err := nested.Block.block()
		if err != nil {
			return nil, fmt.Errorf("%s.%w", name, err)
		}
		mode, ok := blockNesting[nested.NestingMode]
		if !ok {
			return nil, fmt.Errorf("%s: nesting mode %q", name, nested.NestingMode)
		}
		out.BlockTypes = append(out.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name, Block: inner, Nesting: mode, MinItems: nested.MinItems, MaxItems: nested.MaxItems,
		})
	}
	return out, nil
}

func attributes(in map[string]jsonAttribute) ([]*tfprotov6.SchemaAttribute, error) {
	var out []*tfprotov6.SchemaAttribute
	for name, a := range in {
		attribute := &tfprotov6.SchemaAttribute{Name: name, Required: a.Required, Optional: a.Optional, Computed: a.Computed}
		if a.Nested != nil {
			inner, err := attributes(a.Nested.Attributes)
			if err != nil {
				return nil, fmt.Errorf("%s.%w", name, err)
			}
			mode, ok := objectNesting[a.Nested.NestingMode]
			if !ok {
				return nil, fmt.Errorf("%s: nesting mode %q", name, a.Nested.NestingMode)
			}
			attribute.NestedType = &tfprotov6.SchemaObject{Attributes: inner, Nesting: mode}
		} else {
			kind, err := tftypes.ParseJSONType(a.Type) //nolint:staticcheck // the only reader of the wire's types
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			attribute.Type = kind
		}
		out = append(out, attribute)
	}
	return out, nil
}
