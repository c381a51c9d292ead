package main

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

func TestQuantizeOf(t *testing.T) {
	for _, tt := range []struct {
		asked, method string
		want          plan.Quantize
		refused       string
	}{
		{asked: "", method: "awq", want: plan.QuantizeNone},
		{asked: "none", want: plan.QuantizeNone},
		{asked: "int8", want: plan.QuantizeInt8},
		{asked: "INT4", method: "fp8", want: plan.QuantizeInt4},
		{asked: "awq", method: "awq", want: plan.QuantizeNone},
		{asked: "gptq_marlin", method: "gptq", want: plan.QuantizeNone},
		{asked: "bitsandbytes-nf4", method: "bitsandbytes", want: plan.QuantizeNone},
		{asked: "awq", method: "gptq", refused: "the checkpoint's quant_method is gptq, which needs no flag"},
		{asked: "fp8", refused: "the checkpoint is not stored so; int8 or int4"},
		{asked: "exl2", refused: "--quantize=exl2: not supported, only int8 and int4"},
	} {
		got, err := quantizeOf(tt.asked, tt.method)
		if got != tt.want || (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%q of %q: %v, %v; want %v, %q", tt.asked, tt.method, got, err, tt.want, tt.refused)
		}
	}
}
