package ref

import (
	"math"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

func TestConvert(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name   string
		format plan.Format
		src    []byte
		want   float32
	}{
		{"float32", plan.F32, []byte{0xdb, 0x0f, 0x49, 0x40}, math.Pi},
		{"bfloat16", plan.BF16, []byte{0x49, 0x40}, 3.140625},
		{"float16 one", plan.F16, []byte{0x00, 0x3c}, 1},
		{"float16 negative", plan.F16, []byte{0x00, 0xc0}, -2},
		{"float16 largest", plan.F16, []byte{0xff, 0x7b}, 65504},
		{"float16 smallest normal", plan.F16, []byte{0x00, 0x04}, 0x1p-14},
		{"float16 largest subnormal", plan.F16, []byte{0xff, 0x03}, 1023 * 0x1p-24},
		{"float16 smallest subnormal, negative", plan.F16, []byte{0x01, 0x80}, -0x1p-24},
		{"float16 infinity", plan.F16, []byte{0x00, 0x7c}, inf},
		{"float16 zero", plan.F16, []byte{0x00, 0x00}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [1]float32
			if convert(got[:], tt.src, tt.format); got[0] != tt.want {
				t.Errorf("% x is %v, want %v", tt.src, got[0], tt.want)
			}
		})
	}
	if nan := half(0x7e01); nan == nan {
		t.Errorf("float16 7e01 is %v, want NaN", nan)
	}
}

func TestOpenRefusesLimits(t *testing.T) {
	if _, err := Open(device.Limits{MaxTokens: 1, MaxRows: 0, MaxSlots: 1, MaxPagesPerSlot: 1}); err == nil || !strings.Contains(err.Error(), "MaxRows is 0") {
		t.Errorf("Open without rows: %v", err)
	}
}
