package handler

import (
	"crypto/rand"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// What /v1/chat/completions and /v1/completions have in common: the members
// that every object of an answer repeats, usage, reasons to end, and how a
// stream ends.

// openAIHead is what all objects of one answer begin with. The contract orders
// the members of a completion's chunk differently, so it is in two parts:
//
//	chat              open model ,"choices":[…],"usage":…}
//	completion chunk  open ,"choices":[…] model }
type openAIHead struct {
	open  []byte // {"object":"…","id":"…","created":…
	model []byte // ,"model":"…","system_fingerprint":"…"
}

// newOpenAIHead makes the head of an answer whose objects are of a kind
// ("chat.completion") and whose id begins with prefix ("chatcmpl-"). An adapter, if
// there is one, is the model that answers.
func (s *Server) newOpenAIHead(object, prefix, adapter string) openAIHead {
	served := s.servedAs
	if adapter != "" {
		served = appendServedAs(nil, adapter, &s.opt)
	}
	open := append(make([]byte, 0, 128), `{"object":"`...)
	open = append(open, object...)
	open = append(open, `","id":"`...)
	open = append(open, prefix...)
	open = append(open, rand.Text()...)
	open = append(open, `","created":`...)
	return openAIHead{strconv.AppendInt(open, time.Now().Unix(), 10), served}
}

// appendServedAs appends the members that name the model and this program.
func appendServedAs(dst []byte, model string, o *Options) []byte {
	label := o.DockerLabel
	if label == "" {
		label = "native"
	}
	dst = append(dst, `,"model":`...)
	dst = appendString(dst, model)
	dst = append(dst, `,"system_fingerprint":`...)
	return appendString(dst, o.Version+"-"+label)
}

// usage counts the tokens of an answer. A prompt counts once, however many
// choices answer it; cached is the part of it that was in the prefix cache, and
// reasoning, of chats, a part of the completion.
type usage struct {
	prompt, cached, completion int
	reasoning                  optional[int]
	predicted, rejected        optional[int] // drafted tokens of a prediction, right and wrong ones
}

// usageOf returns the usage of all.
func usageOf(all []*sequence) usage {
	u := usage{prompt: promptTokens(all), completion: generated(all)}
	for q := range prompts(all) {
		u.cached += q.stream.Times().CachedTokens
	}
	return u
}

// usage returns the usage of q after so many tokens.
func (q *sequence) usage(tokens int) usage {
	return usage{prompt: len(q.job.req.Tokens), cached: q.stream.Times().CachedTokens, completion: tokens}
}

// append appends the object of usage.
func (u usage) append(dst []byte) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.prompt), 10)
	dst = append(dst, `,"completion_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.completion), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.prompt+u.completion), 10)
	dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
	dst = strconv.AppendInt(dst, int64(u.cached), 10)
	if u.reasoning.set {
		dst = append(dst, `},"completion_tokens_details":{"reasoning_tokens":`...)
		dst = strconv.AppendInt(dst, int64(u.reasoning.v), 10)
		if u.predicted.set {
			dst = append(dst, `,"accepted_prediction_tokens":`...)
			dst = strconv.AppendInt(dst, int64(u.predicted.v), 10)
			dst = append(dst, `,"rejected_prediction_tokens":`...)
			dst = strconv.AppendInt(dst, int64(u.rejected.v), 10)
		}
	}
	return append(dst, "}}"...)
}

// appendEnd appends the last events of a stream: that of usage, if it has one
// of its own, and that of the end.
func (h *openAIHead) appendEnd(dst []byte, u usage, usageApart bool) []byte {
	if usageApart {
		dst = append(dst, "data: "...)
		dst = append(dst, h.open...)
		dst = append(dst, h.model...)
		dst = append(dst, `,"choices":[],"usage":`...)
		dst = u.append(dst)
		dst = append(dst, "}\n\n"...)
	}
	return append(dst, done...)
}

// openAIAnswer has what the answers of both routes do alike.
type openAIAnswer struct{}

// appendError implements answer.
func (openAIAnswer) appendError(dst []byte, e *Error, object, last bool) []byte {
	dst = append(dst, "data: "...)
	if object {
		dst = appendErrorObject(dst, e)
	} else {
		dst = append(dst, `{"error":{"message":`...)
		dst = appendString(dst, e.text())
		dst = append(dst, `,"http_status_code":`...)
		dst = strconv.AppendInt(dst, int64(e.Status), 10)
		dst = append(dst, `,"type":`...)
		dst = appendString(dst, e.Type)
		dst = append(dst, "}}"...)
	}
	dst = append(dst, "\n\n"...)
	if last {
		dst = append(dst, done...)
	}
	return dst
}

// counted implements answer.
func (openAIAnswer) counted(all []*sequence) []*sequence { return all }

// reason implements answer.
func (openAIAnswer) reason(r engine.FinishReason) string { return openAIReason(r) }

// appendPromptLogprobs appends vLLM's member with the log-probabilities of a
// prompt's tokens and of the top likeliest ones in their places, null for those that
// have none: the first one and image tokens. What it calls rank is null for a token
// that is not among these.
func appendPromptLogprobs(dst []byte, tok *token.Tokenizer, prompt []engine.Token, top int) []byte {
	dst = append(dst, `"prompt_logprobs":[`...)
	entry := func(id int32, logprob float32, rank int) {
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, int64(id), 10)
		dst = append(dst, `":{"logprob":`...)
		dst = appendFloat32(dst, max(logprob, -9999)) // as vLLM: JSON has no infinity
		dst = append(dst, `,"rank":`...)
		if rank > 0 {
			dst = strconv.AppendInt(dst, int64(rank), 10)
		} else {
			dst = append(dst, "null"...)
		}
		dst = append(dst, `,"decoded_token":`...)
		dst = appendString(dst, textOf(tok, id))
		dst = append(dst, '}')
	}
	for i, t := range prompt {
		if i > 0 {
			dst = append(dst, ',')
		}
		if t.Logprob != t.Logprob {
			dst = append(dst, "null"...)
			continue
		}
		dst = append(dst, '{')
		rank := 1 + slices.IndexFunc(t.Top, func(a engine.Alternative) bool { return a.ID == t.ID })
		entry(t.ID, t.Logprob, rank)
		for k, a := range t.Top[:min(len(t.Top), top)] {
			if a.ID != t.ID {
				dst = append(dst, ',')
				entry(a.ID, a.Logprob, k+1)
			}
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// appendIndex appends the member that says which choice an object is of.
func appendIndex(dst []byte, index int) []byte {
	dst = append(dst, `{"index":`...)
	return strconv.AppendInt(dst, int64(index), 10)
}

// openAIReason is OpenAI's name of a reason to end, "" before the end.
func openAIReason(r engine.FinishReason) string {
	switch {
	case r == engine.NotFinished:
		return ""
	case r == engine.FinishRepetition:
		return repetition
	case isCut(r):
		return "length"
	}
	return "stop"
}

// repetition is vLLM's name of the reason that a text repeated itself.
const repetition = "repetition"

// isCut reports whether a text ended before the model ended it.
func isCut(r engine.FinishReason) bool {
	return r == engine.FinishLength || r == engine.FinishDeadline
}

// done is the last event of a stream.
const done = "data: [DONE]\n\n"
