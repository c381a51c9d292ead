package sample

// Params are a request's sampling parameters, checked by the caller. C layout;
// the zero value is not useful, start from Greedy.
type Params struct {
	Seed              uint64
	Temperature       float32 // > 0; 1 changes nothing; only read when Sample is 1
	TopK              int32   // 0: off
	TopP              float32 // 1: off
	TypicalP          float32 // 1: off
	RepetitionPenalty float32 // 1: off; over prompt and generated tokens
	FrequencyPenalty  float32 // 0: off; times the count among generated tokens
	PresencePenalty   float32 // 0: off; once for each id among the generated tokens
	Sample            int32   // 1: draw from the distribution, 0: the best token
	Watermark         int32   // 1: raise the tokens that Green tells, 0: off
	MinP              float32 // 0: off; at most 1
}

// Bias is added to the logit of one token, in each row of a sequence. C layout.
type Bias struct {
	Token int32
	Bias  float32 // -MaxBias … MaxBias
}

// Limits of the biases of one sequence.
const (
	MaxBiases = 1024 // how many
	MaxBias   = 100  // the largest magnitude
)

// Greedy returns parameters that choose the best token and change no score.
func Greedy() Params {
	return Params{Temperature: 1, TopP: 1, TypicalP: 1, RepetitionPenalty: 1}
}

// Counts reports whether the scores depend on tokens seen before.
func (p *Params) Counts() bool {
	return p.RepetitionPenalty != 1 || p.FrequencyPenalty != 0 || p.PresencePenalty != 0
}
