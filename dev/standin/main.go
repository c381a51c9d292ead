// The stand-in is a Terraform provider that knows the schema of another and what
// the API refuses: it checks configurations and plans them, and creates nothing.
//
// The modules in terraform/ are for AWS's providers, which are available only
// from the Terraform registry. A stand-in takes their place in the tests where
// the registry cannot be reached. Terraform itself checks a configuration
// against the schema that a provider serves, so a misspelt argument, a value of
// the wrong type, a missing argument or a block where an argument belongs fail
// here as they would there. Values that the API would refuse fail too: those that
// are not among the ones it has, out of range, too long, of another form. Those
// rules come from the published models of the APIs, in rules.json. The checks that
// only a provider's code has do not exist here.
//
// One program stands in for each provider of schema.json; it tells from the
// name of its file which: terraform-provider-aws_v6.69.1. With the argument
// "list" it prints the name and version of each, for the script that
// installs it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in provider:", err)
		os.Exit(1)
	}
}

func run() error {
	known, err := readSchemas(schemaFile)
	if err != nil {
		return err
	}
	rules, err := readRules(rulesFile)
	if err != nil {
		return err
	}
	if slices.Equal(os.Args[1:], []string{"list"}) {
		for name, p := range known {
			fmt.Println(name, p.version)
		}
		return nil
	}
	for name, p := range known {
		if program, _, _ := strings.Cut(filepath.Base(os.Args[0]), "_"); program == "terraform-provider-"+filepath.Base(name) {
			return tf6server.Serve(name, func() tfprotov6.ProviderServer { return &server{provider: p, rules: rules} })
		}
	}
	return fmt.Errorf("its file is called %s, which is the name of no provider in schema.json", filepath.Base(os.Args[0]))
}
