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

// Scores of rows [row, row+M) against the pages [page, end), 16 columns each.
template <class Panel, int M, int P>
MR_INLINE void score_pages(const AttendArgs& a, const float* q, float* scores, int& page, int end, int first) {
  for (; page + P <= end; page += P) {
    const char* w[P];
    for (int j = 0; j < P; j++) w[j] = a.keys + size_t(a.pages[page + j]) * a.page_stride;
    Tile<Panel, M, P> t;
    t.zero(t);
    t.run(t, q, a.head_dim, w, a.head_dim);
    t.save(t, scores + (page - first) * kPanel, kScoreBlock);
  }
}

template <class Panel, int M>
static void score_rows(const AttendArgs& a, const float* q, float* scores, int page, int end) {
  const int first = page;
  score_pages<Panel, M, tile_panels(M)>(a, q, scores, page, end, first);
  if constexpr (tile_panels(M) > 1) score_pages<Panel, M, 1>(a, q, scores, page, end, first);
}

// Adds the weighted values of the positions [page*16, stop) to M rows, panels
// [panel, panel+P) of the head's dimensions.
template <class Panel, int M, int P>
MR_INLINE void weigh_panels(const AttendArgs& a, const float* weights, float* values, int page, int stop, int& panel) {
  const size_t bytes = panel_bytes(Panel::kElement, kPageTokens);
  const int dim = a.padded_dim();
  for (; panel + P <= dim / kPanel; panel += P) {
    Tile<Panel, M, P> t;
    t.resume(t, values + panel * kPanel, dim);
    const float* x = weights;
    for (int i = page; i * kPageTokens < stop; i++, x += kPanel) {
      const char* w[P];
      for (int j = 0; j < P; j++) w[j] = a.values + size_t(a.pages[i]) * a.page_stride + (panel + j) * bytes;
      const int left = stop - i * kPageTokens;
      t.run(t, x, kScoreBlock, w, left < kPageTokens ? left : kPageTokens);
    }
    t.save(t, values + panel * kPanel, dim);
  }
}

template <class Panel, int M>
static void weigh_rows(const AttendArgs& a, const float* weights, float* values, int page, int stop) {
  int panel = 0;
  weigh_panels<Panel, M, tile_panels(M)>(a, weights, values, page, stop, panel);
  if constexpr (tile_panels(M) > 1) weigh_panels<Panel, M, 1>(a, weights, values, page, stop, panel);
}

template <class Panel>
struct AttendFns {
  void (*score)(const AttendArgs&, const float*, float*, int, int);
  void (*weigh)(const AttendArgs&, const float*, float*, int, int);
};

template <class Panel, int... M>
constexpr AttendFns<Panel> attend_fns(int m, std::integer_sequence<int, M...>) {
  constexpr AttendFns<Panel> fns[] = {{score_rows<Panel, M + 1>, weigh_rows<Panel, M + 1>}...};
  return fns[m - 1];
}

// Turns one row's scores of positions [first, first+columns) into weights and
// moves its running maximum and sum on. Positions outside [from, to) weigh 0.
MR_INLINE void soften_row(const AttendArgs& a, float* score, int first, int columns, int from, int to, float& peak,
                          float& sum, float* values) {
  from = from > first ? from - first : 0;
  to = to < first + columns ? to - first : columns;
  if (from >= to) {
    for (int c = 0; c < columns; c += kPanel) store(score + c, splat(0));
    return;
  }
  Vec top = splat(-INFINITY);
  for (int c = 0; c < columns; c += kPanel) {
    Vec s = load(score + c);
    if (a.cap > 0) s = splat(a.cap) * tanh(s / splat(a.cap));
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

template <class Panel>
static void attend_split(const AttendArgs& a, int split, float* state) {
  const int rows = a.rows(), dim = a.padded_dim();
  const State s(a, state);
  float* q = a.scratch;
  float* scores = q + size_t(rows) * dim;
  for (int t = 0, r = 0; t < a.tokens; t++)
    for (int h = 0; h < a.group; h++, r++) {
      const float* head = a.q + t * a.q_stride + h * a.head_dim;
      for (int d = 0; d < a.head_dim; d++) q[r * a.head_dim + d] = head[d] * a.scale;
    }
  for (int r = 0; r < rows; r++) {
    s.peak[r] = -INFINITY;
    s.sum[r] = 0;
  }
  for (size_t i = 0; i < size_t(rows) * dim; i++) s.values[i] = 0;

  const int begin = std::max(a.begin(), split * kSplit), end = std::min(a.end(), (split + 1) * kSplit);
  const int tiles = (rows + MR_ROWS - 1) / MR_ROWS;
  for (int block = begin / kScoreBlock * kScoreBlock; block < end; block += kScoreBlock) {
    const int page = std::max(block, begin) / kPageTokens, stop = std::min(block + kScoreBlock, end);
    const int page_end = (stop + kPageTokens - 1) / kPageTokens;
    for (int i = 0; i < tiles; i++) {
      const int r0 = rows * i / tiles, m = rows * (i + 1) / tiles - r0;
      const auto fns = attend_fns<Panel>(m, std::make_integer_sequence<int, MR_ROWS>());
      float* w = scores + size_t(r0) * kScoreBlock;
      fns.score(a, q + size_t(r0) * a.head_dim, w, page, page_end);
      for (int r = r0; r < r0 + m; r++) {
        const int pos = a.first_pos + r / a.group;
        const int from = a.window > 0 && pos >= a.window ? pos - a.window + 1 : 0;
        soften_row(a, scores + size_t(r) * kScoreBlock, page * kPageTokens, (page_end - page) * kPanel, from, pos + 1,
                   s.peak[r], s.sum[r], s.values + size_t(r) * dim);
      }
      fns.weigh(a, w, s.values + size_t(r0) * dim, page, stop);
    }
  }
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

static void attend_finish(const AttendArgs& a, const float* state) {
  const int dim = a.padded_dim();
  const State s(a, const_cast<float*>(state));
  for (int r = 0; r < a.rows(); r++) {
    float* out = a.out + r / a.group * a.out_stride + r % a.group * a.head_dim;
    const float* v = s.values + size_t(r) * dim;
    for (int d = 0; d < a.head_dim; d++) out[d] = v[d] / s.sum[r];
  }
}

}  // namespace MR_ISA
}  // namespace millrace
