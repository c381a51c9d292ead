package handler

import (
	"math"
	"net/http"

	"github.com/millrace-ai/millrace/handler/body"
)

// completionRequest is the body of /v1/completions, as sent. Fields that are
// null count as absent.
type completionRequest struct {
	parameters
	prompts    []prompt
	suffix     optional[string]
	echo       bool             // answer with the prompt before the generated text
	logprobs   optional[uint32] // show them, and that many alternatives
	candidates optional[uint32] // best_of: sequences to generate, of which n are answered
}

// prompt is a text, or tokens that are taken as they are.
type prompt struct {
	text string
	ids  []int32 // nil: there is a text
}

var completionFields = fieldsOn(onCompletion, "prompt", "suffix", "echo", "logprobs", "best_of")

// decodeCompletion reads the body of a completion.
func decodeCompletion(data []byte) (req completionRequest, err error) {
	r := body.NewReader(data)
	hasPrompt, fault := false, ""
	err = r.Object("struct CompletionRequest", completionFields.names, func(field int) (err error) {
		if field >= completionFields.own {
			return completionFields.set(&req.parameters, r, field)
		}
		name := completionFields.names[field]
		if name != "prompt" {
			if null, err := r.Null(); null {
				return err
			}
		}
		switch name {
		case "prompt":
			hasPrompt = true
			req.prompts, fault, err = decodePrompts(r)
		case "suffix":
			return set(&req.suffix, r.String)
		case "echo":
			req.echo, err = r.Bool()
		case "logprobs":
			return set(&req.logprobs, r.Uint32)
		case "best_of":
			return set(&req.candidates, r.Uint32)
		}
		return err
	})
	switch {
	case err != nil:
	case !hasPrompt:
		err = r.Missing("prompt")
	case fault != "":
		err = body.Within(r.Errorf("%s", fault), "prompt") // where TGI's points: after the object
	}
	return req, err
}

// decodePrompts reads a text, a list of texts, a list of token ids, which is
// one prompt, or a list of such lists. A fault is a value of no such form.
func decodePrompts(r *body.Reader) (prompts []prompt, fault string, err error) {
	const empty = "Empty array detected. Do not use an empty array for the prompt."
	if r.IsString() {
		text, err := r.String()
		return []prompt{{text: text}}, "", err
	}
	if !r.IsArray() {
		return nil, "data did not match any variant of untagged enum PromptDeserializer", r.Skip()
	}
	const most = 100_000 // far beyond any batch: a few bytes of a body are many here
	var texts, lists bool
	var ids []int32 // of the one prompt that the list is
	err = r.Array("a sequence", func(i int) (err error) {
		if i == 0 {
			texts, lists = r.IsString(), r.IsArray()
		}
		if len(prompts) == most {
			return r.Errorf("more than %d prompts", most)
		}
		switch {
		case texts:
			var text string
			text, err = r.String()
			prompts = append(prompts, prompt{text: text})
		case lists:
			var list []int32
			list, err = decodeIDs(r, math.MaxInt)
			if len(list) == 0 {
				fault = empty
			}
			prompts = append(prompts, prompt{ids: list})
		default:
			var id int32
			id, err = decodeID(r)
			ids = append(ids, id)
		}
		return err
	})
	switch {
	case ids != nil:
		prompts = []prompt{{ids: ids}}
	case prompts == nil:
		fault = empty
	}
	return prompts, fault, err
}

// checkCompletion refuses what only completions can have wrong. It comes
// before all other checks, as in TGI. best is the number of sequences to
// generate for each prompt.
func (s *Server) checkCompletion(req *completionRequest, suffixes bool) (best uint32, err error) {
	n := req.n.or(1)
	best = req.candidates.or(n)
	switch {
	case req.refused != nil:
		return 0, req.refused
	case req.suffix.set && !suffixes:
		return 0, refusal("suffix", "suffix not supported", "Suffix is not supported and can be achieved by preprocessing the prompt.")
	case len(req.prompts) > s.opt.MaxClientBatchSize:
		return 0, refusal("prompt", "batch size exceeded", "Number of prompts exceeds the maximum allowed batch size of %d", s.opt.MaxClientBatchSize)
	case best < n:
		return 0, invalid("`best_of` must be >= `n`. Given: %d and %d", best, n)
	case best > n && req.maxNewTokens.set && req.maxNewTokens.v == 0:
		return 0, invalid("`best_of` must be 1 where no tokens are generated. Given: %d", best)
	case best > n && req.stream:
		return 0, invalid("`best_of` != 1 is not supported when streaming tokens")
	case best > n && int64(best) > int64(s.opt.MaxBestOf):
		return 0, invalid("`best_of` must be > 0 and <= %d. Given: %d", s.opt.MaxBestOf, best)
	}
	return best, nil
}

// refusal is an invalid completion, for which TGI has types of their own.
func refusal(field, kind, format string, args ...any) *Error {
	e := failure(http.StatusUnprocessableEntity, kind, format, args...)
	e.label, e.param = "validation", field
	return e
}
