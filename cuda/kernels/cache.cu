// Keys and values, or latents, into pages: a warp for each row of a head.
#include "common.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 128;

// Writes n elements in the cache's format, beginning with column first of a row of width.
// With scales that start between two groups (a latent's two parts) the row is whole.
__device__ void write_row(const Cache& c, char* to, const float* x, const float* y, int x_width, int width) {
  const int lane = threadIdx.x % 32;
  const auto at = [&](int i) { return i < x_width ? x[i] : y[i - x_width]; };
  if (c.format == MR_F32) {
    for (int i = lane; i < width; i += 32) reinterpret_cast<float*>(to)[i] = at(i);
  } else if (c.format == MR_F16) {
    for (int i = lane; i < width; i += 32) reinterpret_cast<uint16_t*>(to)[i] = to_f16(at(i));
  } else {
    uint16_t* scales = reinterpret_cast<uint16_t*>(to + (width + 1) / 2 * 2);
    for (int first = 0, g = 0; first < width; first += c.scale_group, g++) {
      const int end = min(width, first + c.scale_group);
      float most = 0;
      MR_LOOP
      for (int i = first + lane; i < end; i += 32) most = Most()(fabsf(at(i)), most);
      most = warp_reduce(most, Most());
      const uint16_t scale = to_f16(most / 127.f);
      const float inverse = 1.f / from_f16(scale);
      MR_LOOP
      for (int i = first + lane; i < end; i += 32) {
        const float code = scale == 0 ? 0.f : rintf(at(i) * inverse);
        to[i] = char(int8_t(fminf(fmaxf(code, -127.f), 127.f)));
      }
      if (lane == 0) scales[g] = scale;
    }
  }
}

__global__ void __launch_bounds__(kThreads) write_cache_kernel(Step step, Slots slots, Cache c, Values x, Values y) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  const int pos = step.pos[t], page = slots.page_table(step.slot[t], c.group)[pos / kPageTokens], place = pos % kPageTokens;
  const int parts = c.kind == MR_CACHE_LATENT ? 1 : 2 * c.heads;
  for (int i = threadIdx.x / 32; i < parts; i += kThreads / 32) {
    const int h = i % c.heads;
    // Keys of a head, its values, or a latent's two parts: one call, so that there is one copy
    // of what it does, with fewer registers.
    char* to = c.head(page, h) + place * c.key_bytes;
    const float *first = x.row(t), *second = nullptr;
    int first_width = c.key_width, width = c.key_width;
    if (c.kind == MR_CACHE_LATENT) {
      first_width = x.width;
      if (y.data != nullptr) second = y.row(t);
    } else if (i < c.heads) {
      first += h * width;
    } else {
      to = c.head(page, h) + kPageTokens * c.key_bytes + place * c.value_bytes;
      first_width = width = c.value_width;
      first = y.row(t) + h * width;
    }
    write_row(c, to, first, second, first_width, width);
  }
}

}  // namespace

void write_cache(cudaStream_t stream, const Step& step, const Slots& slots, const Cache& c, const Values& x, const Values& y,
                 int n) {
  MR_LAUNCH(write_cache_kernel, n, kThreads, stream, step, slots, c, x, y);
}

}  // namespace millrace
