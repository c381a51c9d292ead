package handler

import (
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/imagefetch"
)

// Options are what an operator decides about the API. Zero values mean the
// default named; only ModelID has none.
type Options struct {
	ModelID     string // what /info, /v1/models and answers call the model
	ModelAlias  string // another name that requests may give it; "": none
	AnyModel    bool   // requests may give it any name, while there are no adapters
	PipelineTag string // of the model's hub page, "" if unknown
	Version     string // of this program; "": the module's
	SHA         string // of this program's source, "" if unknown
	DockerLabel string // of this program's image, "" if none
	Device      string // what computes, for the metrics; "": cpu
	ComputeType string // the x-compute-type header; "": 1-cpu

	APIKey      string   // "": no key needed
	CORSOrigins []string // nil: every origin

	PayloadLimit          int64 // bytes of a request body; 0: 2,000,000
	MaxConcurrentRequests int   // 0: 128
	MaxBestOf             int   // 0: 2
	MaxStopSequences      int   // 0: 4
	MaxTopNTokens         int   // 0: 5; the OpenAI routes allow 20 if it is less
	MaxClientBatchSize    int   // 0: 4
	ValidationWorkers     int   // prompts tokenized at once; 0: 2

	MaxImages     int // of a request; 0: 16
	MaxImageBytes int // of an image; 0: 20 MiB
	// ImageFetcher gets the images that requests name; nil: those of data URIs alone.
	ImageFetcher *imagefetch.Fetcher

	// DiscardPrompt makes / and /invocations answer without the prompt unless
	// a request asks for it with return_full_text.
	DiscardPrompt bool
	// DisableGrammar refuses every grammar.
	DisableGrammar bool
	// OpenObjects gives JSON schemas their own meaning: without a type they are
	// for any value, and objects may have members that they do not name.
	OpenObjects bool
	// DefaultMaxTokens is the limit of a chat's answer without max_tokens; 0:
	// what the prompt leaves.
	DefaultMaxTokens int
	// Speculate says that the engine drafts tokens, so that a request's prediction is
	// of use.
	Speculate bool
	// Repetition ends texts that repeat themselves where a request has no
	// repetition_detection.
	Repetition engine.Repetition
	// ReasoningInText leaves a model's reasoning in the content of its answer.
	ReasoningInText bool
	// ReasoningBudget is the most tokens of reasoning where a request does not
	// say; nil: any number.
	ReasoningBudget *int32
	// ReasoningBudgetMessage are the last words of reasoning that has used up its
	// budget; "": none.
	ReasoningBudgetMessage string
	// ToolCallObject shows calls in TGI's form, which the contract has: their
	// arguments as an object, and in a stream one call instead of a list.
	ToolCallObject bool
	// ErrorObject answers errors of the /v1 routes with OpenAI's object instead
	// of the contract's body.
	ErrorObject bool

	// AdapterUpdates lets clients load and unload adapters.
	AdapterUpdates bool

	// MetricNamespace makes each request's line in the log one that CloudWatch
	// makes metrics of, in this namespace; the Logger must write JSON. "": off.
	MetricNamespace string

	StallTimeout time.Duration // a step that takes longer makes health fail; 0: 2 minutes
	KeepAlive    time.Duration // silence after which a stream sends a comment; 0: 15 s
	Logger       *slog.Logger  // nil: slog.Default()

	// LogLinesDropped counts for the metrics the lines of the log that were
	// dropped because nothing read them; nil: none ever are.
	LogLinesDropped func() int64

	Tracer trace.Tracer // of the requests' spans; nil: none
}

// withDefaults fills in the zero values.
func (o Options) withDefaults() Options {
	def(&o.Version, moduleVersion())
	def(&o.Device, "cpu")
	def(&o.ComputeType, "1-cpu")
	def(&o.PayloadLimit, 2_000_000)
	def(&o.MaxConcurrentRequests, 128)
	def(&o.MaxBestOf, 2)
	def(&o.MaxStopSequences, 4)
	def(&o.MaxTopNTokens, 5)
	def(&o.MaxClientBatchSize, 4)
	def(&o.ValidationWorkers, 2)
	def(&o.MaxImages, 16)
	def(&o.MaxImageBytes, 20<<20)
	def(&o.StallTimeout, 2*time.Minute)
	def(&o.KeepAlive, 15*time.Second)
	if o.LogLinesDropped == nil {
		o.LogLinesDropped = func() int64 { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
