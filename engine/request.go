package engine

import (
	"time"

	"github.com/millrace-ai/millrace/engine/sample"
)

// Request is one sequence to generate. It is immutable after Submit; its
// slices must not be changed by the caller until the Stream has ended.
type Request struct {
	ID             string        // for logs and traces only
	Tokens         []int32       // the prompt, special tokens included; 1 … MaxInput ids below the vocabulary's size
	MaxNewTokens   int           // ≥ 1, or 0 to score the prompt alone; prompt and new tokens together fit Limits.MaxTotal
	MinNewTokens   int           // no end or stop token before so many new tokens; at most MaxNewTokens
	Params         sample.Params // checked by the caller
	TopN           int           // alternatives of each token that is generated or scored, 0 … Limits.MaxTopN
	PromptLogprobs bool          // score the prompt; skips reading the prefix cache
	IgnoreEOS      bool          // generate past the model's end tokens
	StopTokens     []int32       // end the sequence as the model's end tokens do; at most MaxStopTokens
	AllowedTokens  []int32       // nothing else is generated; nil: all, at most MaxAllowedTokens
	BannedTokens   [][]int32     // token sequences that are not generated; at most MaxBannedSequences of MaxBannedTokens in all
	LogitBias      []sample.Bias // ids distinct, at most sample.MaxBiases, each at most sample.MaxBias
	Constraint     *Constraint   // nil: free text
	Adapter        int32         // 0: none, else what LoadAdapter returned
	Repetition     Repetition    // ends a sequence that repeats itself
	Prediction     []int32       // what the output may be like: where drafts are looked for first
	Images         []Image       // in order of their places in the prompt
	CacheSalt      string        // the prefix cache is shared with requests of the same salt alone
	// Deadline is when the sequence ends with the tokens it has, FinishDeadline;
	// one that is not being generated then, but waits or reads its prompt, ends
	// as Expired. Zero: none.
	Deadline time.Time
}

// FinishReason says why a sequence ended.
type FinishReason int

// Reasons to end. Stop strings belong to Text, which sees the characters.
const (
	NotFinished      FinishReason = iota
	FinishLength                  // MaxNewTokens reached
	FinishEOS                     // the last Token is an end token: the model's, or because its grammar allows nothing else
	FinishDeadline                // the first token after the request's deadline, or an Error of the kind Expired
	FinishStopToken               // the last Token is one of StopTokens
	FinishRepetition              // the last tokens are a Repetition
)

// Bounds of the token lists of a Request.
const (
	MaxStopTokens      = 1024
	MaxAllowedTokens   = 1 << 16
	MaxBannedSequences = 1024
	MaxBannedTokens    = 4096 // of all sequences together
)

// Token is one generated token, or one scored prompt token.
type Token struct {
	ID      int32
	Logprob float32       // natural log under the processed scores (prompt: raw); NaN for the first prompt token and image tokens
	Top     []Alternative // as many as TopN asked for; itself alone where a grammar left no choice, then Logprob is 0
}

// Alternative is one entry of Token.Top, best first.
type Alternative struct {
	ID      int32
	Logprob float32
}

// Limits are what the engine accepts; fixed at start.
type Limits struct {
	MaxInput   int // prompt tokens
	MaxTotal   int // prompt and generated tokens
	MaxTopN    int
	Vocab      int // ids are below this
	MaxWaiting int // requests that may wait for admission; beyond it Submit is Overloaded
}
