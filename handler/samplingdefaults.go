package handler

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// SamplingDefaults are the values of fields that a request of the OpenAI routes
// leaves out. Without any, those routes draw from all tokens at temperature 1,
// which few models are made for.
type SamplingDefaults struct {
	temperature, topP, minP, typicalP, repetitionPenalty optional[float32]
	topK                                                 optional[int32]
}

// ParseSamplingDefaults reads a model's generation_config.json, nil for none.
// Fields that a request could not have either are left out, and the error says
// so.
func ParseSamplingDefaults(config []byte) (d SamplingDefaults, err error) {
	if config == nil {
		return d, nil
	}
	var c struct {
		Temperature       *float64 `json:"temperature"`
		TopP              *float64 `json:"top_p"`
		TopK              *float64 `json:"top_k"`
		MinP              *float64 `json:"min_p"`
		TypicalP          *float64 `json:"typical_p"`
		RepetitionPenalty *float64 `json:"repetition_penalty"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return d, fmt.Errorf("generation_config.json has no sampling defaults that can be read: %w", err)
	}
	number := func(name string, v *float64, to *optional[float32], lo, hi float64) {
		switch {
		case v == nil:
		case *v < lo || *v > hi:
			err = fmt.Errorf("generation_config.json: %s %g is not a sampling default: expected %g to %g", name, *v, lo, hi)
		default:
			*to = some(float32(*v))
		}
	}
	const least, most = 1e-6, math.MaxFloat32 // least is the smallest above 0 that anyone means
	number("temperature", c.Temperature, &d.temperature, 0, most)
	number("top_p", c.TopP, &d.topP, least, 1)
	number("min_p", c.MinP, &d.minP, 0, 1)
	number("typical_p", c.TypicalP, &d.typicalP, least, 1)
	number("repetition_penalty", c.RepetitionPenalty, &d.repetitionPenalty, least, most)
	switch k := c.TopK; {
	case k == nil || *k == 0 || *k == -1: // off
	case *k < 1 || *k > math.MaxInt32 || *k != math.Trunc(*k):
		err = fmt.Errorf("generation_config.json: top_k %g is not a sampling default: expected a whole number above 0", *k)
	default:
		d.topK = some(int32(*k))
	}
	return d, err
}

// fill gives p the values of fields that its request leaves out.
func (d *SamplingDefaults) fill(p *parameters) {
	for _, f := range []struct{ to, from *optional[float32] }{
		{&p.temperature, &d.temperature}, {&p.topP, &d.topP}, {&p.minP, &d.minP}, {&p.typicalP, &d.typicalP}, {&p.repetitionPenalty, &d.repetitionPenalty},
	} {
		if !f.to.set {
			*f.to = *f.from
		}
	}
	if !p.topK.set {
		p.topK = d.topK
	}
}

// appendJSON appends an object of the values by their names in requests.
func (d *SamplingDefaults) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	begin := len(dst)
	name := func(name string) {
		if len(dst) > begin {
			dst = append(dst, ',')
		}
		dst = append(strconv.AppendQuote(dst, name), ':')
	}
	for _, f := range []struct {
		name  string
		value optional[float32]
	}{
		{"temperature", d.temperature}, {"top_p", d.topP}, {"min_p", d.minP}, {"typical_p", d.typicalP}, {"repetition_penalty", d.repetitionPenalty},
	} {
		if f.value.set {
			name(f.name)
			dst = strconv.AppendFloat(dst, float64(f.value.v), 'g', -1, 32)
		}
	}
	if d.topK.set {
		name("top_k")
		dst = strconv.AppendInt(dst, int64(d.topK.v), 10)
	}
	return append(dst, '}')
}
