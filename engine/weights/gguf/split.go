package gguf

// split is how a pre-tokenizer divides a text: by one pattern after another, what
// matches and what does not.
type split struct {
	patterns []string
	whole    bool // text that is a token itself is not built from merges
	begins   bool // a text begins with the token for that, unless the file says otherwise
	composed bool // the text is normalized to NFC
}

// Patterns, most of them those of tokenizer.json files.
const (
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

	contraction = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
	rest        = `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

	patternLlama3  = contraction + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}` + rest
	patternQwen2   = contraction + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` + rest
	patternQwen35  = contraction + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternUpper   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	patternLower   = `|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
	restWithSlash  = `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternTekken  = patternUpper + patternLower + `|\p{N}` + restWithSlash
	patternGPT4o   = patternUpper + contraction + `?` + patternLower + contraction + `?|\p{N}{1,3}` + restWithSlash
	patternKimi    = `\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+` + contraction + `?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*` + contraction + `?|\p{N}{1,3}` + rest
	patternWords   = ` ?[^(\s|.,!?…。，、।۔،)]+`
	patternCJK     = `[一-龥぀-ゟ゠-ヿ]+`
	patternDeep    = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	patternExaone  = contraction + `|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`
	patternBailing = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternSeed    = contraction + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// Kinds of division that several names stand for.
var (
	splitGPT2    = split{patterns: []string{patternGPT2}}
	splitDigits  = split{patterns: []string{`\p{N}`, patternGPT2}}
	splitLlama3  = split{patterns: []string{patternLlama3}, whole: true, begins: true}
	splitQwen2   = split{patterns: []string{patternQwen2}, composed: true}
	splitGPT4o   = split{patterns: []string{patternGPT4o}}
	splitDeep3   = split{patterns: []string{`\p{N}{1,3}`, patternCJK, patternDeep}}
	splitChatGLM = split{patterns: []string{patternLlama3}, whole: true}
	splitBailing = split{patterns: []string{patternBailing}}
)

// splits are the pre-tokenizers by the names that llama.cpp gives them.
var splits = map[string]split{
	"default": {patterns: []string{"[\\p{P}\\$\\+<=>\\^~\\|]+", patternGPT2, `\p{N}+`, `[0-9][0-9][0-9]`}},

	"gpt-2": splitGPT2, "phi-2": splitGPT2, "mpt": splitGPT2, "olmo": splitGPT2, "jais": splitGPT2, "trillion": splitGPT2, "gigachat": splitGPT2,
	"a.x-4.0": splitGPT2, "mellum": splitGPT2, "exaone4": splitGPT2, "granite-docling": splitGPT2,

	"smollm": splitDigits, "starcoder": splitDigits, "refact": splitDigits, "command-r": splitDigits, "codeshell": splitDigits,
	"exaone": splitDigits, "minerva-7b": splitDigits, "mellum2": splitDigits,

	"llama3": splitLlama3, "llama-v3": splitLlama3, "llama-bpe": splitLlama3, "falcon3": splitLlama3, "falcon-h1": splitLlama3,
	"pixtral": splitLlama3, "midm-2.0": splitLlama3, "lfm2": splitLlama3,
	"dbrx": {patterns: []string{patternLlama3}}, "smaug-bpe": {patterns: []string{patternLlama3}},

	"qwen2": splitQwen2, "deepseek-r1-qwen": splitQwen2, "kormo": splitQwen2, "megrez": splitQwen2,
	"stablelm2": {patterns: []string{patternQwen2}}, "hunyuan": {patterns: []string{patternQwen2}}, "solar-open": {patterns: []string{patternQwen2}},
	"grok-2": {patterns: []string{patternQwen2}},
	"qwen35": {patterns: []string{patternQwen35}, composed: true},

	"tekken": {patterns: []string{patternTekken}, whole: true, begins: true},
	"gpt-4o": splitGPT4o, "llama4": splitGPT4o, "kanana2": splitGPT4o, "minimax-m2": splitGPT4o,

	"chatglm-bpe": {patterns: []string{patternLlama3}}, "glm4": splitChatGLM, "glm5": splitChatGLM,
	"deepseek-v3": splitDeep3, "hunyuan-dense": splitDeep3, "joyai-llm": splitDeep3,
	"bailingmoe": splitBailing, "bailingmoe2": splitBailing, "llada-moe": splitBailing,
	"kimi-k2":    {patterns: []string{patternKimi}},
	"seed-coder": {patterns: []string{patternSeed}},
	"exaone-moe": {patterns: []string{patternExaone}},
	"falcon":     {patterns: []string{"[\\p{P}\\$\\+<=>\\^~\\|`]+", patternGPT2, `[0-9][0-9][0-9]`}},
	"bloom":      {patterns: []string{patternWords}}, "poro-chat": {patterns: []string{patternWords}}, "gpt3-finnish": {patterns: []string{patternWords}},
	"viking":         {patterns: []string{patternWords, `\p{N}`}},
	"deepseek-coder": {patterns: []string{`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`}},
}
