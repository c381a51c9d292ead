package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/plan"
)

// quantizeMethods are values of --quantize that name how a checkpoint is stored, in
// the words of TGI and vLLM, and the values of quant_method that they stand for.
var quantizeMethods = map[string][]string{
	"awq":                {"awq"},
	"awq_marlin":         {"awq"},
	"gptq":               {"gptq"},
	"gptq_marlin":        {"gptq"},
	"marlin":             {"gptq", "awq"},
	"fp8":                {"fp8", "fbgemm_fp8", "modelopt"},
	"fbgemm_fp8":         {"fbgemm_fp8"},
	"modelopt":           {"modelopt"},
	"modelopt_fp4":       {"modelopt"},
	"compressed-tensors": {"compressed-tensors"},
	"bitsandbytes":       {"bitsandbytes"},
	"bitsandbytes-nf4":   {"bitsandbytes"},
	"bitsandbytes-fp4":   {"bitsandbytes"},
	"mxfp4":              {"mxfp4"},
}

// quantizeOf reads --quantize for a checkpoint whose quant_method is method, ""
// if it has none: whatever says how the checkpoint is stored, anyway, asks for
// nothing.
func quantizeOf(asked, method string) (plan.Quantize, error) {
	switch asked = strings.ToLower(asked); asked {
	case "", "none":
		return plan.QuantizeNone, nil
	case "int8":
		return plan.QuantizeInt8, nil
	case "int4":
		return plan.QuantizeInt4, nil
	}
	stored, known := quantizeMethods[asked]
	switch {
	case slices.Contains(stored, method):
		return plan.QuantizeNone, nil
	case known && method != "":
		return 0, fmt.Errorf("--quantize=%s: the checkpoint's quant_method is %s, which needs no flag", asked, method)
	case known:
		return 0, fmt.Errorf("--quantize=%s: the checkpoint is not stored so; int8 or int4 quantize it while it is loaded", asked)
	}
	return 0, fmt.Errorf("--quantize=%s: not supported, only int8 and int4, or the method that the checkpoint is stored by", asked)
}
