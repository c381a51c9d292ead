package config

import (
	"reflect"
	"time"
)

// Serve is the configuration of the server, read once at start. A zero number
// where the comment says "auto" is settled when the model is known.
//
// Tags beside kong's: also = further environment names, strongest first, which
// win over the flag's own; min, max = bounds of a number; ignored = accepted
// without effect, and why; later = refused, and what is missing; neutral = the
// one value of a refused flag that asks for nothing; secret = never shown;
// operator = refused in a file in the model folder, since it decides who may
// call, who may see what, or how much of the machine strangers get, which is not
// the model's to decide.
type Serve struct {
	ModelID         string `name:"model-id" also:"HF_MODEL_ID" placeholder:"DIR" help:"Hugging Face checkpoint: a folder, s3://BUCKET/PREFIX, or an archive of one, here or in S3 (.tar.gz, .tar, .tar.zst). Left out: SageMaker's model data in /opt/ml/model if it holds a model, else the built-in demo model."`
	ServedModelName string `name:"served-model-name" placeholder:"NAME" help:"What answers and /v1/models call the model. Left out: its folder's name."`
	Config          string `name:"config" placeholder:"FILE" help:"YAML or JSON file of these flags. Left out: millrace.yaml or millrace.json in the model folder, if there, which cannot set what is the operator's, such as api-key or port; not from S3 or an archive, which come after the flags are settled."`

	Hostname string `name:"hostname" operator:"" default:"0.0.0.0" help:"Address to listen on."`
	Port     int    `name:"port" operator:"" short:"p" also:"SAGEMAKER_BIND_TO_PORT" default:"8080" min:"0" max:"65535" help:"Port to listen on; 0 takes a free one."`

	Device  string `name:"device" default:"auto" enum:"auto,cpu,cuda,ref,sim" help:"What computes: auto, cpu; ref (slow and plain, for comparing) and sim (no model, for measuring the rest) serve development."`
	Threads int    `name:"threads" min:"0" placeholder:"N" help:"CPU worker threads. Left out or 0: the cores this process may use."`

	MaxConcurrentRequests int  `name:"max-concurrent-requests" operator:"" default:"128" min:"1" help:"Requests in the server at once; more are answered 429."`
	MaxBestOf             int  `name:"max-best-of" default:"2" min:"1" help:"Largest best_of."`
	MaxStopSequences      int  `name:"max-stop-sequences" default:"4" min:"0" help:"Most stop strings of a request."`
	MaxTopNTokens         int  `name:"max-top-n-tokens" default:"5" min:"0" help:"Largest top_n_tokens. OpenAI's routes show up to 20 alternatives in any case."`
	MaxInputTokens        int  `name:"max-input-tokens" min:"1" placeholder:"N" help:"Longest prompt in tokens. Left out: max-total-tokens less one."`
	MaxInputLength        int  `name:"max-input-length" min:"1" placeholder:"N" help:"Older name of max-input-tokens."`
	MaxTotalTokens        int  `name:"max-total-tokens" min:"2" placeholder:"N" help:"Most tokens of prompt and answer together. Left out: what the model and the memory allow."`
	MaxBatchPrefillTokens int  `name:"max-batch-prefill-tokens" min:"1" placeholder:"N" help:"Most tokens computed in one step; a longer prompt takes several. Left out: what suits the device."`
	MaxBatchTotalTokens   int  `name:"max-batch-total-tokens" min:"1" placeholder:"N" help:"Tokens the key-value cache holds. Left out: what the memory allows."`
	MaxBatchSize          int  `name:"max-batch-size" min:"1" placeholder:"N" help:"Most requests computed together. Left out: 64."`
	PrefixCaching         bool `name:"prefix-caching" default:"true" negatable:"" help:"Reuse the cache of equal prompt beginnings."`
	MaxClientBatchSize    int  `name:"max-client-batch-size" default:"4" min:"1" help:"Most prompts of one completion request."`
	ValidationWorkers     int  `name:"validation-workers" default:"2" min:"1" help:"Prompts rendered or tokenized at once; long ones leave a worker for short ones if there are several."`

	ReturnFullText        bool     `name:"return-full-text" default:"true" negatable:"" help:"Whether / and /invocations repeat the prompt when a request does not say."`
	DefaultMaxTokens      int      `name:"default-max-tokens" min:"1" placeholder:"N" help:"Most tokens of a chat's answer when a request does not say. Left out: what the prompt leaves; TGI's is 100."`
	ToolCallFormat        string   `name:"tool-call-format" default:"openai" enum:"openai,tgi" help:"Form of tool calls in answers: OpenAI's, or that of TGI's document, whose arguments are an object."`
	ErrorFormat           string   `name:"error-format" default:"tgi" enum:"tgi,openai" help:"Body of errors on the /v1 routes: that of TGI's document, or OpenAI's error object."`
	TokenizerConfigPath   string   `name:"tokenizer-config-path" operator:"" placeholder:"FILE" help:"Chat template to use instead of the model's: a file like tokenizer_config.json, or a template itself if it ends in .jinja."`
	EscapeSpecialTokens   bool     `name:"escape-special-tokens" default:"true" negatable:"" help:"Keep what is spelled like a special token in the messages and tools of a chat as text. TGI's chats take it for the token."`
	OpenObjects           bool     `name:"open-objects" help:"Read JSON schemas as JSON Schema does: one without a type is for any value, and objects may have properties that it does not name. TGI's grammars write no others."`
	DisableGrammarSupport bool     `name:"disable-grammar-support" help:"Refuse requests with a grammar."`
	PayloadLimit          int64    `name:"payload-limit" operator:"" default:"2000000" min:"1" help:"Largest request body in bytes. Left out: 2000000, and on SageMaker its own limit of 25 MB."`
	APIKey                string   `name:"api-key" operator:"" secret:"" placeholder:"KEY" help:"Ask for this bearer token on every route but health, ping and metrics. Better given by the variable: others on the machine may see the command line."`
	CORSAllowOrigin       []string `name:"cors-allow-origin" operator:"" sep:"none" placeholder:"ORIGIN" help:"Origin that browsers may call from; may be repeated. Left out: any."`

	ComputeType string `name:"compute-type" placeholder:"NAME" help:"What answers call this machine in x-compute-type. Left out: 1-cpu, by the device."`

	LambdaInvokeMode string `name:"lambda-invoke-mode" default:"auto" enum:"auto,buffered,stream" help:"How answers leave a Lambda function: auto streams to function URLs and direct calls that ask for a stream; stream always, for a function URL or REST API that is set to stream; buffered never."`

	JSONOutput      bool   `name:"json-output" help:"Log as JSON, one object a line."`
	OTLPEndpoint    string `name:"otlp-endpoint" operator:"" placeholder:"URL" help:"OpenTelemetry collector that traces go to: http://HOST:4317 by gRPC, http://HOST:4318/v1/traces by HTTP. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says, else no traces."`
	OTLPServiceName string `name:"otlp-service-name" also:"OTEL_SERVICE_NAME" default:"text-generation-inference.router" placeholder:"NAME" help:"What traces call this service."`
	LogLevel        string `name:"log-level" operator:"" default:"info" placeholder:"LEVEL" help:"Least severe level that is logged: debug, info, warn, error."`
	Env             bool   `name:"env" short:"e" help:"Log the configuration at start."`

	GracefulTerminationTimeout int `name:"graceful-termination-timeout" default:"25" min:"0" help:"Seconds that running requests get after SIGTERM."`

	Hosting

	Compat `group:"compat"`
}

// autoPlaceholder marks numbers that, left out, are settled later.
const autoPlaceholder = "N"

// serveFlags are the names of all flags here.
var serveFlags = flagNames(reflect.TypeFor[Serve]())

func flagNames(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("name"); name != "" {
			names[name] = true
		}
	}
	return names
}

// Compat are TGI's flags that do nothing here yet, or never will. Their values
// are checked for their type and otherwise unused.
type Compat struct {
	Revision             string  `name:"revision" also:"HF_MODEL_REVISION" ignored:"the folder is served as it is" help:"Ignored: the folder is served as it is."`
	Sharded              string  `name:"sharded" enum:",true,false" default:"" ignored:"one process serves the model" help:"Ignored: one process serves the model."`
	NumShard             int     `name:"num-shard" also:"SM_NUM_GPUS" min:"0" ignored:"one process serves the model" help:"Ignored: one process serves the model."`
	Dtype                string  `name:"dtype" ignored:"weights keep the checkpoint's type" help:"Ignored: weights keep the checkpoint's type."`
	TrustRemoteCode      bool    `name:"trust-remote-code" also:"HF_MODEL_TRUST_REMOTE_CODE" ignored:"no code of a checkpoint is ever run" help:"Ignored: no code of a checkpoint is ever run."`
	WaitingServedRatio   float64 `name:"waiting-served-ratio" default:"0.3" ignored:"prompts join running requests at every step" help:"Ignored: prompts join running requests at every step."`
	MaxWaitingTokens     int     `name:"max-waiting-tokens" default:"20" min:"0" ignored:"prompts join running requests at every step" help:"Ignored: prompts join running requests at every step."`
	CUDAGraphs           string  `name:"cuda-graphs" ignored:"no CUDA device is used" help:"Ignored: no CUDA device is used."`
	CUDAMemoryFraction   float64 `name:"cuda-memory-fraction" default:"1" ignored:"no CUDA device is used" help:"Ignored: no CUDA device is used."`
	DisableCustomKernels bool    `name:"disable-custom-kernels" ignored:"there is one set of kernels" help:"Ignored: there is one set of kernels."`
	ShardUDSPath         string  `name:"shard-uds-path" ignored:"there are no shard processes" help:"Ignored: there are no shard processes."`
	MasterAddr           string  `name:"master-addr" ignored:"there are no shard processes" help:"Ignored: there are no shard processes."`
	MasterPort           int     `name:"master-port" min:"0" ignored:"there are no shard processes" help:"Ignored: there are no shard processes."`
	HuggingfaceHubCache  string  `name:"huggingface-hub-cache" ignored:"nothing is downloaded from the hub" help:"Ignored: nothing is downloaded from the hub."`
	WeightsCacheOverride string  `name:"weights-cache-override" ignored:"nothing is downloaded from the hub" help:"Ignored: nothing is downloaded from the hub."`
	WatermarkGamma       float64 `name:"watermark-gamma" ignored:"a watermark favours half of the vocabulary, by 2" help:"Ignored: a watermark favours half of the vocabulary, by 2."`
	WatermarkDelta       float64 `name:"watermark-delta" ignored:"a watermark favours half of the vocabulary, by 2" help:"Ignored: a watermark favours half of the vocabulary, by 2."`
	UsageStats           string  `name:"usage-stats" default:"off" enum:"on,off,no-stack" ignored:"no usage is ever reported" help:"Ignored: no usage is ever reported."`

	Quantize       string  `name:"quantize" also:"HF_MODEL_QUANTIZE" neutral:"none" later:"quantised weights" help:"Not in this build: quantised weights."`
	Speculate      int     `name:"speculate" neutral:"0" later:"speculative decoding" help:"Not in this build: speculative decoding."`
	KVCacheDtype   string  `name:"kv-cache-dtype" neutral:"auto" later:"a quantised key-value cache" help:"Not in this build: a quantised key-value cache."`
	RopeScaling    string  `name:"rope-scaling" later:"overriding the checkpoint's rope scaling" help:"Not in this build: overriding the checkpoint's rope scaling."`
	RopeFactor     float64 `name:"rope-factor" later:"overriding the checkpoint's rope scaling" help:"Not in this build: overriding the checkpoint's rope scaling."`
	LoraAdapters   string  `name:"lora-adapters" later:"LoRA adapters" help:"Not in this build: LoRA adapters."`
	Ngrok          bool    `name:"ngrok" neutral:"false" later:"an ngrok tunnel" help:"Not in this build: an ngrok tunnel."`
	NgrokAuthtoken string  `name:"ngrok-authtoken" secret:"" later:"an ngrok tunnel" help:"Not in this build: an ngrok tunnel."`
	NgrokEdge      string  `name:"ngrok-edge" later:"an ngrok tunnel" help:"Not in this build: an ngrok tunnel."`
}

// ignoredEnv are variables that TGI reads without having a flag for them and
// that mean nothing here. Some hold tokens, so they are named but never shown.
var ignoredEnv = []string{
	"ATTENTION", "PREFILL_CHUNKING", "TGI_WIGGLE_ROOM", "USE_FLASH_ATTENTION",
	"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_ENABLE_HF_TRANSFER",
	"LOG_COLORIZE", "OMP_NUM_THREADS", "XPU_MEMORY_FRACTION", "DISABLE_SGMV", "DISABLE_EXLLAMA",
	"EXLLAMA_VERSION", "USE_CUTLASS_W8A8",
}

// Drain is how long running requests may go on after a signal to end. A moment
// of the timeout is left for their last events.
func (s *Serve) Drain() time.Duration {
	timeout := time.Duration(s.GracefulTerminationTimeout) * time.Second
	return timeout - min(timeout/10, 500*time.Millisecond)
}
