// Attention over the paged cache: online softmax in blocks of kScoreBlock
// positions, states of kSplit positions merged in order (flash decoding, Dao
// et al. 2023). Blocks and splits begin at fixed positions, so a row's result
// depends on its own position and window and not on the rows beside it.

namespace millrace {
namespace MR_ISA {

// The parts of a state and of the scratch of one call.
struct State {
  float *peak, *sum, *values;
  State(const AttendArgs& a, float* p) : peak(p), sum(p + a.rows()), values(p + 2 * a.rows()) {}
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

// Panel is how keys are kept, Values how values are: the same, or float32 where
// they are transposed keys.
template <class Panel, class Values>
static void attend_blocks(const AttendArgs& a, int split, float* state) {
  constexpr auto kRows = std::make_integer_sequence<int, MR_ROWS>();
  const int rows = a.rows(), key_dim = a.key_dim(), dim = a.padded_dim();
  const State s(a, state);
  float* q = a.scratch;
  float* scores = q + size_t(rows) * key_dim;
  float* transposed = scores + size_t(rows) * kScoreBlock;
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
      pages.keys[pages.count] = a.keys + at;
      if (a.values != nullptr) {
        pages.values[pages.count] = a.values + at;
      } else {
        float* panels = transposed + size_t(pages.count) * kPageTokens * dim;
        transpose_page<Panel>(a.keys + at, a.value_dim, panels);
        pages.values[pages.count] = reinterpret_cast<const char*>(panels);
      }
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

template <class Panel>
static void attend_split(const AttendArgs& a, int split, float* state) {
  if (a.values != nullptr)
    attend_blocks<Panel, Panel>(a, split, state);
  else
    attend_blocks<Panel, PanelF32>(a, split, state);
}

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
