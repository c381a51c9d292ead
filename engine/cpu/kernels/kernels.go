// Package kernels is the CPU backend in C++17
// behind millrace.h, SIMD chosen at run time (AVX-512, AVX2, NEON, SSE2, and for
// integers and bf16 the dot products that some of their processors have).
//
// The arithmetic is kernels.h, which also says how weights and cache are laid
// out and why no result depends on what shares its batch: a sum runs in one
// lane, in one order, whichever thread computes it. Program gathers the plan's
// operations into stages, Model runs stages on the Pool, and Context is the queue
// that the ABI shows.
//
// A .h file is an interface; a .hpp file is the body of one that is compiled once for
// each instruction set (kernels_*.cc).
//
// Weights are kept as they are given, in bf16, f16 or float32 (f16
// becomes float32 where the CPU cannot convert it) or as codes that share scales.
// With codes of integers x is rounded to integers as well, once for all the matrices
// of a stage; their products are exact, and what is done with them in float32 is in one
// order and never fused, so that not even the instruction set changes a bit. With bf16 an encoder
// rounds x to bf16 for the layers that add to the residual stream, where there are dot products of
// bf16, which are twice as fast as float32; a language model, whose text should not depend on the
// processor, does not. Activations and recurrent
// states are kept in float32, adapters in f16 if the weights that they change have 16 bits, keys,
// values and latents as the plan says or, if it does not, in float32 if the weights
// are or a token's are below 8 KiB, and in f16 otherwise.
//
// Work is shared out between barriers, one stage of operations after the other:
// rows to whichever thread is free, matrices by panels, a mixture by expert and panel,
// so that an expert is read once a step and an idle one not at all, states by head and
// 16 columns, attention by block of queries and head, by 1024 positions as well
// where one sequence is much longer than the others, and by some of a KV head's query
// heads where there is less of all that than threads.
//
// MILLRACE_CPU_ISA=portable|avx2|avxvnni|avx512|avx512vnni|avx512bf16|amx|dotprod|i8mm picks a
// lesser instruction set than the best; "wide" is AVX-512's code on AVX2 registers,
// "amx-emulated" AMX's with its tiles in C++ and "bf16-emulated" the dot products of bf16 in
// fused multiply-adds, all for tests.
//
// AMX's instructions themselves have never run: no machine with them was available. All around
// them is tested with "amx-emulated".
//
// The build tag sanitize leaves optimization and hardening to CGO_CXXFLAGS:
// `make sanitize` compiles with sanitizers, which do not go well with either.
package kernels

/*
#cgo CXXFLAGS: -std=c++17 -Wall -Wextra -Wno-psabi
#cgo !sanitize CXXFLAGS: -O3 -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
#cgo linux LDFLAGS: -lpthread
#include "backend.h"
*/
import "C"

import (
	"unsafe"

	_ "github.com/millrace-ai/millrace/engine/device/abi" // millrace.h
)

// Backend returns the backend's table of functions, an mr_backend of millrace.h
// that is never freed.
func Backend() unsafe.Pointer { return unsafe.Pointer(C.mr_cpu_backend()) }
