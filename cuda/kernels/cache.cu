// Rotations of heads, in place, and keys and values, or latents, into pages: a block for each
// token, in one launch since what is written is often what was rotated.
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

__device__ float frequency(const Rope& rope, int length, int i) {
  if (rope.original == 0 || length <= rope.original) return rope.table[i];
  if (rope.longer != nullptr) return rope.longer[i];
  const double rotary = rope.rotary;
  const double grown = double(rope.factor) * length / rope.original - (double(rope.factor) - 1);
  const double base = rope.theta * pow(grown, rotary / (rotary - 2));
  return float(pow(base, -2.0 * i / rotary));
}

// Threads take a pair of columns each, of every so many heads.
__device__ void rotate(const Step& step, int t, const Values& x, const Rope& rope) {
  const int half = rope.rotary / 2, parts = max(1, kThreads / max(1, half));
  for (int at = threadIdx.x; at < half * parts; at += kThreads) {
    const int i = at % half, axis = rope.axes == nullptr ? 0 : int(rope.axes[i]);
    const float pos = float(rope.axes == nullptr ? step.pos[t] : step.axes[axis * step.max_tokens + t]);
    // Rounded to float, as models were trained.
    const float angle = pos * frequency(rope, step.length[t], i);
    const float sine = sinf(angle) * rope.scale, cosine = cosf(angle) * rope.scale;
    const int a = rope.first + (rope.interleaved != 0 ? 2 * i : i), b = a + (rope.interleaved != 0 ? 1 : half);
    for (int h = at / half; h < rope.heads; h += parts) {
      float* head = x.row(t) + h * rope.head_dim;
      const float u = head[a], v = head[b];
      head[a] = u * cosine - v * sine;
      head[b] = v * cosine + u * sine;
    }
  }
}

// A warp for each row of a head.
__device__ void write(const Step& step, int t, const Slots& slots, const Cache& c, const Values& x, const Values& y) {
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

__global__ void __launch_bounds__(kThreads) rotate_and_write_kernel(Step step, Slots slots, Rotations rotations, Cache c, Values x,
                                                                    Values y) {
  const int t = blockIdx.x;
  if (t >= *step.n_tokens) return;
  MR_LOOP
  for (int i = 0; i < rotations.count; i++) {
    rotate(step, t, rotations.x[i], rotations.rope[i]);
    __syncthreads();
  }
  if (c.memory != nullptr) write(step, t, slots, c, x, y);
}

}  // namespace

void rotate_and_write(cudaStream_t stream, const Step& step, const Slots& slots, const Rotations& rotations, const Cache* c,
                      const Values& x, const Values& y, int n) {
  MR_LAUNCH(rotate_and_write_kernel, n, kThreads, stream, step, slots, rotations, c == nullptr ? Cache{} : *c, x, y);
}

}  // namespace millrace
