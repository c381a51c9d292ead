package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Other containers for SageMaker make their server's options of variables with
// a prefix. The options that have a flag here work; the rest is named once.

// otherPrefixes are vLLM's, SGLang's, llama.cpp's and LMI's.
var otherPrefixes = []string{"SM_VLLM_", "SM_SGLANG_", "SM_LLAMA_CPP_", "OPTION_"}

// otherNames are the options behind the prefixes that are flags here. Where
// servers call one thing differently, all names are here.
var otherNames = map[string][]string{
	"model-id":                 {"MODEL", "MODEL_PATH", "MODEL_ID"},
	"revision":                 {"REVISION"},
	"served-model-name":        {"SERVED_MODEL_NAME"},
	"max-total-tokens":         {"MAX_MODEL_LEN", "CONTEXT_LENGTH", "CTX_SIZE"},
	"max-batch-size":           {"MAX_NUM_SEQS", "MAX_RUNNING_REQUESTS", "MAX_ROLLING_BATCH_SIZE"},
	"max-batch-prefill-tokens": {"MAX_NUM_BATCHED_TOKENS", "CHUNKED_PREFILL_SIZE", "MAX_ROLLING_BATCH_PREFILL_TOKENS"},
	"prefix-caching":           {"ENABLE_PREFIX_CACHING"},
	"num-shard":                {"TENSOR_PARALLEL_SIZE", "TENSOR_PARALLEL_DEGREE", "TP_SIZE"},
	"replicas":                 {"DATA_PARALLEL_SIZE", "DP_SIZE"},
	"dtype":                    {"DTYPE"},
	"quantize":                 {"QUANTIZATION", "QUANTIZE"},
	"trust-remote-code":        {"TRUST_REMOTE_CODE"},
	"api-key":                  {"API_KEY"},
	"threads":                  {"THREADS"},
}

// variable returns the variable that sets a flag, and its text: one of its own
// or, if there is none, another server's.
func (l *Loader) variable(flag *kong.Value) (name, text string, ok bool) {
	for _, name := range envNames(flag) {
		text, ok := l.env[name]
		if ok && (flag.Name != "hostname" || isIP(text)) { // else a container's own name, not an address to listen on
			return name, text, true
		}
	}
	for _, option := range otherNames[flag.Name] {
		for _, prefix := range otherPrefixes {
			switch text := l.env[prefix+option]; text {
			case "", "auto", "max", "-1": // what their servers would find out, as ours does without the flag
			default:
				return prefix + option, text, true
			}
		}
	}
	return "", "", false
}

// notesOfOthers returns a note for each variable of another server that took
// effect, and one for all that did not.
func (l *Loader) notesOfOthers() (notes []string) {
	effect := map[string]string{} // variable → flag
	for flag, from := range l.from {
		if name, ok := strings.CutPrefix(from, "environment "); ok {
			effect[name] = flag
		}
	}
	var unused []string
	for name := range l.env {
		if !slices.ContainsFunc(otherPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		if flag := effect[name]; flag != "" {
			notes = append(notes, fmt.Sprintf("%s is another server's variable and is taken for --%s", name, flag))
		} else {
			unused = append(unused, name)
		}
	}
	slices.Sort(notes)
	if len(unused) > 0 {
		slices.Sort(unused)
		notes = append(notes, "Variables of other servers without effect here: "+strings.Join(unused, ", "))
	}
	return notes
}
