// What every kernel includes: CUDA, by nvcc or by the shim, and the primitives that only
// one of them can write down.
#ifndef MILLRACE_CUDA_H
#define MILLRACE_CUDA_H

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace millrace {

// MR_LAUNCH is kernel<<<grid, block, 0, stream>>>(arguments). A kernel with commas in its
// name stands in parentheses. MR_LAUNCH_EARLY is one with so many bytes of dynamic shared memory;
// early: it may start while the kernel before it on the stream runs, from where that calls
// let_next_begin(), and must touch nothing that one writes before wait_for_previous().
//
// MR_SHARED(Type, name) declares shared memory, without a constructor, MR_SHARED_DYNAMIC
// the dynamic one.
//
// MR_UNROLL stands before loops over registers, which have no addresses, MR_LOOP before
// those of which there should be one copy.
#ifdef __CUDACC__
#define MR_UNROLL _Pragma("unroll")
#define MR_LOOP _Pragma("unroll 1")
#define MR_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#define MR_LAUNCH_EARLY(kernel, grid, block, bytes, stream, early, ...) \
  launch_early(kernel, grid, block, bytes, stream, early, __VA_ARGS__)
#define MR_SHARED(Type, name) __shared__ Type name
#define MR_SHARED_DYNAMIC(Type, name)                 \
  extern __shared__ __align__(128) char name##_bytes[]; \
  Type& name = *reinterpret_cast<Type*>(name##_bytes)
#else
#define MR_UNROLL
#define MR_LOOP
#define MR_SITE_OF(line) __FILE__ ":" #line
#define MR_SITE(line) MR_SITE_OF(line)
#define MR_LAUNCH(kernel, grid, block, stream, ...) \
  shim::launch(#kernel, grid, block, stream, [](auto... args) { kernel(args...); }, ##__VA_ARGS__)
#define MR_LAUNCH_EARLY(kernel, grid, block, bytes, stream, early, ...) \
  shim::launch(#kernel, grid, block, stream, [](auto... args) { kernel(args...); }, ##__VA_ARGS__)
#define MR_SHARED(Type, name) Type& name = *static_cast<Type*>(shim::shared(sizeof(Type), alignof(Type), MR_SITE(__LINE__)))
#define MR_SHARED_DYNAMIC(Type, name) \
  Type& name = *static_cast<Type*>(shim::shared(sizeof(Type), alignof(Type), MR_SITE(__LINE__), true))
#endif

constexpr unsigned kFullWarp = ~0u;

// load reads a vector type at an address that is aligned for it.
template <class T>
__device__ __forceinline__ T load(const void* at) {
#ifndef __CUDACC__
  shim::check_aligned(at, sizeof(T));
#endif
  return *static_cast<const T*>(at);
}

// d += a b of tensor cores: a is 16 x 16 (of s8 16 x 32), b 16 x 8 (32 x 8), d 16 x 8,
// spread over the lanes as mma.sync.m16n8k16 (m16n8k32) says.
#ifdef __CUDACC__
__device__ __forceinline__ void mma_bf16(float* d, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16(float* d, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_s8(int32_t* d, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// load_matrices4 is ldmatrix.x4: lane i names row i%8, of 16 bytes, of matrix i/8.
__device__ __forceinline__ void load_matrices4(uint32_t* out, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}

// load_matrices4_transposed gives each lane of a matrix what its transpose would have there.
__device__ __forceinline__ void load_matrices4_transposed(uint32_t* out, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row))));
}

// exp2_fast is 2^v to a relative 2^-22, and 0 where that is subnormal.
__device__ __forceinline__ float exp2_fast(float v) {
  float to;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(to) : "f"(v));
  return to;
}

// copy16 copies 16 bytes to shared memory some time before its thread returns from
// wait_copies<left>, where all but the last `left` groups are done. Where valid is false
// it writes zeros.
__device__ __forceinline__ void copy16(void* to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
// copy4 copies 4 bytes likewise.
__device__ __forceinline__ void copy4(void* to, const void* from, bool valid = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from), "r"(valid ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(left) : "memory");
}

// Of GPUs before compute capability 9.0 they do nothing, since no kernel starts early there.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, unsigned block, size_t bytes, cudaStream_t stream, bool early,
                  const Arguments&... arguments) {
  cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(block);
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// last_to_arrive is called by all threads of n blocks, and returns true in the last of them,
// which then sees, by load_shared, what the others wrote before. It leaves a zero.
__device__ __forceinline__ bool last_to_arrive(int32_t* arrived, int n) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrived, 1) == n - 1;
    if (last) *arrived = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}
__device__ __forceinline__ float load_shared(const float* at) {
  float v;  // as __ldcg, which clang does not have
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(at) : "memory");
  return v;
}

// wait_until waits until another device has raised *flag to at least so much; what that
// device wrote before can then be read. It returns false if *abandoned is not 0: nobody
// will.
__device__ __forceinline__ bool wait_until(const uint32_t* flag, uint32_t least, const int* abandoned) {
  constexpr int kLooks = 1024;  // at the flag, for one at memory of the host, which takes longer
  for (int i = 1;; i++) {
    uint32_t now;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(now) : "l"(flag) : "memory");
    if (int32_t(now - least) >= 0) return true;
    if (i % kLooks == 0 && *static_cast<const volatile int*>(abandoned) != 0) return false;
  }
}
// raise sets a flag in another device's memory, after all that this thread has written, or
// that others have which it knows of.
__device__ __forceinline__ void raise(uint32_t* flag, uint32_t to) {
  __threadfence_system();
  asm volatile("st.release.sys.global.u32 [%0], %1;" : : "l"(flag), "r"(to) : "memory");
}
// of_peer reads what another device has written.
__device__ __forceinline__ float of_peer(const float* at) { return *at; }
#else
#define MR_CUDA_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, MR_CUDA_SITE) { shim::multiply_bf16(d, a, b, file, line); }
inline void mma_f16(float* d, const uint32_t* a, const uint32_t* b, MR_CUDA_SITE) { shim::multiply_f16(d, a, b, file, line); }
inline void mma_s8(int32_t* d, const uint32_t* a, const uint32_t* b, MR_CUDA_SITE) { shim::multiply_s8(d, a, b, file, line); }
inline void load_matrices4(uint32_t* out, const void* row, MR_CUDA_SITE) { shim::load_matrices(out, 4, row, false, file, line); }
inline void load_matrices4_transposed(uint32_t* out, const void* row, MR_CUDA_SITE) {
  shim::load_matrices(out, 4, row, true, file, line);
}
inline float exp2_fast(float v) { return std::exp2(v); }
inline void copy16(void* to, const void* from, bool valid = true, MR_CUDA_SITE) {
  shim::copy_async(to, from, 16, valid ? 16 : 0, file, line);
}
inline void copy4(void* to, const void* from, bool valid = true, MR_CUDA_SITE) {
  shim::copy_async(to, from, 4, valid ? 4 : 0, file, line);
}
inline void wait_for_previous() {}
inline void let_next_begin() {}
inline bool last_to_arrive(int32_t* arrived, int n, MR_CUDA_SITE) { return shim::last_to_arrive(arrived, n, file, line); }
inline float load_shared(const float* at) { return *at; }
inline void commit_copies() { shim::commit_copies(); }
template <int left>
inline void wait_copies() {
  shim::wait_copies(left);
}
// Several devices are in this memory, in an order that flags make: no race. The compiler
// would check what it inlines, or takes out of a function to where that is called.
#define MR_UNCHECKED __attribute__((noipa, no_sanitize("thread")))
MR_UNCHECKED inline bool wait_until(const uint32_t* flag, uint32_t least, const int* abandoned) {
  return shim::wait_until(flag, least, abandoned);
}
MR_UNCHECKED inline void raise(uint32_t* flag, uint32_t to) { *flag = to; }
MR_UNCHECKED inline float of_peer(const float* at) { return *at; }
#endif

}  // namespace millrace
#endif
