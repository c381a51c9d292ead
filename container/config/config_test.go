package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// parse runs the flags of `serve` as main does.
func parse(t *testing.T, args, env []string) (*Serve, []Setting, []string, error) {
	t.Helper()
	var cli struct {
		Serve Serve `cmd:"" default:"withargs"`
		Other struct {
			Port string
		} `cmd:""`
	}
	l := NewLoader(env, func(modelID string) []string { return []string{"/nothing/here", modelID} })
	k, err := kong.New(&cli, kong.Resolvers(l), kong.Exit(func(int) { t.Error("exit") }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := k.Parse(args)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			err = e
		}
		return nil, nil, nil, err
	}
	settings, notes, err := l.Finish(ctx, &cli.Serve)
	return &cli.Serve, settings, notes, err
}

func setting(settings []Setting, flag string) Setting {
	for _, s := range settings {
		if s.Flag == flag {
			return s
		}
	}
	return Setting{}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	model := write("millrace.yaml", "max-best-of: 11\nmax_batch_size: 3\nserved-model-name: x\nprefix-caching: no\nthreads: null\n")
	json := write("other.json", `{"PORT": 2222, "json-output": true, "model-id": "/elsewhere", "cors-allow-origin": ["https://a", "https://b,c"]}`)

	for _, tt := range []struct {
		name        string
		args, env   []string
		flag        string
		value, from string
	}{
		{name: "default", flag: "port", value: "8080", from: "default"},
		{name: "flag over all", args: []string{"--max-best-of", "5", "--model-id", dir}, env: []string{"MAX_BEST_OF=6"}, flag: "max-best-of", value: "5", from: "command line"},
		{name: "short flag", args: []string{"serve", "-p", "5"}, flag: "port", value: "5", from: "command line"},
		{name: "environment over file", args: []string{"--model-id", dir}, env: []string{"MAX_BEST_OF=6"}, flag: "max-best-of", value: "6", from: "environment MAX_BEST_OF"},
		{name: "file in the model folder", env: []string{"MODEL_ID=" + dir}, flag: "max-best-of", value: "11", from: "file " + model + ":1"},
		{name: "underscores in a key", env: []string{"HF_MODEL_ID=" + dir}, flag: "max-batch-size", value: "3", from: "file " + model + ":2"},
		{name: "list in a file", args: []string{"--config", json}, flag: "cors-allow-origin", value: "https://a,https://b,c", from: "file " + json + ":1"},
		{name: "no means false", args: []string{"--model-id=" + dir}, flag: "prefix-caching", value: "false", from: "file " + model + ":4"},
		{name: "null is absent", args: []string{"--model-id=" + dir}, flag: "threads", value: "auto", from: "default"},
		{name: "named file", args: []string{"--config", json}, flag: "port", value: "2222", from: "file " + json + ":1"},
		{name: "named file instead of the model folder's", args: []string{"--model-id", dir}, env: []string{"MILLRACE_CONFIG=" + json}, flag: "max-batch-size", value: "auto", from: "default"},
		{name: "named file may choose the model", args: []string{"--config", json}, flag: "model-id", value: "/elsewhere", from: "file " + json + ":1"},
		{name: "SageMaker's port wins over PORT", env: []string{"PORT=80", "SAGEMAKER_BIND_TO_PORT=8081"}, flag: "port", value: "8081", from: "environment SAGEMAKER_BIND_TO_PORT"},
		{name: "body limit", flag: "payload-limit", value: "2000000", from: "default"},
		{name: "SageMaker's body limit", env: []string{"SAGEMAKER_REGION=eu-west-1"}, flag: "payload-limit", value: "26214400", from: "SageMaker's limit"},
		{name: "a body limit on SageMaker", env: []string{"SAGEMAKER_REGION=eu-west-1", "PAYLOAD_LIMIT=7"}, flag: "payload-limit", value: "7", from: "environment PAYLOAD_LIMIT"},
		{name: "a transform job's body limit", env: []string{"SAGEMAKER_BATCH=true"}, flag: "payload-limit", value: "104857600", from: "a transform job's limit"},
		{name: "deadline of an answer", env: []string{"SAGEMAKER_REGION=eu-west-1"}, flag: "request-deadline", value: "58", from: "SageMaker's limit"},
		{name: "deadline of a stream", env: []string{"SAGEMAKER_REGION=eu-west-1"}, flag: "stream-deadline", value: "470", from: "SageMaker's limit"},
		{name: "no deadline elsewhere", flag: "request-deadline", value: "0", from: "default"},
		{name: "no deadline in a transform job", env: []string{"SAGEMAKER_BATCH=true"}, flag: "stream-deadline", value: "0", from: "default"},
		{name: "deadline off, for asynchronous endpoints", env: []string{"SAGEMAKER_REQUEST_DEADLINE=0"}, flag: "request-deadline", value: "0", from: "environment SAGEMAKER_REQUEST_DEADLINE"},
		{name: "deadline by flag", args: []string{"--stream-deadline=30"}, flag: "stream-deadline", value: "30", from: "command line"},
		{name: "sessions", env: []string{"SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true"}, flag: "stateful-sessions", value: "true", from: "environment SAGEMAKER_ENABLE_STATEFUL_SESSIONS"},
		{name: "metrics in the log are JSON", args: []string{"--emf-namespace", "Millrace"}, flag: "json-output", value: "true", from: "--emf-namespace"},
		{name: "vLLM's variable", env: []string{"SM_VLLM_MAX_MODEL_LEN=4096"}, flag: "max-total-tokens", value: "4096", from: "environment SM_VLLM_MAX_MODEL_LEN"},
		{name: "ours wins over vLLM's", env: []string{"SM_VLLM_MAX_MODEL_LEN=4096", "MAX_TOTAL_TOKENS=8"}, flag: "max-total-tokens", value: "8", from: "environment MAX_TOTAL_TOKENS"},
		{name: "SGLang's variable", env: []string{"SM_SGLANG_MAX_RUNNING_REQUESTS=8"}, flag: "max-batch-size", value: "8", from: "environment SM_SGLANG_MAX_RUNNING_REQUESTS"},
		{name: "LMI's variable", env: []string{"OPTION_TENSOR_PARALLEL_DEGREE=4"}, flag: "num-shard", value: "4", from: "environment OPTION_TENSOR_PARALLEL_DEGREE"},
		{name: "LMI finds it out", env: []string{"OPTION_TENSOR_PARALLEL_DEGREE=max"}, flag: "num-shard", value: "0", from: "default"},
		{name: "vLLM's key is a secret", env: []string{"SM_VLLM_API_KEY=hunter2"}, flag: "api-key", value: "***", from: "environment SM_VLLM_API_KEY"},
		{name: "model as an argument", args: []string{"serve", dir}, env: []string{"MODEL_ID=/other"}, flag: "model-id", value: dir, from: "command line"},
		{name: "model as the only argument", args: []string{dir}, flag: "model-id", value: dir, from: "command line"},
		{name: "file beside the model of an argument", args: []string{"serve", dir}, flag: "max-best-of", value: "11", from: "file " + model + ":1"},
		{name: "JSON for programs", flag: "json-output", value: "true", from: "not a terminal"},
		{name: "no JSON if it is not wanted", args: []string{"--no-json-output"}, flag: "json-output", value: "false", from: "command line"},
		{name: "Lambda's log format", env: []string{"AWS_LAMBDA_RUNTIME_API=x", "AWS_LAMBDA_LOG_FORMAT=Text"}, flag: "json-output", value: "false", from: "Lambda's log format"},
		{name: "Lambda's JSON", env: []string{"AWS_LAMBDA_RUNTIME_API=x", "AWS_LAMBDA_LOG_FORMAT=JSON"}, flag: "json-output", value: "true", from: "Lambda's log format"},
		{name: "another program's ENV", env: []string{"ENV=production"}, flag: "env", value: "false", from: "default"},
		{name: "another program's CONFIG", env: []string{"CONFIG=prod"}, flag: "config", value: "", from: "default"},
		{name: "another program's DEVICE", env: []string{"DEVICE=tpu"}, flag: "device", value: "auto", from: "default"},
		{name: "another program's THREADS", env: []string{"THREADS=many"}, flag: "threads", value: "auto", from: "default"},
		{name: "name of the model", env: []string{"SM_VLLM_SERVED_MODEL_NAME=llama"}, flag: "served-model-name", value: "llama", from: "environment SM_VLLM_SERVED_MODEL_NAME"},
		{name: "file in another server's model folder", env: []string{"OPTION_MODEL_ID=" + dir}, flag: "max-best-of", value: "11", from: "file " + model + ":1"},
		{name: "TGI's variable without a flag", env: []string{"COMPUTE_TYPE=1-graviton"}, flag: "compute-type", value: "1-graviton", from: "environment COMPUTE_TYPE"},
		{name: "SageMaker's model wins", env: []string{"MODEL_ID=/a", "HF_MODEL_ID=/b"}, flag: "model-id", value: "/b", from: "environment HF_MODEL_ID"},
		{name: "empty variable is absent", env: []string{"PORT=", "MAX_BATCH_SIZE="}, flag: "port", value: "8080", from: "default"},
		{name: "Python's True", env: []string{"JSON_OUTPUT=True"}, flag: "json-output", value: "true", from: "environment JSON_OUTPUT"},
		{name: "0 is false", env: []string{"PREFIX_CACHING=0"}, flag: "prefix-caching", value: "false", from: "environment PREFIX_CACHING"},
		{name: "negated flag", args: []string{"--no-return-full-text"}, flag: "return-full-text", value: "false", from: "command line"},
		{name: "false as value", args: []string{"--return-full-text=false"}, flag: "return-full-text", value: "false", from: "command line"},
		{name: "one origin with a comma", env: []string{"CORS_ALLOW_ORIGIN=a,b"}, flag: "cors-allow-origin", value: "a,b", from: "environment CORS_ALLOW_ORIGIN"},
		{name: "container's host name", env: []string{"HOSTNAME=ip-10-0-0-1"}, flag: "hostname", value: "0.0.0.0", from: "default"},
		{name: "address as HOSTNAME", env: []string{"HOSTNAME=127.0.0.1"}, flag: "hostname", value: "127.0.0.1", from: "environment HOSTNAME"},
		{name: "older name", env: []string{"MAX_INPUT_LENGTH=7"}, flag: "max-input-length", value: "7", from: "environment MAX_INPUT_LENGTH"},
		{name: "secret in a URL", env: []string{"OTLP_ENDPOINT=http://user:hunter2@h:4317"}, flag: "otlp-endpoint", value: "http://***@h:4317", from: "environment OTLP_ENDPOINT"},
		{name: "secret in a model's URL", args: []string{"--model-id", "https://h/m?X-Signature=hunter2"}, flag: "model-id", value: "https://h/m?X-Signature=***", from: "command line"},
		{name: "secret", env: []string{"API_KEY=hunter2"}, flag: "api-key", value: "***", from: "environment API_KEY"},
		{name: "upper case choice", env: []string{"MILLRACE_DEVICE=CPU"}, flag: "device", value: "cpu", from: "environment MILLRACE_DEVICE"},
		{name: "quantisation", env: []string{"HF_MODEL_QUANTIZE=awq"}, flag: "quantize", value: "awq", from: "environment HF_MODEL_QUANTIZE"},
		{name: "vLLM's quantisation", env: []string{"SM_VLLM_QUANTIZATION=fp8"}, flag: "quantize", value: "fp8", from: "environment SM_VLLM_QUANTIZATION"},
		{name: "value for sharded", args: []string{"--sharded", "true"}, flag: "sharded", value: "true", from: "command line"},
		{name: "nothing asked of a later flag", args: []string{"--ngrok=false"}, flag: "ngrok", value: "false", from: "command line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, settings, _, err := parse(t, tt.args, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := setting(settings, tt.flag); got.Value != tt.value || got.From != tt.from {
				t.Errorf("args %q, env %q: %s = %q from %q; want %q from %q", tt.args, tt.env, tt.flag, got.Value, got.From, tt.value, tt.from)
			}
		})
	}
}

func TestOlderNameCounts(t *testing.T) {
	s, _, _, err := parse(t, []string{"--max-input-length", "9"}, nil)
	if err != nil || s.MaxInputTokens != 9 {
		t.Errorf("MaxInputTokens %d, err %v; want 9", s.MaxInputTokens, err)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name      string
		args, env []string
		file      string // content of the model folder's millrace.yaml
		want      string // in the one line
	}{
		{name: "unknown flag", args: []string{"--prot", "1"}, want: "unknown flag --prot"},
		{name: "flag without its type", args: []string{"--port", "http"}, want: "--port: expected a valid 64 bit int"},
		{name: "variable without its type", env: []string{"MAX_BATCH_SIZE=many"}, want: `MAX_BATCH_SIZE="many": expected a whole number`},
		{name: "boolean variable", env: []string{"JSON_OUTPUT=perhaps"}, want: `JSON_OUTPUT="perhaps": expected true or false`},
		{name: "too small", env: []string{"MAX_BATCH_SIZE=0"}, want: "MAX_BATCH_SIZE=0: must be at least 1"},
		{name: "too large", args: []string{"--port=70000"}, want: "--port=70000: must be at most 65535"},
		{name: "unknown choice", env: []string{"MILLRACE_DEVICE=tpu"}, want: `MILLRACE_DEVICE="tpu": expected one of auto,cpu,`},
		{name: "unknown level", args: []string{"--log-level", "loud"}, want: "--log-level=loud: expected one of debug, info, warn, error"},
		{name: "both names of the prompt limit", args: []string{"--max-input-tokens", "5"}, env: []string{"MAX_INPUT_LENGTH=6"}, want: "(environment MAX_INPUT_LENGTH; command line): set one"},
		{name: "prompt as long as all", args: []string{"--max-input-tokens", "5", "--max-total-tokens", "5"}, want: "`max_input_tokens` must be < `max_total_tokens`. Given: 5 and 5"},
		{name: "more than the GPU has", env: []string{"CUDA_MEMORY_FRACTION=1.5"}, want: "CUDA_MEMORY_FRACTION=1.5: must be above 0 and at most 1"},
		{name: "format of the cache", args: []string{"--kv-cache-dtype", "fp8_e5m2"}, want: "--kv-cache-dtype=fp8_e5m2: expected auto, f16 or int8"},
		{name: "too long drafts", args: []string{"--speculate", "65"}, want: "--speculate=65: must be at most 64"},
		{name: "adapters", env: []string{"LORA_ADAPTERS=a=b=c"}, want: "LORA_ADAPTERS=a=b=c: Invalid LoRA adapter format: a=b=c"},
		{name: "secret of a later flag", args: []string{"--ngrok-authtoken", "hunter2"}, want: "--ngrok-authtoken=***:"},
		{name: "deadline without its type", env: []string{"SAGEMAKER_REQUEST_DEADLINE=1m"}, want: `SAGEMAKER_REQUEST_DEADLINE="1m": expected a whole number`},
		{name: "sessions that never live", env: []string{"SAGEMAKER_SESSIONS_EXPIRATION=0"}, want: "SAGEMAKER_SESSIONS_EXPIRATION=0: must be at least 1"},
		{name: "namespace", args: []string{"--emf-namespace=a\"b"}, want: "expected 1 to 255 letters"},
		{name: "CloudWatch's namespace", env: []string{"EMF_NAMESPACE=AWS/SageMaker"}, want: "EMF_NAMESPACE=AWS/SageMaker: namespaces that begin with AWS/"},
		{name: "metrics in a log of text", args: []string{"--emf-namespace=a"}, env: []string{"JSON_OUTPUT=false"}, want: "--emf-namespace=a: CloudWatch reads JSON only; take JSON_OUTPUT=false out"},
		{name: "unknown key", file: "\nprot: 1\n", want: `millrace.yaml:2: unknown key "prot", did you mean "port"?`},
		{name: "model named twice", args: []string{"a", "--model-id=b"}, want: "the model is named twice: a and --model-id=b"},
		{name: "key twice", file: "threads: 1\nTHREADS: 2\n", want: "millrace.yaml:2: threads is set twice, first in line 1"},
		{name: "wrong value in a file", file: "threads: web\n", want: `millrace.yaml:1: threads: "web": expected a whole number`},
		{name: "small value in a file", file: "max-best-of: 0\n", want: "millrace.yaml:1: max-best-of: 0: must be at least 1"},
		{name: "map for a value", file: "threads: {a: 1}\n", want: "millrace.yaml:1: threads: expected a plain value, not a map"},
		{name: "list of keys", file: "- threads\n", want: "expected a map of flag names to values"},
		{name: "no YAML", file: "threads: [1\n", want: "millrace.yaml: line 1"},
		{name: "model in its own folder", file: "model-id: /x\n", want: "a file in the model folder cannot choose the model"},
		{name: "file that names a file", file: "config: /x\n", want: "config cannot be set in a file"},
		{name: "key of the model's making", file: "threads: 1\nAPI_KEY: hunter2\n", want: "millrace.yaml:2: a file in the model folder cannot set api-key"},
		{name: "address of the model's making", file: "hostname: 127.0.0.1\n", want: "cannot set hostname"},
		{name: "port of the model's making", file: "port: 1\n", want: "cannot set port"},
		{name: "origins of the model's making", file: "cors-allow-origin: [https://a]\n", want: "cannot set cors-allow-origin"},
		{name: "collector of the model's making", file: "otlp-endpoint: http://h:4317\n", want: "cannot set otlp-endpoint"},
		{name: "body limit of the model's making", file: "payload-limit: 1000000000\n", want: "cannot set payload-limit"},
		{name: "places of the model's making", file: "max-concurrent-requests: 1000000\n", want: "cannot set max-concurrent-requests"},
		{name: "template from elsewhere", file: "tokenizer-config-path: /etc/passwd\n", want: "cannot set tokenizer-config-path"},
		{name: "log that shows values", file: "log-level: debug\n", want: "cannot set log-level"},
		{name: "file of a megabyte", file: "threads: 1\n" + strings.Repeat("# x\n", 1<<18), want: "millrace.yaml: 1024 kB, the limit is 1024 kB"},
		{name: "missing file", args: []string{"--config", "/nowhere/m.yaml"}, want: "/nowhere/m.yaml: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.file != "" {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "millrace.yaml"), []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--model-id", dir)
			}
			_, _, _, err := parse(t, args, tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v; want %q in it", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("not one line, or a secret in it: %q", err)
			}
		})
	}
}

func TestNotes(t *testing.T) {
	_, _, notes, err := parse(t, []string{"--waiting-served-ratio", "1.2"},
		[]string{"CUDA_GRAPHS=0", "CUDA_MEMORY_FRACTION=0.5", "API_KEY=hunter2", "SAGEMAKER_REGION=eu-west-1", "HOSTNAME=box", "HF_HUB_ENABLE_HF_TRANSFER=hunter2", "SM_NUM_GPUS=1", "SHARDED=",
			"LOG_LEVEL=verbose", "OPTION_MAX_MODEL_LEN=8", "SM_VLLM_GPU_MEMORY_UTILIZATION=0.9", "OPTION_ROLLING_BATCH=hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(notes, "\n")
	for _, want := range []string{"--waiting-served-ratio=1.2 is ignored", "CUDA_GRAPHS=0 is ignored", "CUDA_MEMORY_FRACTION=0.5 is ignored: --device is auto", `HOSTNAME="box"`, "HF_HUB_ENABLE_HF_TRANSFER has no meaning", "SM_NUM_GPUS=1 is ignored: --device is auto", "API_KEY=*** locks every caller out",
		"LOG_LEVEL=verbose: expected one of debug, info, warn, error: logging at info",
		"OPTION_MAX_MODEL_LEN is another server's variable and is taken for --max-total-tokens",
		"Variables of other servers without effect here: OPTION_ROLLING_BATCH, SM_VLLM_GPU_MEMORY_UTILIZATION"} {
		if !strings.Contains(got, want) {
			t.Errorf("notes lack %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") || strings.Contains(strings.ToLower(got), "sharded") {
		t.Errorf("notes show a secret or an empty variable:\n%s", got)
	}
}

// On SageMaker a request may call the model by the endpoint's name, which only
// --served-model-name tells the server.
func TestAnyModel(t *testing.T) {
	for _, tt := range []struct {
		env  []string
		want bool
	}{
		{nil, false},
		{[]string{"SAGEMAKER_REGION=eu-west-1"}, true},
		{[]string{"SAGEMAKER_REGION=eu-west-1", "SERVED_MODEL_NAME=chat"}, false},
	} {
		cfg, _, _, err := parse(t, nil, tt.env)
		if err != nil || cfg.AnyModel != tt.want {
			t.Errorf("%q: %v, %v; want %v", tt.env, cfg.AnyModel, err, tt.want)
		}
	}
}

// Every launcher flag of TGI must exist: a command line that works there
// starts here, or is refused by name.
func TestFlagsOfTGI(t *testing.T) {
	_, settings, _, err := parse(t, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range strings.Fields(`model-id revision validation-workers sharded num-shard quantize speculate dtype
		kv-cache-dtype trust-remote-code max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens
		max-input-tokens max-input-length max-total-tokens waiting-served-ratio max-batch-prefill-tokens
		max-batch-total-tokens max-waiting-tokens max-batch-size cuda-graphs hostname port shard-uds-path master-addr
		master-port huggingface-hub-cache weights-cache-override disable-custom-kernels cuda-memory-fraction
		rope-scaling rope-factor json-output otlp-endpoint otlp-service-name cors-allow-origin api-key watermark-gamma
		watermark-delta ngrok ngrok-authtoken ngrok-edge tokenizer-config-path disable-grammar-support env
		max-client-batch-size lora-adapters usage-stats payload-limit`) {
		if setting(settings, flag).Flag == "" {
			t.Errorf("no flag --%s", flag)
		}
	}
}

// Variables of the server mean nothing to other commands.
func TestOtherCommands(t *testing.T) {
	var cli struct {
		Serve Serve `cmd:"" default:"withargs"`
		Other struct {
			Port string
		} `cmd:""`
	}
	k, err := kong.New(&cli, kong.Resolvers(NewLoader([]string{"PORT=1"}, func(string) []string { return nil })))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse([]string{"other"}); err != nil || cli.Other.Port != "" {
		t.Errorf("port %q, err %v; want none", cli.Other.Port, err)
	}
}

func TestHideSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"/opt/ml/model":                         "/opt/ml/model",
		"org/name@main":                         "org/name@main",
		"s3://bucket/a@b?versionId=1&token=s":   "s3://bucket/a@b?versionId=1&token=***",
		"s3://user:pw@bucket/key":               "s3://***@bucket/key",
		"http://user:p/w@host:4317/v1/traces":   "http://***@host:4317/v1/traces",
		"https://host/m.tar.gz?X-Amz-Sig=s&e=1": "https://host/m.tar.gz?X-Amz-Sig=***&e=***",
		"https://host?secret":                   "https://host?***",
	} {
		if got := HideSecrets(text); got != want {
			t.Errorf("HideSecrets(%q) = %q, want %q", text, got, want)
		}
	}
}

// A file in the model folder that is not a regular one is refused before it is
// opened.
func TestPipeInTheModelFolder(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "millrace.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, _, _, err := parse(t, []string{"--model-id", dir}, nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "millrace.yaml: not a regular file") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("reading it waits")
	}
}
