package handler

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
)

// encodeGenerate writes a request as JSON, all its fields.
func encodeGenerate(r generateRequest) []byte {
	p := &r.parameters
	b := append([]byte(`{"inputs":`), appendString(nil, r.inputs)...)
	b = append(b, `,"stream":`...)
	b = strconv.AppendBool(b, r.stream)
	b = append(b, `,"parameters":{"stop":[`...)
	for i, s := range p.stop {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	b = append(b, ']')
	field := func(name string, set bool, write func([]byte) []byte) {
		b = append(b, `,"`+name+`":`...)
		if !set {
			b = append(b, "null"...)
			return
		}
		b = write(b)
	}
	flag := func(name string, v bool) {
		field(name, true, func(b []byte) []byte { return strconv.AppendBool(b, v) })
	}
	number := func(name string, o optional[float32]) {
		field(name, o.set, func(b []byte) []byte { return appendFloat32(b, o.v) })
	}
	flag("decoder_input_details", p.decoderInputDetails)
	flag("details", p.details)
	flag("do_sample", p.doSample)
	flag("watermark", p.watermark)
	number("frequency_penalty", p.frequencyPenalty)
	number("repetition_penalty", p.repetitionPenalty)
	number("temperature", p.temperature)
	number("top_p", p.topP)
	number("typical_p", p.typicalP)
	number("presence_penalty", p.presencePenalty)
	number("min_p", p.minP)
	flag("ignore_eos", p.ignoreEOS)
	list := func(name string, v any) {
		text, err := json.Marshal(v) // null, if there is none
		if err != nil {
			panic(err)
		}
		field(name, true, func(b []byte) []byte { return append(b, text...) })
	}
	list("stop_token_ids", p.stopTokens)
	list("allowed_token_ids", p.allowed)
	list("bad_words", p.badWords)
	field("cache_salt", p.cacheSalt != "", func(b []byte) []byte { return appendString(b, p.cacheSalt) })
	list("min_tokens", p.minTokens)
	field("repetition_detection", p.repetition.set, func(b []byte) []byte {
		r := p.repetition.v
		return fmt.Appendf(b, `{"max_pattern_size":%d,"min_pattern_size":%d,"min_count":%d}`, r.Max, r.Min, r.Count)
	})
	field("include_stop_str_in_output", p.keepStop.set, func(b []byte) []byte { return strconv.AppendBool(b, p.keepStop.v) })
	field("adapter_id", p.adapterID.set, func(b []byte) []byte { return appendString(b, p.adapterID.v) })
	field("best_of", p.bestOf.set, func(b []byte) []byte { return strconv.AppendUint(b, p.bestOf.v, 10) })
	field("max_new_tokens", p.maxNewTokens.set, func(b []byte) []byte { return strconv.AppendUint(b, uint64(p.maxNewTokens.v), 10) })
	field("return_full_text", p.returnFullText.set, func(b []byte) []byte { return strconv.AppendBool(b, p.returnFullText.v) })
	field("seed", p.seed.set, func(b []byte) []byte { return strconv.AppendUint(b, p.seed.v, 10) })
	field("top_k", p.topK.set, func(b []byte) []byte { return strconv.AppendInt(b, int64(p.topK.v), 10) })
	field("top_n_tokens", p.topNTokens.set, func(b []byte) []byte { return strconv.AppendUint(b, uint64(p.topNTokens.v), 10) })
	field("truncate", p.truncate.set, func(b []byte) []byte { return strconv.AppendUint(b, p.truncate.v, 10) })
	field("grammar", p.grammar.set, func(b []byte) []byte {
		value := string(p.grammar.v.value)
		if p.grammar.v.kind == "json_schema" {
			value = `{"schema":` + value + `}`
		}
		return append(b, `{"type":"`+p.grammar.v.kind+`","value":`+value+`}`...)
	})
	return append(b, "}}"...)
}

// FuzzDecodeGenerate checks that no body makes the decoder panic, and that
// what it accepts is what the body says: written out again it reads the same,
// and encoding/json agrees on the text.
func FuzzDecodeGenerate(f *testing.F) {
	for _, s := range []string{
		`{"inputs":"x","parameters":{"stop":"a","seed":18446744073709551615,"temperature":-0.5e-3},"stream":true}`,
		`{"inputs":"\ud83d\ude00","parameters":{"grammar":{"value":{"a":[1]},"type":"json"},"max_new_tokens":null}}`,
		`{"inputs":"x","x":[[{"y":null}]],"parameters":null} x`,
		`{"inputs":"x","parameters":{"grammar":{"value":{"schema":true,"name":1},"type":"json_schema"}}}`,
		`{"inputs":"x","parameters":{"grammar":{"value":"a","type":"regex"}}}`,
		`{"inputs":"x","parameters":{"min_p":0.1,"min_tokens":3,"ignore_eos_token":true,"stop_token_ids":[1,2],"allowed_token_ids":[3],"bad_sequences":["a","é"],"stop_sequences":["b"],"stop":["","c"]}}`,
		`{"inputs":"x","adapters":["a"],"parameters":{"num_beams":1,"presence_penalty":1,"include_stop_str_in_output":false,"cache_salt":"s","use_beam_search":[{}]}}`,
		`{"inputs":"x","parameters":{"repetition_detection":{"max_pattern_size":9,"min_count":2}}}`, `{"inputs":"x","parameters":{"repetition_detection":{}}}`,
		`{"inputs":1}`, `[`, "\ufeff{}", `{"inputs":"x","inputs":"y"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := decodeCompat(data)
		if err != nil {
			if e := badBody(err); e.Status == 500 {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if req.parameters.refused != nil {
			return // it is not written
		}
		again, err := decodeCompat(encodeGenerate(req))
		if err != nil {
			t.Fatalf("%q: written as %q: %v", data, encodeGenerate(req), err)
		}
		if was, is := fmt.Sprintf("%+v", req), fmt.Sprintf("%+v", again); was != is {
			t.Fatalf("%q:\n%s\n%s", data, was, is)
		}
		var peer map[string]json.RawMessage
		if json.Unmarshal(data, &peer) != nil {
			return // text behind the value
		}
		var inputs string
		if json.Unmarshal(peer["inputs"], &inputs) == nil && inputs != req.inputs {
			t.Fatalf("%q: inputs %q, encoding/json has %q", data, req.inputs, inputs)
		}
	})
}
