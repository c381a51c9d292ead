// Attention over the paged cache: online softmax in blocks of kScoreBlock
// positions, states of kSplit positions merged in order (flash decoding, Dao
// et al. 2023). Blocks and splits begin at fixed positions, so a row's result
// depends on its own position and window and not on the rows beside it.

namespace millrace {
namespace MR_ISA {

// The parts of a state and of the scratch of one call.
struct State {
  float *values, *peak, *sum;
  State(const AttendArgs& a, float* p)
      : values(p), peak(p + size_t(a.rows()) * a.padded_dim()), sum(peak + a.rows()) {}
};

// The pages of one block of positions: where their keys are and their values,
// 16 positions each.
struct Pages {
  const char *keys[kScoreBlock / kPageTokens], *values[kScoreBlock / kPageTokens];
  int count = 0;
};

// Scores of M rows of queries, dim wide, against the pages from `page` on.
template <class Panel, int M, int P>
MR_INLINE void score_pages(const Pages& pages, const float* q, int dim, float* scores, int& page) {
  for (; page + P <= pages.count; page += P) {
    Tile<Panel, M, P> t;
    t.zero(t);
    t.run(t, q, dim, pages.keys + page, dim);
    t.save(t, scores + page * kPanel, kScoreBlock);
  }
}

template <class Panel, int M>
static void score_rows(const Pages& pages, const float* q, int dim, float* scores) {
  int page = 0;
  score_pages<Panel, M, tile_panels(M)>(pages, q, dim, scores, page);
  if constexpr (tile_panels(M) > 1) score_pages<Panel, M, 1>(pages, q, dim, scores, page);
}

// Adds the weighted values of the first n positions of the pages to M rows, dim
// wide, panels [panel, panel+P) of them.
template <class Panel, int M, int P>
MR_INLINE void weigh_panels(const Pages& pages, const float* weights, float* values, int dim, int n, int& panel) {
  const size_t bytes = panel_bytes(Panel::kElement, kPageTokens);
  for (; panel + P <= dim / kPanel; panel += P) {
    Tile<Panel, M, P> t;
    t.resume(t, values + panel * kPanel, dim);
    const float* x = weights;
    for (int i = 0; i * kPageTokens < n; i++, x += kPanel) {
      const char* w[P];
      for (int j = 0; j < P; j++) w[j] = pages.values[i] + (panel + j) * bytes;
      const int left = n - i * kPageTokens;
      t.run(t, x, kScoreBlock, w, left < kPageTokens ? left : kPageTokens);
    }
    t.save(t, values + panel * kPanel, dim);
  }
}

template <class Panel, int M>
static void weigh_rows(const Pages& pages, const float* weights, float* values, int dim, int n) {
  int panel = 0;
  weigh_panels<Panel, M, tile_panels(M)>(pages, weights, values, dim, n, panel);
  if constexpr (tile_panels(M) > 1) weigh_panels<Panel, M, 1>(pages, weights, values, dim, n, panel);
}

template <class Panel>
struct AttendFns {
  void (*score)(const Pages&, const float* q, int dim, float* scores);
  void (*weigh)(const Pages&, const float* weights, float* values, int dim, int n);
};

template <class Panel, int... M>
constexpr AttendFns<Panel> attend_fns(int m, std::integer_sequence<int, M...>) {
  constexpr AttendFns<Panel> fns[] = {{score_rows<Panel, M + 1>, weigh_rows<Panel, M + 1>}...};
  return fns[m - 1];
}

// The lanes of a and b in turns: a0 b0 a1 b1 …, all 32 of them.
MR_INLINE void zip(Vec a, Vec b, Vec& low, Vec& high) {
  Ints first, second;
  for (int i = 0; i < MR_LANES; i++) {
    first[i] = i / 2 + i % 2 * MR_LANES;
    second[i] = first[i] + MR_LANES / 2;
  }
  Reg out[2 * kRegs];
  MR_EACH {
    out[2 * i] = __builtin_shuffle(a.r[i], b.r[i], first);
    out[2 * i + 1] = __builtin_shuffle(a.r[i], b.r[i], second);
  }
  MR_EACH {
    low.r[i] = out[i];
    high.r[i] = out[kRegs + i];
  }
}

// Makes panels of values, float32, of the first dim columns of a page of keys,
// which are rows of 16 positions there: squares of 16 x 16 transposed in four
// rounds of zips.
template <class Panel>
static void transpose_page(const char* keys, int dim, float* values) {
  constexpr size_t kRow = pair_bytes<Panel> / 2;
  for (int d = 0; d < dim; d += kPanel, values += kPanel * kPanel) {
    Vec row[kPanel], next[kPanel];
    for (int i = 0; i < kPanel; i++) row[i] = d + i < dim ? Panel::even(keys + (d + i) * kRow) : splat(0);
    for (int round = 0; round < 4; round++) {
      _Pragma("GCC unroll 8") for (int i = 0; i < kPanel / 2; i++)
        zip(row[i], row[i + kPanel / 2], next[2 * i], next[2 * i + 1]);
      _Pragma("GCC unroll 16") for (int i = 0; i < kPanel; i++) row[i] = next[i];
    }
    for (int i = 0; i < kPanel; i++) store(values + i * kPanel, row[i]);
  }
}

#ifdef MR_F16
// How a page's keys or values become panels of float32.
static void unpack_f16(const AttendArgs&, const char* page, int dim, float* panels) {
  for (int i = 0; i < dim * kPanel; i += kPanel) store(panels + i, load_f16(page + 2 * i));
}

// Keys: one row of the panel is a column of 16 positions, each with its own scale.
static void unpack_w8_keys(const AttendArgs& a, const char* page, int dim, float* panels) {
  const char* scales = page + size_t(dim) * kPanel;
  for (int first = 0; first < dim; first += a.scale_group, scales += 2 * kPanel) {
    const Vec scale = load_f16(scales);
    const int end = dim - first < a.scale_group ? dim : first + a.scale_group;
    for (int d = first; d < end; d++) store(panels + d * kPanel, load_w8(page + d * kPanel) * scale);
  }
}

// Values: one row of a panel is 16 columns of a position, which share its scale.
static void unpack_w8_values(const AttendArgs& a, const char* page, int dim, float* panels) {
  const char* scales = page + size_t(dim) * kPanel;
  float scale[kPanel];
  for (int d = 0; d < dim; d += kPanel) {
    if (d % a.scale_group == 0) store(scale, load_f16(scales + d / a.scale_group * 2 * kPanel));
    for (int i = d * kPanel, pos = 0; pos < kPanel; i += kPanel, pos++)
      store(panels + i, load_w8(page + i) * splat(scale[pos]));
  }
}
#endif

// What one row of queries sees, and how.
struct Row {
  int pos, from, to;
  float slope;
};

// Turns one row's scores of positions [first, first+columns) into weights and
// moves its running maximum and sum on. Positions the row does not see weigh 0.
MR_INLINE void soften_row(const AttendArgs& a, const Row& row, float* score, int first, int columns, float& peak,
                          float& sum, float* values) {
  const int from = row.from > first ? row.from - first : 0;
  const int to = row.to < first + columns ? row.to - first : columns;
  if (from >= to) {
    for (int c = 0; c < columns; c += kPanel) store(score + c, splat(0));
    return;
  }
  Vec top = splat(-INFINITY);
  for (int c = 0; c < columns; c += kPanel) {
    Vec s = load(score + c);
    if (a.cap > 0) s = splat(a.cap) * tanh(s / splat(a.cap));
    if (a.slopes != nullptr) {
      float distance[kPanel];
      for (int i = 0; i < kPanel; i++) distance[i] = float(first + c + i - row.pos);
      s = fma(splat(row.slope), load(distance), s);
    }
    if (c < from || c + kPanel > to) s = keep_lanes(s, from - c, to - c);
    store(score + c, s);
    top = max(top, s);
  }
  const float block_peak = lane_max(top), old = peak;
  peak = block_peak > old ? block_peak : old;
  Vec total = splat(0);
  for (int c = 0; c < columns; c += kPanel) {
    const Vec w = exp(load(score + c) - splat(peak));
    store(score + c, w);
    total = total + w;
  }
  float decay[kPanel];
  store(decay, exp(splat(old - peak)));
  sum = sum * decay[0] + lane_sum(total);
  if (decay[0] == 1) return;
  for (int d = 0; d < a.padded_dim(); d += kPanel) store(values + d, load(values + d) * splat(decay[0]));
}

// What makes panels of float32 of a page's keys and its values; null: they are
// used as they are kept.
struct Unpack {
  void (*keys)(const AttendArgs&, const char* page, int dim, float* panels) = nullptr;
  void (*values)(const AttendArgs&, const char* page, int dim, float* panels) = nullptr;
};

// Panel is how keys are kept, or unpacked; Values how values are: the same, or
// float32 where they are transposed keys.
template <class Panel, class Values>
static void attend_blocks(const AttendArgs& a, int split, float* state, const Unpack& unpack = {}) {
  constexpr auto kRows = std::make_integer_sequence<int, MR_ROWS>();
  const int rows = a.rows(), key_dim = a.key_dim(), dim = a.padded_dim();
  const State s(a, state);
  // Panels come first, so that their vectors are whole lines of the cache.
  float* keys = a.scratch;
  float* values = keys + (unpack.keys != nullptr ? size_t(kScoreBlock) * key_dim : 0);
  float* scores = values + (unpack.values != nullptr || a.values == nullptr ? size_t(kScoreBlock) * dim : 0);
  float* q = scores + size_t(rows) * kScoreBlock;
  for (int t = 0, r = 0; t < a.tokens; t++)
    for (int h = 0; h < a.group; h++, r++) {
      const float* head = a.q + t * a.q_stride + h * a.q_dim;
      float* to = q + size_t(r) * key_dim;
      for (int d = 0; d < a.q_dim; d++) to[d] = head[d] * a.scale;
      for (int d = 0; d < a.rest_dim; d++) to[a.q_dim + d] = a.rest[t * a.rest_stride + h * a.rest_dim + d] * a.scale;
    }
  for (int r = 0; r < rows; r++) {
    s.peak[r] = -INFINITY;
    s.sum[r] = 0;
  }
  for (size_t i = 0; i < size_t(rows) * dim; i++) s.values[i] = 0;

  const int begin = std::max(a.begin(), split * kSplit), end = std::min(a.end(), (split + 1) * kSplit);
  const int tiles = (rows + MR_ROWS - 1) / MR_ROWS;
  for (int block = begin / kScoreBlock * kScoreBlock; block < end; block += kScoreBlock) {
    // Pages before `begin` may have been given back: their entries are stale.
    const int page = std::max(block, begin) / kPageTokens, first = page * kPageTokens;
    const int stop = std::min(block + kScoreBlock, end);
    Pages pages;
    for (; first + pages.count * kPageTokens < stop; pages.count++) {
      const size_t at = size_t(a.pages[page + pages.count]) * a.page_stride;
      const char*& key = pages.keys[pages.count] = a.keys + at;
      if (unpack.keys != nullptr) {
        float* panel = keys + size_t(pages.count) * kPageTokens * key_dim;
        unpack.keys(a, key, key_dim, panel);
        key = reinterpret_cast<const char*>(panel);
      }
      float* panels = values + size_t(pages.count) * kPageTokens * dim;
      if (a.values == nullptr)
        transpose_page<Panel>(key, a.value_dim, panels);
      else if (unpack.values != nullptr)
        unpack.values(a, a.values + at, dim, panels);
      const bool kept = a.values != nullptr && unpack.values == nullptr;
      pages.values[pages.count] = kept ? a.values + at : reinterpret_cast<const char*>(panels);
    }
    for (int i = 0; i < tiles; i++) {
      const int r0 = rows * i / tiles, m = rows * (i + 1) / tiles - r0;
      float* w = scores + size_t(r0) * kScoreBlock;
      attend_fns<Panel>(m, kRows).score(pages, q + size_t(r0) * key_dim, key_dim, w);
      for (int r = r0; r < r0 + m; r++) {
        const int t = r / a.group;
        const Row row = {a.first_pos + t, a.from(t), a.to(t), a.slopes != nullptr ? a.slopes[r % a.group] : 0};
        soften_row(a, row, scores + size_t(r) * kScoreBlock, first, pages.count * kPanel, s.peak[r], s.sum[r],
                   s.values + size_t(r) * dim);
      }
      attend_fns<Values>(m, kRows).weigh(pages, w, s.values + size_t(r0) * dim, dim, stop - first);
    }
  }
}

static void attend_f32(const AttendArgs& a, int split, float* state) {
  attend_blocks<PanelF32, PanelF32>(a, split, state);
}

#ifdef MR_F16
// Several tiles of rows would each convert what they read: it is unpacked before.
static void attend_f16(const AttendArgs& a, int split, float* state) {
  if (a.rows() > MR_ROWS)
    attend_blocks<PanelF32, PanelF32>(a, split, state, {unpack_f16, unpack_f16});
  else if (a.values != nullptr)
    attend_blocks<PanelF16, PanelF16>(a, split, state);
  else
    attend_blocks<PanelF16, PanelF32>(a, split, state);
}

static void attend_w8(const AttendArgs& a, int split, float* state) {
  attend_blocks<PanelF32, PanelF32>(a, split, state, {unpack_w8_keys, unpack_w8_values});
}
#endif

static void attend_merge(const AttendArgs& a, float* state, const float* later) {
  const int dim = a.padded_dim();
  const State s(a, state), l(a, const_cast<float*>(later));
  for (int r = 0; r < a.rows(); r++) {
    if (l.peak[r] == -INFINITY) continue;  // nothing of that split is visible to this row
    const float peak = s.peak[r] > l.peak[r] ? s.peak[r] : l.peak[r];
    const float both[kPanel] = {s.peak[r] - peak, l.peak[r] - peak};
    float factor[kPanel];
    store(factor, exp(load(both)));
    s.peak[r] = peak;
    s.sum[r] = s.sum[r] * factor[0] + l.sum[r] * factor[1];
    for (int d = 0; d < dim; d += kPanel) {
      float* v = s.values + size_t(r) * dim + d;
      store(v, fma(load(v), splat(factor[0]), load(l.values + size_t(r) * dim + d) * splat(factor[1])));
    }
  }
}

// A sink is a score without a value: it takes its share of the sum.
static void attend_finish(const AttendArgs& a, const float* state) {
  const int dim = a.padded_dim();
  const State s(a, const_cast<float*>(state));
  for (int r = 0; r < a.rows(); r++) {
    float sum = s.sum[r], factor = 1;
    if (a.sinks != nullptr) {
      const float sink = a.sinks[r % a.group], peak = s.peak[r] > sink ? s.peak[r] : sink;
      const float both[kPanel] = {s.peak[r] - peak, sink - peak};
      float weight[kPanel];
      store(weight, exp(load(both)));
      factor = weight[0];
      sum = sum * factor + weight[1];
    }
    float* out = a.out + r / a.group * a.out_stride + r % a.group * a.value_dim;
    const float* v = s.values + size_t(r) * dim;
    if (a.sinks == nullptr)
      for (int d = 0; d < a.value_dim; d++) out[d] = v[d] / sum;
    else
      for (int d = 0; d < a.value_dim; d++) out[d] = v[d] * factor / sum;
  }
}

}  // namespace MR_ISA
}  // namespace millrace
