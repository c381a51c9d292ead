package plan

import (
	"cmp"
	"math"
)

// Rope is a rotary position embedding: dimension pair i of a head turns by
// pos * Freqs[i], and cos and sin are multiplied by Scale.
type Rope struct {
	Freqs []float32 // a half of the rotated dimensions
	Scale float32

	First       int       // dimension of a head where the rotated ones begin
	Interleaved bool      // 2i is paired with 2i+1 rather than i with i + a half
	Axes        []float32 // per frequency, the axis of its position; nil: all the first

	// Beyond Original positions frequencies are Long or, without it, those of Theta
	// stretched by Factor (OpRope). 0: they depend on no length.
	Original      int
	Long          []float32
	Factor, Theta float32
}

// readRope reads the position embedding of a model that has one for all its
// layers.
func readRope(o *object, c *Config) Rope { return readRopeOf(o, c, 10000) }

// readRopeOf is readRope of a family whose config class has another default base.
func readRopeOf(o *object, c *Config, theta float64) Rope {
	params := o.ropeParams()
	for _, key := range []string{fullAttention, slidingAttention} {
		if params.raw(key) != nil {
			params.fail(key, "is not supported by this family, which has one rope for all layers")
		}
	}
	return readRopeParams(params, o, c, o.float("rope_theta", theta))
}

// setRopes gives layers without a window one rope and layers with a window another.
// The zero Rope is none.
func (c *Config) setRopes(full, sliding Rope) {
	c.Rope, c.Ropes = full, make([]Rope, c.Layers)
	for i := range c.Ropes {
		if c.Ropes[i] = full; c.Windows[i] > 0 {
			c.Ropes[i] = sliding
		}
	}
}

// ropeParams returns the parameters of the position embedding: from rope_scaling
// as transformers 4 writes it, where rope_theta stands beside, or from
// rope_parameters as transformers 5 does.
func (o *object) ropeParams() *object {
	params := o.object("rope_parameters")
	if scaling := o.object("rope_scaling"); scaling != nil {
		if params != nil {
			params.values = nil // of no effect beside it
		}
		params = scaling
	}
	if params == nil {
		params = o.nothing("rope_parameters")
	}
	return params
}

// ropeType names the way in which frequencies are changed, "default" if they
// are not.
func (o *object) ropeType() string {
	old := o.raw("type") // of older configs, and without effect beside rope_type
	if o.raw("rope_type") == nil && old != nil {
		return o.text("type", "default")
	}
	return o.text("rope_type", "default")
}

// readRopeParams reads one set of rope parameters, of config o. theta is the
// base where params names none.
//
// The formulas are those of transformers' modeling_rope_utils.py, in float32
// where it computes in float32.
func readRopeParams(params, o *object, c *Config, theta float64) Rope {
	theta = params.float("rope_theta", theta)
	if theta <= 1 {
		params.fail("rope_theta", "must be above 1, found %g", theta)
	}
	if c.Delta == nil && !c.mrope && params.raw("mrope_section") != nil {
		params.fail("mrope_section", "is not supported")
	}
	kind := params.ropeType()
	if kind == "mrope" && c.mrope { // as the first releases called it
		kind = "default"
	}
	if kind == "proportional" {
		return readProportional(params, theta, c.HeadDim)
	}
	dim := readRotary(params, o, c)
	if *o.err != nil {
		return Rope{}
	}
	r := Rope{Freqs: frequencies(theta, dim), Scale: 1}
	const key = "rope_type"
	long := c.Family == "phi3" || c.Family == "phimoe"
	if long && (kind == "su" || kind == "yarn") {
		kind = "longrope" // as the first releases called it
	}
	if long && kind != "default" && kind != "longrope" {
		params.fail(key, "%q is not supported by this family, only default and longrope", kind)
	}
	switch kind {
	case "default":
	case "linear":
		r.scaleLinear(params)
	case "llama3":
		r.scaleLlama3(params, originalLength(params, o, c))
	case "yarn":
		r.scaleYarn(params, theta, c.MaxPos, originalLength(params, o, c))
	case "longrope":
		r.scaleLongRope(params, theta, c.MaxPos, originalLength(params, o, c))
	case "proportional":
		r.scaleProportional(params)
	case "dynamic":
		r.scaleDynamic(params, theta, c)
	case "factors":
		r.scaleFactors(params)
	default:
		params.fail(key, "%q is not supported, only default, dynamic, linear, llama3, longrope, proportional and yarn", kind)
	}
	for i, f := range r.Freqs {
		if f64 := float64(f); *o.err == nil && (math.IsNaN(f64) || math.IsInf(f64, 0)) {
			params.fail(key, "gives frequency %g for dimension %d", f, i)
		}
	}
	return r
}

// readProportional rotates a share of a head's pairs, which are those of the whole
// head, by the frequencies of the whole head.
func readProportional(params *object, theta float64, dim int) Rope {
	factor, share := params.float("factor", 1), params.float("partial_rotary_factor", 1)
	if factor <= 0 || share < 0 || share > 1 {
		params.fail("partial_rotary_factor", "must be 0 to 1, and factor above 0, found %g and %g", share, factor)
		return Rope{}
	}
	r := Rope{Freqs: frequencies(theta, dim), Scale: 1}
	for i := range r.Freqs {
		if r.Freqs[i] /= float32(factor); i >= int(math.Floor(share*float64(dim)/2)) {
			r.Freqs[i] = 0
		}
	}
	return r
}

// readRotary returns how many dimensions of a head are rotated.
func readRotary(params, o *object, c *Config) int {
	if params.ropeType() == "proportional" { // rotates all, some by nothing
		return c.HeadDim
	}
	factor := o.float("partial_rotary_factor", cmp.Or(c.RotaryFactor, 1))
	factor = params.float("partial_rotary_factor", factor)
	if factor == 1 {
		return c.HeadDim
	}
	if c.RotaryFactor == 0 {
		o.fail("partial_rotary_factor", "%g is not supported by this family", factor)
		return c.HeadDim
	}
	dim := int(float64(c.HeadDim) * factor)
	if factor < 0 || dim < 2 || dim > c.HeadDim || dim%2 != 0 {
		o.fail("partial_rotary_factor", "%g of head_dim %d must be an even number of dimensions", factor, c.HeadDim)
		return c.HeadDim
	}
	return dim
}

// originalLength is the length the model was trained for before its context
// was extended.
func originalLength(params, o *object, c *Config) float64 {
	const key = "original_max_position_embeddings"
	n := params.dimension(key, c.MaxPos, maxPosition)
	if o.raw(key) != nil { // beside the parameters it wins
		n = o.dimension(key, n, maxPosition)
	}
	return float64(n)
}

// frequencies returns theta^(-2i/dim), i < dim/2.
func frequencies(theta float64, dim int) []float32 {
	freqs := make([]float32, dim/2)
	for i := range freqs {
		freqs[i] = 1 / period(theta, i, dim)
	}
	return freqs
}

func period(theta float64, i, dim int) float32 {
	exponent := float32(2*i) / float32(dim)
	return float32(math.Pow(float64(float32(theta)), float64(exponent)))
}

// extension reads the required number by which the context was extended.
func extension(params *object) float64 {
	factor := params.float("factor", 0)
	if factor <= 0 {
		params.fail("factor", "must be a positive number, found %g", factor)
	}
	return factor
}

// scaleProportional leaves the slowest dimensions as they are.
func (r *Rope) scaleProportional(params *object) {
	share, factor := params.float("partial_rotary_factor", 1), params.float("factor", 1)
	if share < 0 || share > 1 || factor <= 0 {
		params.fail("partial_rotary_factor", "must be 0 to 1 and factor positive, found %g and %g", share, factor)
		return
	}
	turning := int(share * float64(len(r.Freqs)))
	for i := range r.Freqs {
		if r.Freqs[i] /= float32(factor); i >= turning {
			r.Freqs[i] = 0
		}
	}
}

// scaleLinear interpolates positions: all frequencies shrink alike.
func (r *Rope) scaleLinear(params *object) {
	factor := float32(extension(params))
	for i := range r.Freqs {
		r.Freqs[i] /= factor
	}
}

// scaleLlama3 shrinks frequencies whose wavelength is beyond the original
// length, keeps the fast ones, and blends in between (Llama 3.1).
func (r *Rope) scaleLlama3(params *object, original float64) {
	factor := extension(params)
	low := params.float("low_freq_factor", 0)
	high := params.float("high_freq_factor", 0)
	if low <= 0 || high < low {
		params.fail("high_freq_factor", "must not be below low_freq_factor and both above 0, found %g and %g", high, low)
		return
	}
	slowest, fastest := float32(original/low), float32(original/high)
	for i, f := range r.Freqs {
		wavelength := float32(2*math.Pi) / f
		switch {
		case wavelength > slowest:
			r.Freqs[i] = f / float32(factor)
		case wavelength >= fastest:
			smooth := (float32(original)/wavelength - float32(low)) / float32(high-low)
			r.Freqs[i] = (1-smooth)*f/float32(factor) + smooth*f
		}
	}
}

// scaleFactors divides each frequency by a factor of its own. transformers has no
// name for it: GGUF files have what llama3 and others make of the frequencies.
func (r *Rope) scaleFactors(params *object) {
	const key = "factors"
	factors := params.floats(key)
	if len(factors) != len(r.Freqs) {
		params.fail(key, "has %d entries, expected %d, one for each frequency", len(factors), len(r.Freqs))
		return
	}
	for i, f := range factors {
		if !(f > 0) {
			params.fail(key, "must be above 0, found %g", f)
			return
		}
		r.Freqs[i] /= float32(f)
	}
}

// scaleYarn interpolates by parts (YaRN, arXiv 2309.00071): dimensions that
// turn more than beta_fast times within the original length keep their
// frequency, those below beta_slow shrink by factor, with a ramp between; and
// attention gets sharper by the logarithm of factor.
func (r *Rope) scaleYarn(params *object, theta float64, maxPos int, original float64) {
	factor := float64(maxPos) / original
	if params.absent("factor") || params.raw("factor") != nil {
		factor = extension(params)
	}
	fast := params.float("beta_fast", 0)
	if fast == 0 {
		fast = 32
	}
	slow := params.float("beta_slow", 0)
	if slow == 0 {
		slow = 1
	}
	if fast < 0 || slow < 0 {
		params.fail("beta_fast", "and beta_slow must be positive, found %g and %g", fast, slow)
		return
	}

	mscale := func(m float64) float64 {
		if factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(factor) + 1
	}
	scale := mscale(1)
	if m, all := params.float("mscale", 0), params.float("mscale_all_dim", 0); m != 0 && all != 0 {
		scale = mscale(m) / mscale(all)
	}
	r.Scale = float32(params.float("attention_factor", scale))

	dim := 2 * len(r.Freqs)
	// turning gives the dimension that turns n times within the original length.
	turning := func(n float64) float64 {
		return float64(dim) * math.Log(original/(n*2*math.Pi)) / (2 * math.Log(theta))
	}
	from, to := turning(fast), turning(slow)
	if params.boolean("truncate", true) {
		from, to = math.Floor(from), math.Ceil(to)
	}
	from, to = max(from, 0), min(to, float64(dim-1))
	if from == to {
		to += 0.001
	}
	for i := range r.Freqs {
		ramp := (float32(i) - float32(from)) / float32(to-from)
		keep := 1 - min(max(ramp, 0), 1)
		p := period(theta, i, dim)
		r.Freqs[i] = 1/(float32(factor)*p)*(1-keep) + 1/p*keep
	}
}

// scaleLongRope divides each frequency by a number of its own, by other ones
// beyond the original length, and makes attention sharper by the length that was
// gained (LongRoPE, arXiv 2402.13753).
func (r *Rope) scaleLongRope(params *object, theta float64, maxPos int, original float64) {
	factor := float64(maxPos) / original
	if params.raw("factor") != nil {
		factor = extension(params)
	}
	scale := 1.0
	if factor > 1 {
		scale = math.Sqrt(1 + math.Log(factor)/math.Log(original))
	}
	r.Scale = float32(params.float("attention_factor", scale))
	dim := 2 * len(r.Freqs)
	divided := func(key string) []float32 {
		factors := params.floats(key)
		if len(factors) != dim/2 {
			params.fail(key, "must have a number for each of %d frequencies, found %d", dim/2, len(factors))
			return nil
		}
		freqs := make([]float32, dim/2)
		for i, f := range factors {
			if f <= 0 {
				params.fail(key, "must be positive numbers, found %g", f)
			}
			freqs[i] = 1 / (float32(f) * period(theta, i, dim))
		}
		return freqs
	}
	if short := divided("short_factor"); short != nil {
		r.Freqs = short
	}
	r.Long, r.Original = divided("long_factor"), int(original)
}

// scaleDynamic makes the base grow with the length of the sequence beyond the
// one that the model was trained for: dynamic NTK, as in transformers.
func (r *Rope) scaleDynamic(params *object, theta float64, c *Config) {
	factor := extension(params)
	if factor < 1 {
		params.fail("factor", "must be at least 1, found %g", factor)
		return
	}
	if len(r.Freqs) < 2 {
		params.fail("rope_type", "dynamic needs at least 4 dimensions to rotate, found %d", 2*len(r.Freqs))
		return
	}
	params.raw("original_max_position_embeddings") // transformers does not look at it
	r.Original, r.Factor, r.Theta = c.MaxPos, float32(factor), float32(theta)
	c.MaxPos = int(min(float64(c.MaxPos)*factor, maxPosition))
}

func sqrt(n int) float64 { return math.Sqrt(float64(n)) }
