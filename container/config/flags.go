package config

import (
	"reflect"
	"time"

	"github.com/alecthomas/kong"
)

// Serve is the configuration of the server, read once at start. A zero number
// where the comment says "auto" is settled when the model is known.
//
// Tags beside kong's: also = further environment names, strongest first, which
// win over the flag's own; min, max = bounds of a number; ignored = accepted
// without effect, and why; later = refused, and what is missing; neutral = the
// one value of a refused flag that asks for nothing; secret = never shown;
// variable = name of the
// environment variable instead of the flag's in upper case, - for none; operator
// = refused in a file in the model folder, since it decides who may
// call, who may see what, or how much of the machine strangers get, which is not
// the model's to decide.
type Serve struct {
	Model string `arg:"" optional:"" group:"model" help:"The model: as --model-id."`

	ModelID             string  `name:"model-id" also:"HF_MODEL_ID" group:"model" placeholder:"MODEL" help:"Hugging Face checkpoint or GGUF: a folder, a .gguf file, ORG/NAME[:TYPE][@REVISION] of the Hugging Face hub, s3://BUCKET/PREFIX, or an archive, here or in S3 (.tar.gz, .tar, .tar.zst). A folder of that name wins over the hub. Default: SageMaker's model data in /opt/ml/model if it holds a model, else the built-in demo model."`
	Revision            string  `name:"revision" also:"HF_MODEL_REVISION" operator:"" group:"model" placeholder:"REVISION" help:"Branch, tag or commit of a model of the hub. Default: main."`
	HuggingfaceHubCache string  `name:"huggingface-hub-cache" also:"HF_HUB_CACHE" operator:"" group:"model" placeholder:"DIR" help:"Cache for models of the hub, which Hugging Face's tools share. Default: hub in HF_HOME or in ~/.cache/huggingface; if that cannot be written, a folder for temporary files."`
	ServedModelName     string  `name:"served-model-name" group:"model" placeholder:"NAME" help:"What answers and /v1/models call the model. Default: the name of its folder or repository."`
	TokenizerConfigPath string  `name:"tokenizer-config-path" operator:"" group:"model" placeholder:"FILE" help:"Chat template to use instead of the model's: a file like tokenizer_config.json, or a template itself if it ends in .jinja."`
	LoraAdapters        string  `name:"lora-adapters" operator:"" group:"model" placeholder:"LIST" help:"LoRA adapters to load at start, which requests name in adapter_id or model: NAME=PLACE, or the name of one of the hub alone, separated by commas; or JSON objects with name and path, as vLLM has them. A PLACE is a folder, s3://BUCKET/PREFIX, or ORG/NAME[@REVISION] of the hub."`
	AdapterMemory       int     `name:"adapter-memory" operator:"" min:"1" group:"model" placeholder:"N" help:"Memory in MiB for LoRA adapters. Those that are not in use are dropped where others need it, but for those of --lora-adapters. Default: 512, or a sixteenth of what is free if that is less."`
	Quantize            string  `name:"quantize" also:"HF_MODEL_QUANTIZE" group:"model" default:"none" placeholder:"int8|int4" help:"Brings weights that the checkpoint has as floats into 8 or 4 bits while it is loaded. A quantized checkpoint needs no flag; the name of its method is accepted."`
	Device              string  `name:"device" variable:"MILLRACE_DEVICE" group:"model" default:"auto" enum:"auto,cpu,cuda,ref,sim" placeholder:"auto|cpu|cuda" help:"What computes: cpu, which is auto, or cuda, an NVIDIA GPU, by the library of --cuda-library. For development there are ref (slow and plain, to compare with) and sim (no model, to measure the rest)."`
	CUDALibrary         string  `name:"cuda-library" variable:"MILLRACE_CUDA_LIBRARY" operator:"" group:"model" placeholder:"FILE" help:"CUDA backend that --device cuda opens. Default: libmillrace_cuda.so beside this program, or libmillrace_cuda12.so if the driver is older."`
	CUDAMemoryFraction  float64 `name:"cuda-memory-fraction" group:"model" default:"1" placeholder:"NUMBER" help:"Part of the GPU's memory that --device cuda may take, above 0 and at most 1."`
	NumShard            int     `name:"num-shard" also:"SM_NUM_GPUS" group:"model" min:"0" placeholder:"COUNT" help:"GPUs that --device cuda divides the model among, at most 8, which must reach each other's memory; 0 and 1 are one."`
	Replicas            int     `name:"replicas" group:"model" min:"1" max:"64" default:"1" placeholder:"COUNT" help:"Copies of the model that --device cuda serves, each on --num-shard GPUs of its own, which need not reach the others' memory. A request goes to one of them: by load, and by what its cache has of the prompt."`
	Threads             int     `name:"threads" variable:"MILLRACE_THREADS" group:"model" min:"0" placeholder:"N" help:"CPU worker threads. Default: the cores this process may use."`

	Hostname                   string   `name:"hostname" operator:"" group:"server" default:"0.0.0.0" placeholder:"ADDRESS" help:"Address to listen on. Default: 0.0.0.0, all interfaces; 127.0.0.1 is this machine alone."`
	Port                       int      `name:"port" operator:"" short:"p" also:"SAGEMAKER_BIND_TO_PORT" group:"server" default:"8080" min:"0" max:"65535" help:"Port to listen on; 0 takes a free one."`
	APIKey                     string   `name:"api-key" operator:"" secret:"" group:"server" placeholder:"KEY" help:"Require this bearer token on every route except health, ping and metrics. Prefer the variable: other users of the machine can see the command line."`
	CORSAllowOrigin            []string `name:"cors-allow-origin" operator:"" sep:"none" group:"server" placeholder:"ORIGIN" help:"Origin that browsers may call from; may be repeated. Default: any."`
	ErrorFormat                string   `name:"error-format" default:"tgi" enum:"tgi,openai" group:"server" placeholder:"tgi|openai" help:"Body of errors on the /v1 routes: that of TGI's API, or OpenAI's error object."`
	ToolCallFormat             string   `name:"tool-call-format" default:"openai" enum:"openai,tgi" group:"server" placeholder:"openai|tgi" help:"Form of tool calls in answers: OpenAI's, or that of TGI's API, whose arguments are an object."`
	EscapeSpecialTokens        bool     `name:"escape-special-tokens" default:"true" negatable:"" group:"server" help:"Keep what is spelled like a special token in the messages and tools of a chat as text. TGI's chats take it for the token."`
	OpenObjects                bool     `name:"open-objects" group:"server" help:"Read JSON schemas as JSON Schema does: a schema without a type allows any value, and objects may have properties that it does not name. TGI's grammars allow no others."`
	DisableGrammarSupport      bool     `name:"disable-grammar-support" group:"server" help:"Refuse requests with a grammar."`
	AllowRuntimeLoraUpdating   bool     `name:"allow-runtime-lora-updating" also:"VLLM_ALLOW_RUNTIME_LORA_UPDATING" operator:"" negatable:"" group:"server" help:"Let clients load and unload LoRA adapters from any place that this server can read: /v1/load_lora_adapter, /v1/unload_lora_adapter and SageMaker's /adapters. Default: only on SageMaker, whose platform alone reaches these routes."`
	ShutdownDelay              int      `name:"shutdown-delay" default:"0" min:"0" max:"300" group:"server" help:"Seconds after SIGTERM in which health checks fail and requests are still accepted, for load balancers that notice late. The timeout for running requests begins after it."`
	GracefulTerminationTimeout int      `name:"graceful-termination-timeout" default:"25" min:"0" group:"server" help:"Seconds that running requests get after SIGTERM."`
	Config                     string   `name:"config" variable:"MILLRACE_CONFIG" group:"server" placeholder:"FILE" help:"YAML or JSON file of these flags. Default: millrace.yaml or millrace.json in the model folder, which cannot set what is the operator's, such as api-key or port. It is not read from S3 or an archive."`
	Env                        bool     `name:"env" variable:"-" short:"e" group:"server" help:"Log the configuration at start."`

	MaxConcurrentRequests int   `name:"max-concurrent-requests" operator:"" default:"128" min:"1" group:"limits" help:"Requests in the server at once; more are answered 429."`
	MaxBatchSize          int   `name:"max-batch-size" min:"1" placeholder:"N" group:"limits" help:"Most requests computed together. Default: 64."`
	MaxInputTokens        int   `name:"max-input-tokens" min:"1" placeholder:"N" group:"limits" help:"Longest prompt in tokens. Default: max-total-tokens - 1."`
	MaxInputLength        int   `name:"max-input-length" min:"1" placeholder:"N" group:"limits" help:"Older name of max-input-tokens."`
	MaxTotalTokens        int   `name:"max-total-tokens" min:"2" placeholder:"N" group:"limits" help:"Most tokens of prompt and answer together. Default: what the model and the memory allow."`
	MaxBestOf             int   `name:"max-best-of" default:"2" min:"1" group:"limits" help:"Largest best_of."`
	MaxStopSequences      int   `name:"max-stop-sequences" default:"4" min:"0" group:"limits" help:"Most stop strings of a request."`
	MaxTopNTokens         int   `name:"max-top-n-tokens" default:"5" min:"0" group:"limits" help:"Largest top_n_tokens. OpenAI's routes show up to 20 alternatives in any case."`
	MaxClientBatchSize    int   `name:"max-client-batch-size" default:"4" min:"1" group:"limits" help:"Most prompts of one completion request."`
	ValidationWorkers     int   `name:"validation-workers" default:"2" min:"1" group:"limits" help:"Prompts that are rendered or tokenized at once, whatever the number of requests. With more than one, a worker stays free for short prompts."`
	MaxImages             int   `name:"max-images" operator:"" default:"16" min:"1" max:"1000" group:"limits" help:"Most images of a request, for models that read images."`
	MaxImageFetchSize     int   `name:"max-image-fetch-size" operator:"" default:"20971520" min:"1" max:"1073741824" group:"limits" help:"Largest image in bytes, fetched or as a data URI."`
	PayloadLimit          int64 `name:"payload-limit" operator:"" default:"2000000" min:"1" group:"limits" help:"Largest request body in bytes. Default: 2000000; on SageMaker its own limit of 25 MB."`

	ImageFetch            bool   `name:"image-fetch" operator:"" default:"true" negatable:"" group:"server" help:"Fetch images that requests name by an address. Without it, requests send them as data URIs. Addresses that are not public are never fetched from."`
	ImageProxy            string `name:"image-proxy" operator:"" group:"server" placeholder:"URL" help:"HTTP proxy to fetch images through. Default: none, whatever the environment says."`
	ImageMemory           int    `name:"image-memory" operator:"" min:"1" group:"cache" placeholder:"N" help:"Memory in MiB for what the vision tower has made of images, which later requests about them reuse. Default: 256, or a sixteenth of what is free if that is less."`
	MaxBatchTotalTokens   int    `name:"max-batch-total-tokens" min:"1" placeholder:"N" group:"cache" help:"Tokens the key-value cache holds. Default: what the memory allows."`
	MaxBatchPrefillTokens int    `name:"max-batch-prefill-tokens" min:"1" placeholder:"N" group:"cache" help:"Most tokens computed in one step; a longer prompt takes several steps. Default: what suits the device."`
	KVCacheDtype          string `name:"kv-cache-dtype" default:"auto" group:"cache" placeholder:"auto|f16|int8" help:"How the key-value cache is kept: auto, as suits the weights (f16, of small or float32 models float32), f16, or int8, which takes a little more than half of f16's memory."`
	PrefixCaching         bool   `name:"prefix-caching" default:"true" negatable:"" group:"cache" help:"Reuse the cache when prompts begin alike."`
	Speculate             int    `name:"speculate" default:"0" min:"0" max:"64" group:"cache" help:"Most tokens of a draft, which is taken from the prompt or the answer so far, or from the model's own head (MTP) where it has one, and checked in one step, as long as that pays. The text stays the same, also under grammars. Default: 0, no drafts."`

	PrefixCacheFile string `name:"prefix-cache-file" operator:"" placeholder:"FILE" group:"cache" help:"Prefix file that millrace prefix has written, here or in S3: prompts that begin with it start from there as soon as the server is ready. Several are separated by commas. One that is not of this model, machine and build is not used; the log says why."`

	GenerationConfig       string `name:"generation-config" default:"auto" enum:"auto,vllm,tgi" group:"sampling" placeholder:"auto|tgi" help:"Sampling defaults of the OpenAI routes: auto takes temperature, top_p, top_k, min_p, typical_p and repetition_penalty from the model's generation_config.json, tgi (or vllm) takes none of them. The generate routes keep TGI's defaults."`
	DefaultMaxTokens       int    `name:"default-max-tokens" min:"1" placeholder:"N" group:"sampling" help:"Most tokens of a chat's answer when a request does not say. Default: what the prompt leaves; TGI's is 100."`
	ReasoningFormat        string `name:"reasoning-format" default:"auto" enum:"auto,none" group:"sampling" placeholder:"auto|none" help:"Where answers show a model's reasoning: auto gives it fields of its own (reasoning_content and reasoning), none leaves it in the content."`
	ReasoningBudget        int    `name:"reasoning-budget" default:"-1" min:"-1" max:"1000000000" group:"sampling" placeholder:"N" help:"Most tokens of reasoning when a request does not say; then it is ended and the model answers. Default: -1, any number."`
	ReasoningBudgetMessage string `name:"reasoning-budget-message" default:"I have thought about this long enough and will answer now." group:"sampling" placeholder:"TEXT" help:"Last words of reasoning that has used up its budget."`
	RepetitionDetection    string `name:"repetition-detection" placeholder:"JSON" group:"sampling" help:"End texts that repeat themselves when a request does not say, as the field of requests does: {\"max_pattern_size\": 64, \"min_count\": 8}. Default: off."`
	ReturnFullText         bool   `name:"return-full-text" default:"true" negatable:"" group:"sampling" help:"Whether / and /invocations repeat the prompt when a request does not say."`

	Hosting `group:"aws"`

	LogLevel        string `name:"log-level" operator:"" default:"info" group:"logging" placeholder:"LEVEL" help:"Least severe level that is logged: debug, info, warn, error."`
	JSONOutput      bool   `name:"json-output" negatable:"" group:"logging" help:"Log as JSON, one object a line. Default: only if standard error is not a terminal."`
	OTLPEndpoint    string `name:"otlp-endpoint" operator:"" group:"logging" placeholder:"URL" help:"OpenTelemetry collector that traces go to: http://HOST:4317 by gRPC, http://HOST:4318/v1/traces by HTTP. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says, else no traces."`
	OTLPServiceName string `name:"otlp-service-name" also:"OTEL_SERVICE_NAME" default:"text-generation-inference.router" group:"logging" placeholder:"NAME" help:"What traces call this service."`

	Compat `group:"compat"`
}

// Groups are the headings of Serve's flags in help, in this order. The last two
// are for command lines of TGI's; help leaves them out unless asked for all.
var Groups = []kong.Group{
	{Key: "model", Title: "Model:"},
	{Key: "server", Title: "Server:"},
	{Key: "limits", Title: "Limits:"},
	{Key: "cache", Title: "Cache and batching:"},
	{Key: "sampling", Title: "Defaults of generation:"},
	{Key: "aws", Title: "AWS (SageMaker and Lambda):"},
	{Key: "logging", Title: "Logging and tracing:"},
	{Key: "compat", Title: "TGI compatibility, accepted without effect:"},
	{Key: "later", Title: "TGI compatibility, refused because they are not in this build:"},
}

// ForTGI reports whether the flags of a group are only for TGI's command lines.
func ForTGI(group string) bool { return group == "compat" || group == "later" }

// autoPlaceholder marks numbers that, left out, are settled later.
const autoPlaceholder = "N"

// serveFlags are the names of all flags here.
var serveFlags = flagNames()

func flagNames() map[string]bool {
	names := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Serve]()) {
		if name := f.Tag.Get("name"); name != "" {
			names[name] = true
		}
	}
	return names
}

// Compat are TGI's flags that do nothing here yet, or never will. Their values
// are checked for their type and otherwise unused.
type Compat struct {
	Sharded              string  `name:"sharded" enum:",true,false" default:"" ignored:"one process serves the model" placeholder:"true|false" help:"Ignored: one process serves the model."`
	Dtype                string  `name:"dtype" ignored:"weights keep the checkpoint's type" placeholder:"TEXT" help:"Ignored: weights keep the checkpoint's type."`
	TrustRemoteCode      bool    `name:"trust-remote-code" also:"HF_MODEL_TRUST_REMOTE_CODE" ignored:"no code of a checkpoint is ever run" help:"Ignored: no code of a checkpoint is ever run."`
	WaitingServedRatio   float64 `name:"waiting-served-ratio" default:"0.3" ignored:"prompts join running requests at every step" placeholder:"NUMBER" help:"Ignored: prompts join running requests at every step."`
	MaxWaitingTokens     int     `name:"max-waiting-tokens" default:"20" min:"0" ignored:"prompts join running requests at every step" placeholder:"COUNT" help:"Ignored: prompts join running requests at every step."`
	CUDAGraphs           string  `name:"cuda-graphs" ignored:"batches of all sizes are computed alike" placeholder:"TEXT" help:"Ignored: batches of all sizes are computed alike."`
	DisableCustomKernels bool    `name:"disable-custom-kernels" ignored:"there is one set of kernels" help:"Ignored: there is one set of kernels."`
	ShardUDSPath         string  `name:"shard-uds-path" ignored:"there are no shard processes" placeholder:"PATH" help:"Ignored: there are no shard processes."`
	MasterAddr           string  `name:"master-addr" ignored:"there are no shard processes" placeholder:"TEXT" help:"Ignored: there are no shard processes."`
	MasterPort           int     `name:"master-port" min:"0" ignored:"there are no shard processes" placeholder:"COUNT" help:"Ignored: there are no shard processes."`
	WeightsCacheOverride string  `name:"weights-cache-override" ignored:"weights are read where the model is" placeholder:"TEXT" help:"Ignored: weights are read where the model is."`
	WatermarkGamma       float64 `name:"watermark-gamma" ignored:"a watermark favours half of the vocabulary, by 2" placeholder:"NUMBER" help:"Ignored: a watermark favours half of the vocabulary, by 2."`
	WatermarkDelta       float64 `name:"watermark-delta" ignored:"a watermark favours half of the vocabulary, by 2" placeholder:"NUMBER" help:"Ignored: a watermark favours half of the vocabulary, by 2."`
	UsageStats           string  `name:"usage-stats" default:"off" enum:"on,off,no-stack" ignored:"no usage is ever reported" placeholder:"on|off" help:"Ignored: no usage is ever reported."`

	RopeScaling    string  `group:"later" name:"rope-scaling" later:"overriding the checkpoint's rope scaling" placeholder:"TEXT" help:"Not in this build: overriding the checkpoint's rope scaling."`
	RopeFactor     float64 `group:"later" name:"rope-factor" later:"overriding the checkpoint's rope scaling" placeholder:"NUMBER" help:"Not in this build: overriding the checkpoint's rope scaling."`
	Ngrok          bool    `group:"later" name:"ngrok" neutral:"false" later:"an ngrok tunnel" help:"Not in this build: an ngrok tunnel."`
	NgrokAuthtoken string  `group:"later" name:"ngrok-authtoken" secret:"" later:"an ngrok tunnel" placeholder:"TEXT" help:"Not in this build: an ngrok tunnel."`
	NgrokEdge      string  `group:"later" name:"ngrok-edge" later:"an ngrok tunnel" placeholder:"TEXT" help:"Not in this build: an ngrok tunnel."`
}

// ignoredEnv are variables that TGI reads without having a flag for them and
// that mean nothing here. They are named but never shown: one may hold a secret.
var ignoredEnv = []string{
	"ATTENTION", "PREFILL_CHUNKING", "TGI_WIGGLE_ROOM", "USE_FLASH_ATTENTION",
	"HF_HUB_ENABLE_HF_TRANSFER",
	"LOG_COLORIZE", "OMP_NUM_THREADS", "XPU_MEMORY_FRACTION", "DISABLE_SGMV", "DISABLE_EXLLAMA",
	"EXLLAMA_VERSION", "USE_CUTLASS_W8A8",
}

// Drain is how long running requests may go on after a signal to end. A moment
// of the timeout is left for their last events.
func (s *Serve) Drain() time.Duration {
	timeout := time.Duration(s.GracefulTerminationTimeout) * time.Second
	return timeout - min(timeout/10, 500*time.Millisecond)
}
