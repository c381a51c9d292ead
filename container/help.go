package main

import (
	"fmt"

	"github.com/alecthomas/kong"
)

// helpCommand is the command that is --help for those who type it so.
type helpCommand struct {
	Command []string `arg:"" optional:"" help:"The command, such as serve or sagemaker deploy."`
	All     bool     `help:"Show all flags, those for TGI's command lines too."`
}

// Run prints the help of the command.
func (h *helpCommand) Run(ctx *kong.Context) error {
	flag := "--help"
	if h.All {
		flag = "--help-all"
	}
	return run(append(h.Command, flag), nil)
}

// helpAllFlag is --help with what it leaves out. run has uncovered the flags.
type helpAllFlag bool

// BeforeReset prints the help before anything else about the command line can
// be wrong.
func (helpAllFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	ctx.Kong.Exit(0)
	return nil
}

// examples are shown below the help of a command, "" being the program's.
var examples = map[string]string{
	"": `Examples:
  millrace                                   serve the built-in demo model on port 8080
  millrace chat                              chat with it in the terminal
  millrace serve ./SmolLM2-135M-Instruct     serve the model in a folder
  millrace chat http://localhost:8080        chat with a running server
  millrace serve --help                      show the flags of serve
`,
	"serve": `Examples:
  millrace serve ./SmolLM2-135M-Instruct --hostname 127.0.0.1
  millrace serve s3://my-bucket/models/llama --port 9000
  API_KEY=secret millrace serve ./llama --max-total-tokens 4096
`,
	"chat": `Examples:
  millrace chat                              with the built-in demo model
  millrace chat ./SmolLM2-135M-Instruct      with the model in a folder
  millrace chat http://localhost:8080        with a running server
  echo "What is Millrace?" | millrace chat   one answer, for scripts
`,
	"inspect": `Examples:
  millrace inspect ./SmolLM2-135M-Instruct
  millrace inspect s3://my-bucket/models/llama --json
`,
	"quantize": `Examples:
  millrace quantize ./SmolLM2-135M-Instruct ./SmolLM2-135M-int4 --quantize int4
  millrace quantize ./SmolLM2-135M-Instruct ./SmolLM2-135M-int4 --quantize int4 --calibration text.txt
`,
	"prefix": `Examples:
  millrace prefix ./llama @system.txt llama.prefix
  millrace prefix ./llama '{"messages": [{"role": "system", "content": "You are …"}]}' llama.prefix
  millrace serve ./llama --prefix-cache-file llama.prefix
`,
	"bench": `Examples:
  millrace bench --url http://localhost:8080 -n 200 -c 8
  millrace bench --api chat -c 1,2,4,8 --max-new-tokens 64-256
  millrace bench --rate 5 --duration 60s --json result.json
  millrace bench -c 1,4,16 --slo ttft=500ms,itl=100ms --report report.html
`,
	"env": `Examples:
  millrace env --changed                     what differs from the defaults
  millrace env ./llama --json | jq .
`,
	"completion": `Examples:
  source <(millrace completion bash)         in ~/.bashrc
  source <(millrace completion zsh)          in ~/.zshrc, after compinit
  millrace completion fish > ~/.config/fish/completions/millrace.fish
`,
	"man": `Examples:
  millrace man | man -l -
`,
	"sagemaker deploy": `Examples:
  millrace sagemaker deploy chat --image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.0 --model s3://my-models/llama/ \
    --create-role --instance-type ml.c7i.4xlarge --dry-run
`,
	"sagemaker transform": `Examples:
  millrace sagemaker transform requests.jsonl answers/ --model ./SmolLM2-135M-Instruct
`,
	"lambda deploy": `Examples:
  millrace lambda deploy small --image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace@sha256:... --create-role --dry-run
`,
	"lambda local": `Examples:
  millrace lambda local -- --model-id ./SmolLM2-135M-Instruct
`,
}

// printHelp prints kong's help and the examples of the command.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	text := examples[commandPath(ctx.Selected())]
	if text == "" {
		return nil
	}
	_, err := fmt.Fprint(ctx.Stdout, "\n"+text)
	return err
}

// commandPath is the name of a command without the program's, "" for the
// program itself.
func commandPath(node *kong.Node) string {
	if node == nil || node.Parent == nil {
		return ""
	}
	if above := commandPath(node.Parent); above != "" {
		return above + " " + node.Name
	}
	return node.Name
}
