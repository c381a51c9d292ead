package grammar

import (
	"encoding/json"
	"math/big"
	"slices"
)

// numbers writes the bounds of numbers.
func (c *conjunct) numbers() (*Error, error) {
	if !c.may(typeNumber | typeInteger) {
		return nil, nil
	}
	var low, high, above, below *big.Rat
	var lowText, highText, aboveText, belowText json.Number
	var multiples []json.Number
	var last *node
	for i, f := range c.all {
		if !f.digit {
			continue
		}
		last = c.nodes[i]
		tighten := func(bound **big.Rat, text *json.Number, number json.Number, sign int) {
			if number == "" {
				return
			}
			if r := rational(number); *bound == nil || r.Cmp(*bound) == sign {
				*bound, *text = r, number
			}
		}
		tighten(&low, &lowText, f.minimum, 1)
		tighten(&high, &highText, f.maximum, -1)
		tighten(&above, &aboveText, f.above, 1)
		tighten(&below, &belowText, f.below, -1)
		if f.multiple != "" && !slices.Contains(multiples, f.multiple) {
			multiples = append(multiples, f.multiple)
		}
	}
	if last == nil {
		return nil, nil
	}
	numbersOnly := c.set != 0 && c.set&^(typeNumber|typeInteger) == 0
	if numbersOnly {
		switch {
		case low != nil && high != nil && low.Cmp(high) > 0:
			return last.fault("", "minimum (%s) is greater than maximum (%s)", lowText, highText), nil
		case above != nil && high != nil && above.Cmp(high) >= 0:
			return last.fault("", "exclusiveMinimum (%s) is not less than maximum (%s)", aboveText, highText), nil
		case low != nil && below != nil && low.Cmp(below) >= 0:
			return last.fault("", "minimum (%s) is not less than exclusiveMaximum (%s)", lowText, belowText), nil
		case above != nil && below != nil && above.Cmp(below) >= 0:
			return last.fault("", "exclusiveMinimum (%s) is not less than exclusiveMaximum (%s)", aboveText, belowText), nil
		}
	}
	for _, bound := range []struct {
		name string
		text json.Number
	}{{"minimum", lowText}, {"maximum", highText}, {"exclusiveMinimum", aboveText}, {"exclusiveMaximum", belowText}} {
		if bound.text != "" {
			c.key(bound.name)
			c.out = append(c.out, bound.text...)
		}
	}
	if err := checkRemainders(last, multiples); err != nil {
		return nil, err
	}
	if len(multiples) > 0 {
		// The library multiplies them in floating point; one is enough.
		c.key("multipleOf")
		c.out = append(c.out, commonMultiple(multiples)...)
	}
	return nil, nil
}

// checkRemainders bounds the least common multiple of all multipleOf, in
// units of the last decimal.
func checkRemainders(n *node, multiples []json.Number) error {
	if len(multiples) == 0 {
		return nil
	}
	scale := big.NewInt(1)
	for _, m := range multiples {
		for new(big.Int).Rem(scale, rational(m).Denom()).Sign() != 0 {
			if scale.BitLen() > 64 {
				return n.fault("multipleOf", "%s has too many decimals", m)
			}
			scale.Mul(scale, big.NewInt(10))
		}
	}
	states := big.NewInt(1)
	for _, m := range multiples {
		r := rational(m)
		steps := new(big.Int).Mul(r.Num(), new(big.Int).Quo(scale, r.Denom()))
		states.Mul(states, new(big.Int).Quo(steps, new(big.Int).GCD(nil, nil, states, steps)))
		if states.Cmp(big.NewInt(maxRemainders)) > 0 {
			return n.fault("multipleOf", "the common multiple is more than %d units of the last decimal", maxRemainders)
		}
	}
	return nil
}

// commonMultiple returns the least common multiple, as it is written if there is one.
func commonMultiple(multiples []json.Number) string {
	if len(multiples) == 1 {
		return multiples[0].String()
	}
	num, den := big.NewInt(1), new(big.Int)
	for _, m := range multiples {
		r := rational(m)
		num.Mul(num, new(big.Int).Quo(r.Num(), new(big.Int).GCD(nil, nil, num, r.Num())))
		den.GCD(nil, nil, den, r.Denom())
	}
	r := new(big.Rat).SetFrac(num, den)
	digits, _ := r.FloatPrec()
	return r.FloatString(digits)
}
