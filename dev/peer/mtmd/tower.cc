// Encodes an image by llama.cpp's mtmd, without a language model:
//
//	tower MMPROJ IMAGE SIDE THREADS RUNS ROWS
//
// IMAGE is SIDE x SIDE pixels of three float32 each, as the tower reads them. It prints
// the seconds of each run, and writes the embedding rows of the last to ROWS.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "clip-impl.h"
#include "clip.h"

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: tower MMPROJ IMAGE SIDE THREADS RUNS ROWS\n");
    return 2;
  }
  const int side = std::atoi(argv[3]), threads = std::atoi(argv[4]), runs = std::atoi(argv[5]);
  std::vector<float> pixels(size_t(3) * side * side);
  if (!std::ifstream(argv[2], std::ios::binary).read(reinterpret_cast<char*>(pixels.data()), pixels.size() * sizeof(float))) {
    std::fprintf(stderr, "%s: fewer than %zu floats\n", argv[2], pixels.size());
    return 1;
  }
  clip_context_params params = {};
  params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_AUTO;
  params.image_min_tokens = params.image_max_tokens = -1;
  params.warmup = true;
  clip_ctx* clip = clip_init(argv[1], params).ctx_v;
  if (clip == nullptr) return 1;
  clip_image_f32 image;
  image.set_size({side, side}, false, false);
  image.cpy_buf(pixels);
  std::vector<float> rows(size_t(clip_n_output_tokens(clip, &image)) * clip_n_mmproj_embd(clip));
  for (int i = 0; i < runs; i++) {
    const auto begin = std::chrono::steady_clock::now();
    if (!clip_image_encode(clip, threads, &image, rows)) return 1;
    std::printf("%.6f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  clip_free(clip);
  std::ofstream out(argv[6], std::ios::binary);
  out.write(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float));
  return out.flush() ? 0 : 1;
}
