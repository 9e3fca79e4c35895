// curve = divisor * candidate, for every pair. Uses fma(): baseline differs by rounding.
//
// Curves go in tiles of eight, as rows with zeros where a point is missing. Their products with the
// candidates are a matrix product, a chain of FMAs over the points for each pair. Huber's steps
// follow, candidate by candidate while it is in L1: the sums of one curve after the other, with
// lanes over points, then the steps of all, a lane each. What a pair gets does not depend on its
// tile: zeros add nothing.
#include "align.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kTile = 8;    // curves
constexpr std::int64_t kPanel = 24;  // candidates
constexpr std::int64_t kFewest = 3;
constexpr int kMostSteps = 300;

constexpr std::int64_t rounded(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

std::int64_t scratch(std::int64_t grid, std::int64_t n_candidates) noexcept {
  return kTile * (3 * rounded(grid) + 2 * rounded(n_candidates)) + 4 * rounded(grid);
}

// What is made of the candidates, once for all curves; columns past the last one are zeros.
struct Tables {
  std::int64_t stride;   // of rows: the grid, rounded up to 8
  std::int64_t columns;  // candidates, rounded up to 8
  double* rows;          // (candidates, stride): zeros past the grid
  double* panels;        // of up to 24 columns, each (grid, its columns)
  double* squares;       // (grid + 1, columns): sums of squares before each grid point
};

PLANNER_INLINE Tables tables_of(const AlignArgs& args) {
  Tables r;
  r.stride = rounded(args.grid);
  r.columns = rounded(args.n_candidates);
  r.rows = args.tables;
  r.panels = r.rows + args.n_candidates * r.stride;
  r.squares = r.panels + args.grid * r.columns;
  return r;
}

std::int64_t tables(std::int64_t grid, std::int64_t n_candidates) noexcept {
  return n_candidates * rounded(grid) + (2 * grid + 1) * rounded(n_candidates);
}

std::int64_t panels(std::int64_t n_candidates) noexcept {
  return (n_candidates + kPanel - 1) / kPanel;
}

// Eight columns of a panel, of which `some` are candidates.
void fill_columns(const double* from, std::int64_t grid, std::int64_t some, std::int64_t width,
                  double* to) {
  if (some < kLanes) {
    for (std::int64_t i = 0; i < grid; ++i) store(to + i * width, vec(0.0));
    for (std::int64_t c = 0; c < some; ++c) {
      for (std::int64_t i = 0; i < grid; ++i) to[i * width + c] = from[c * grid + i];
    }
    return;
  }
  for (std::int64_t i = 0; i < grid; ++i) {
    for (std::int64_t c = 0; c < kLanes; ++c) to[i * width + c] = from[c * grid + i];
  }
}

void prepare(const AlignArgs& args, std::int64_t begin, std::int64_t end) noexcept {
  const Tables to = tables_of(args);
  for (std::int64_t c0 = begin * kPanel; c0 < end * kPanel && c0 < to.columns; c0 += kPanel) {
    const std::int64_t width = to.columns - c0 < kPanel ? to.columns - c0 : kPanel;
    for (std::int64_t c = c0; c < c0 + width; c += kLanes) {
      const double* const from = args.candidates + c * args.grid;
      const std::int64_t left = args.n_candidates - c;
      const std::int64_t some = left < kLanes ? left : kLanes;
      for (std::int64_t k = 0; k < some; ++k) {
        double* const row = to.rows + (c + k) * to.stride;
        __builtin_memcpy(row, from + k * args.grid, static_cast<std::size_t>(args.grid) * 8);
        for (std::int64_t i = args.grid; i < to.stride; ++i) row[i] = 0.0;
      }
      double* const panel = to.panels + c0 * args.grid + (c - c0);
      fill_columns(from, args.grid, some, width, panel);
      double* sums = to.squares + c;
      Vec before = vec(0.0);
      store(sums, before);
      for (std::int64_t i = 0; i < args.grid; ++i) {
        const Vec u = load(panel + i * width);
        before = before + u * u;
        store(sums += to.columns, before);
      }
    }
  }
}

PLANNER_INLINE Vec load_some(const double* at, std::int64_t left) {
  return left >= kLanes ? load(at) : load_tail(at, left, 0.0);
}

PLANNER_INLINE bool is_usable(double x) { return __builtin_fabs(x) < 1e300; }

struct Fit {
  double divisor;
  double objective;
  Status status;
};

// --- a pair, as blocks of eight points -----------------------------------------------------------

// Missing points are zeros in x, and zeros in u but for the first and the last block, where `ends`
// are masks for them.
struct Stretch {
  const double* x;
  const double* u;
  std::int64_t blocks;
  const double* ends;
};

struct Slopes {
  double gradient;   // sum of clip(r) u
  double inside;     // sum of u^2 over |r| <= delta
  double objective;  // 0 where not asked for
};

struct Sums {
  Vec gradient;
  Vec inside;
  Vec objective;
};

template <bool kObjective>
PLANNER_INLINE void add_slopes(Sums& to, const Vec& x, const Vec& u, const Vec& c,
                               const Vec& limit) {
  const Vec r = fnma(u, c, x);
#if defined(__AVX512F__)
  // The smaller magnitude, with the sign of r.
  Vec clipped;
  clipped.part[0] = _mm512_range_pd(r.part[0], limit.part[0], 2);
  to.inside.part[0] =
      _mm512_mask3_fmadd_pd(u.part[0], u.part[0], to.inside.part[0],
                            _mm512_cmp_pd_mask(r.part[0], clipped.part[0], _CMP_EQ_OQ));
#else
  const Vec clipped = max(min(r, limit), -limit);
  to.inside = fma(keep(u, r == clipped), u, to.inside);
#endif
  to.gradient = fma(clipped, u, to.gradient);
  // rho = clip(r) (r - clip(r) / 2)
  if (kObjective) to.objective = fma(clipped, fnma(clipped, 0.5, r), to.objective);
}

template <bool kObjective>
PLANNER_INLINE Slopes slopes_at(const Stretch& pair, double c, double delta) {
  const Vec at = vec(c);
  const Vec limit = vec(delta);
  const double* x = pair.x;
  const double* u = pair.u;
  Sums even = {vec(0.0), vec(0.0), vec(0.0)};
  Sums odd = even;
  add_slopes<kObjective>(even, load(x), keep(load(u), as_bits(load(pair.ends))), at, limit);
  if (pair.blocks > 1) {
    const double* const last = x + (pair.blocks - 1) * kLanes;
    x += kLanes;
    u += kLanes;
    for (; x + kLanes < last; x += 2 * kLanes, u += 2 * kLanes) {
      add_slopes<kObjective>(even, load(x), load(u), at, limit);
      add_slopes<kObjective>(odd, load(x + kLanes), load(u + kLanes), at, limit);
    }
    if (x < last) {
      add_slopes<kObjective>(even, load(x), load(u), at, limit);
      u += kLanes;
    }
    add_slopes<kObjective>(odd, load(last), keep(load(u), as_bits(load(pair.ends + kLanes))), at,
                           limit);
  }
  return {sum(even.gradient + odd.gradient), sum(even.inside + odd.inside),
          kObjective ? sum(even.objective + odd.objective) : 0.0};
}

PLANNER_INLINE Vec candidate_at(const Stretch& pair, std::int64_t block) {
  const Vec u = load(pair.u + block * kLanes);
  if (block == 0) return keep(u, as_bits(load(pair.ends)));
  return block < pair.blocks - 1 ? u : keep(u, as_bits(load(pair.ends + kLanes)));
}

// The curvature of reweighted least squares: sum of min(1, delta / |r|) u^2.
double weight_at(const Stretch& pair, double c, double delta) {
  Vec weight = vec(0.0);
  for (std::int64_t i = 0; i < pair.blocks; ++i) {
    const Vec u = candidate_at(pair, i);
    const Vec size = abs(fnma(u, c, load(pair.x + i * kLanes)));
    weight = weight + select(size <= delta, u * u, u * u * (delta / size));
  }
  return sum(weight);
}

double half_squares_at(const Stretch& pair, double c) {
  Vec even = vec(0.0);
  Vec odd = vec(0.0);
  for (std::int64_t i = 0; i < pair.blocks; ++i) {
    const Vec r = fnma(candidate_at(pair, i), c, load(pair.x + i * kLanes));
    Vec& to = i % 2 == 0 ? even : odd;
    to = fma(r, r, to);
  }
  return 0.5 * sum(even + odd);
}

// --- a pair, point by point ----------------------------------------------------------------------

// The usable points of one curve and of a candidate, side by side, without gaps.
struct Pair {
  const double* x;
  const double* u;
  std::int64_t n;
};

// The weighted median of x / u with weights |u|, by selection in place.
PLANNER_INLINE Fit least_absolute(const Pair& pair, double* ratio, double* weight) {
  std::int64_t n = 0;
  double total = 0.0;
  for (std::int64_t i = 0; i < pair.n; ++i) {
    const double w = __builtin_fabs(pair.u[i]);
    const double q = pair.x[i] / pair.u[i];
    if (!(w > 0.0) || !is_usable(q)) continue;
    ratio[n] = q;
    weight[n] = w;
    total += w;
    ++n;
  }
  if (n == 0) return {kNan, kNan, Status::kNonFinite};
  const double half = 0.5 * total;
  double below = 0.0;  // weight left of the part that is still searched
  std::int64_t from = 0;
  std::int64_t to = n;
  double c = ratio[0];
  while (to > from) {
    const double a = ratio[from];
    const double b = ratio[from + (to - from) / 2];
    const double d = ratio[to - 1];
    const double pivot = a < b ? (b < d ? b : a < d ? d : a) : (a < d ? a : b < d ? d : b);
    // [from, i) less, [i, k) equal, [k, to) greater
    std::int64_t i = from;
    std::int64_t j = from;
    std::int64_t k = to;
    double less = 0.0;
    double equal = 0.0;
    while (j < k) {
      const double q = ratio[j];
      const double w = weight[j];
      if (q < pivot) {
        less += w;
        ratio[j] = ratio[i];
        weight[j] = weight[i];
        ratio[i] = q;
        weight[i++] = w;
        ++j;
      } else if (q > pivot) {
        --k;
        ratio[j] = ratio[k];
        weight[j] = weight[k];
        ratio[k] = q;
        weight[k] = w;
      } else {
        equal += w;
        ++j;
      }
    }
    c = pivot;
    if (below + less >= half && i > from) {
      to = i;
    } else if (below + less + equal >= half || k == to) {
      break;
    } else {
      below += less + equal;
      from = k;
    }
  }
  Vec objective = vec(0.0);
  for (std::int64_t i = 0; i < pair.n; i += kLanes) {
    const Vec x = load_some(pair.x + i, pair.n - i);
    objective = objective + abs(fnma(load_some(pair.u + i, pair.n - i), c, x));
  }
  return {c, sum(objective), Status::kOk};
}

// The long-run variance of signs over their variance, where neighbours have correlation s and the
// noise below is a normal AR(1): its correlation is r = sin(pi s / 2), and signs k apart have
// 2 asin(r^k) / pi. Signs forget more slowly than an AR(1) of their own.
PLANNER_INLINE double sign_variance(double s) {
  if (!(s > 0.0)) return 1.0;
  const double y = 1.5707963267948966 * (s < 1.0 ? s : 1.0);
  const double yy = y * y;
  double r = y * (1.0 - yy / 6.0 * (1.0 - yy / 20.0 * (1.0 - yy / 42.0 * (1.0 - yy / 72.0))));
  r = r > 0.97 ? 0.97 : r;
  double total = 0.0;
  double coefficient = 1.0;  // of asin: 1, 1/6, 3/40, ...
  double power = r;
  for (int j = 0; j < 20; ++j) {
    total += coefficient / (2 * j + 1) * power / (1.0 - power);
    coefficient *= (2.0 * j + 1.0) / (2.0 * j + 2.0);
    power *= r * r;
  }
  return 1.0 + 2.0 * 0.6366197723675814 * total;
}

// sqrt(long-run variance of the scores) / curvature. The scores are prewhitened by an AR(1)
// (Andrews and Monahan 1992), what is left gets Bartlett weights (Newey and West 1987).
PLANNER_INLINE double standard_error(const Pair& pair, double c, Alignment method, double delta,
                                     double* score) {
  const std::int64_t n = pair.n;
  double curvature = 0.0;
  if (method == Alignment::kLeastAbsolute) {
    double spread = 0.0;
    for (std::int64_t i = 0; i < n; ++i) {
      spread += __builtin_fabs(pair.x[i] - c * pair.u[i]);
    }
    // A normal's sigma from its mean absolute deviation; n^(-1/5) by three square roots or so:
    // n^(-3/16) does as well.
    const double root = __builtin_sqrt(__builtin_sqrt(__builtin_sqrt(static_cast<double>(n))));
    const double h = 1.2533 * spread / static_cast<double>(n) / (root * __builtin_sqrt(root));
    for (std::int64_t i = 0; i < n; ++i) {
      const double r = pair.x[i] - c * pair.u[i];
      if (__builtin_fabs(r) < h) curvature += pair.u[i] * pair.u[i] / h;
      score[i] = r > 0.0 ? pair.u[i] : r < 0.0 ? -pair.u[i] : 0.0;
    }
  } else {
    const double limit = method == Alignment::kHuber ? delta : kInf;
    for (std::int64_t i = 0; i < n; ++i) {
      const double r = pair.x[i] - c * pair.u[i];
      const bool in = __builtin_fabs(r) <= limit;
      if (in) curvature += pair.u[i] * pair.u[i];
      score[i] = pair.u[i] * (in ? r : r > 0.0 ? limit : -limit);
    }
  }
  if (!(curvature > 0.0)) return kNan;
  double own = 0.0;
  double next = 0.0;
  for (std::int64_t i = 0; i < n; ++i) own += score[i] * score[i];
  for (std::int64_t i = 1; i < n; ++i) next += score[i] * score[i - 1];
  const auto count = static_cast<double>(n);
  double rho = own > 0.0 ? next / own : 0.0;
  // Its bias, of about -(1 + 3 rho) / n, taken off.
  rho += rho > 0.0 ? (1.0 + 3.0 * rho) / count : 0.0;
  const double signs = sign_variance(rho) * own;
  rho = rho > 0.97 ? 0.97 : rho < -0.97 ? -0.97 : rho;
  for (std::int64_t i = n - 1; i > 0; --i) score[i] -= rho * score[i - 1];
  score[0] *= __builtin_sqrt(1.0 - rho * rho);
  std::int64_t lags = 0;  // 1.4 n^(1/3)
  while (lags < n - 1 && static_cast<double>((lags + 1) * (lags + 1) * (lags + 1)) < 2.6 * count) {
    ++lags;
  }
  double variance = 0.0;
  for (std::int64_t lag = 0; lag <= lags; ++lag) {
    double product = 0.0;
    for (std::int64_t i = lag; i < n; ++i) product += score[i] * score[i - lag];
    const double part = 1.0 - static_cast<double>(lag) / static_cast<double>(lags + 1);
    variance += (lag == 0 ? 1.0 : 2.0) * part * product;
  }
  if (!(variance > 0.0)) variance = 0.0;
  variance *= count / (count - 1.0);
  variance /= (1.0 - rho) * (1.0 - rho);
  if (method == Alignment::kLeastAbsolute) variance = variance > signs ? variance : signs;
  return __builtin_sqrt(variance) / curvature;
}

// --- a tile of curves ----------------------------------------------------------------------------

// Register by register, not as eight lanes: three are the most that the registers of each level
// have room for, beside four or eight curves.
constexpr std::int64_t kRegisters = 3;

// One curve with kRegisters registers of candidates.
struct Products {
  Doubles a;
  Doubles b;
  Doubles c;
};

// Finite, so that a zero times it is none; find_lengths() takes what is so large for overflow.
PLANNER_INLINE Doubles square(const Doubles& x) {
  const Doubles most = Doubles{} + 1e308;
  const Doubles r = x * x;
  return r > most ? most : r;
}

template <int kWide>
PLANNER_INLINE void add_products(Products& to, const double& x, const Doubles& a, const Doubles& b,
                                 const Doubles& c) {
  const Doubles all = x - Doubles{};  // a broadcast and nothing else, where 0 + x is an addition
  to.a = fused(all, a, to.a);
  if (kWide > 1) to.b = fused(all, b, to.b);
  if (kWide > 2) to.c = fused(all, c, to.c);
}

template <int kWide>
PLANNER_INLINE void store_products(double* to, const Products& from) {
  // Plus zero: whether an underflow to -0 stays one would depend on the zeros that follow.
  store_register(to, from.a + Doubles{});
  if (kWide > 1) store_register(to + kWidth, from.b + Doubles{});
  if (kWide > 2) store_register(to + 2 * kWidth, from.c + Doubles{});
}

// Four or eight curves with kWide registers of the candidates of a panel, or with their squares.
// At each point a cache line of `ahead`, of which `step` doubles are wanted, comes into L2.
template <int kWide, int kCurves, bool kSquares>
PLANNER_INLINE void multiply(const double* x, std::int64_t stride, const double* u,
                             std::int64_t width, std::int64_t from, std::int64_t end, double* to,
                             std::int64_t columns, const double* ahead, std::int64_t step) {
  const double* const x1 = x + stride;
  const double* const x2 = x1 + stride;
  const double* const x3 = x2 + stride;
  const double* const x4 = x3 + stride;
  const double* const x5 = x4 + stride;
  const double* const x6 = x5 + stride;
  const double* const x7 = x6 + stride;
  const Products zeros = {};
  Products p0 = zeros;
  Products p1 = zeros;
  Products p2 = zeros;
  Products p3 = zeros;
  Products p4 = zeros;
  Products p5 = zeros;
  Products p6 = zeros;
  Products p7 = zeros;
  u += from * width;
  for (std::int64_t i = from; i < end; ++i, u += width, ahead += step) {
    __builtin_prefetch(ahead, 0, 2);
    Doubles a = load_register(u);
    Doubles b = kWide > 1 ? load_register(u + kWidth) : a;
    Doubles c = kWide > 2 ? load_register(u + 2 * kWidth) : a;
    if (kSquares) {
      a = square(a);
      b = square(b);
      c = square(c);
    }
    add_products<kWide>(p0, x[i], a, b, c);
    add_products<kWide>(p1, x1[i], a, b, c);
    add_products<kWide>(p2, x2[i], a, b, c);
    add_products<kWide>(p3, x3[i], a, b, c);
    if (kCurves > 4) {
      add_products<kWide>(p4, x4[i], a, b, c);
      add_products<kWide>(p5, x5[i], a, b, c);
      add_products<kWide>(p6, x6[i], a, b, c);
      add_products<kWide>(p7, x7[i], a, b, c);
    }
  }
  store_products<kWide>(to, p0);
  store_products<kWide>(to + columns, p1);
  store_products<kWide>(to + 2 * columns, p2);
  store_products<kWide>(to + 3 * columns, p3);
  if (kCurves > 4) {
    store_products<kWide>(to + 4 * columns, p4);
    store_products<kWide>(to + 5 * columns, p5);
    store_products<kWide>(to + 6 * columns, p6);
    store_products<kWide>(to + 7 * columns, p7);
  }
}

// Memory that will be read soon.
struct Ahead {
  const double* from;
  std::int64_t size;
};

// Points [from, end) of the tile, times the candidates or their squares, to (curves, columns).
template <bool kSquares>
void multiply_all(const Tables& tables, std::int64_t grid, const double* x, std::int64_t n_rows,
                  std::int64_t from, std::int64_t end, double* to, Ahead ahead) {
  constexpr int kCurves = kParts == 1 ? 8 : 4;
  if (from >= end) return;
  // About what a call is to ask for at each point.
  const std::int64_t calls = (tables.columns + kRegisters * kWidth - 1) / (kRegisters * kWidth) *
                             ((n_rows + kCurves - 1) / kCurves);
  const std::int64_t each = calls > 0 ? (ahead.size + calls - 1) / calls : 0;
  const std::int64_t step = (each + end - from - 1) / (end - from);
  for (std::int64_t k = 0; k < n_rows; k += kCurves) {
    const double* const rows = x + k * tables.stride;
    for (std::int64_t c0 = 0; c0 < tables.columns; c0 += kPanel) {
      const std::int64_t width = tables.columns - c0 < kPanel ? tables.columns - c0 : kPanel;
      for (std::int64_t c = 0; c < width;) {
        const std::int64_t left = (width - c) / kWidth;
        const std::int64_t wide = left == 4 ? 2 : left < kRegisters ? left : kRegisters;
        (wide == 3   ? multiply<3, kCurves, kSquares>
         : wide == 2 ? multiply<2, kCurves, kSquares>
                     : multiply<1, kCurves, kSquares>)(rows, tables.stride,
                                                       tables.panels + c0 * grid + c, width, from,
                                                       end, to + k * tables.columns + c0 + c,
                                                       tables.columns, ahead.from, step);
        c += wide * kWidth;
        ahead.from += each;
      }
    }
  }
}

// A curve in the tile; points [first, last] of the grid, whole blocks [from, end).
struct Row {
  std::int64_t curve;
  std::int64_t first;
  std::int64_t last;
  std::int64_t from;
  std::int64_t end;
  std::int64_t n;
  bool gaps;
  double squares;           // sum of x^2
  double ends[2 * kLanes];  // masks of the first and the last block
};

// A lane for each curve of a tile: the divisor over that of least squares, which changes slowly
// from candidate to candidate: of the last two, and the one that is expected next.
struct Ratios {
  double now[kTile];
  double before[kTile];
  double expected[kTile];
};

struct Tile {
  Row* rows;
  std::int64_t n_rows;
  unsigned wanted;   // bit k: row k has enough points
  double* x;         // (rows, stride)
  double* mask;      // (rows, stride) 1 at usable points, else 0; where it was asked for
  double* others;    // (rows, stride)
  double* products;  // (rows, columns) sums of x u
  double* lengths;   // (rows, columns) sums of u^2 over the usable points
  double* points;    // (4, stride)
  std::int64_t first;
  std::int64_t last;
};

// Bits [from, to) of a block.
PLANNER_INLINE void fill_ends(double* to, std::int64_t first, std::int64_t last) {
  const double all = as_vec(bits(-1)).part[0][0];
  for (std::int64_t k = 0; k < kLanes; ++k) to[k] = k >= first && k <= last ? all : 0.0;
}

// Usable points of a block to `to`, their squares and their number, as -1 each, added.
PLANNER_INLINE void read_block(const Vec& x, double* to, Vec& squares, Bits& counts) {
  const Bits good = usable(x);
  const Vec kept = keep(x, good);
  store(to, kept);
  squares = fma(kept, kept, squares);
  counts = counts + good;
}

void read_row(const AlignArgs& args, Row& row, double* to) {
  const double* const all = args.curves + row.curve * args.grid;
  Vec even = vec(0.0);
  Vec odd = vec(0.0);
  Bits counts = bits(0);
  row.from = row.first / kLanes * kLanes;
  row.end = rounded(row.last + 1);
  const std::int64_t whole = row.end <= args.grid ? row.end : row.end - kLanes;
  std::int64_t i = row.from;
  for (; i + kLanes < whole; i += 2 * kLanes) {
    read_block(load(all + i), to + i, even, counts);
    read_block(load(all + i + kLanes), to + i + kLanes, odd, counts);
  }
  if (i < whole) {
    read_block(load(all + i), to + i, even, counts);
    i += kLanes;
  }
  if (i < row.end) read_block(load_tail(all + i, args.grid - i, kNan), to + i, odd, counts);
  row.squares = sum(even + odd);
  row.n = 0;
  for (std::int64_t k = 0; k < kLanes; ++k) row.n -= counts.part[k / kWidth][k % kWidth];
  row.gaps = row.n != row.last - row.first + 1;
  fill_ends(row.ends, row.first - row.from, row.last - row.from);
  fill_ends(row.ends + kLanes, 0, row.last - (row.end - kLanes));
}

void fill_mask(const AlignArgs& args, const Row& row, double* to) {
  const double* const all = args.curves + row.curve * args.grid;
  for (std::int64_t i = row.first; i <= row.last; ++i) to[i] = is_usable(all[i]) ? 1.0 : 0.0;
}

// Zeros up to what the tile spans.
PLANNER_INLINE void fill_zeros(const Tile& tile, const Row* row, double* to) {
  const std::int64_t head = row != nullptr && row->n > 0 ? row->first : tile.last + 1;
  for (std::int64_t i = tile.first; i < head; ++i) to[i] = 0.0;
  if (head > tile.last) return;
  for (std::int64_t i = row->last + 1; i <= tile.last; ++i) to[i] = 0.0;
}

// Sums of u^2: differences of the sums before; for a curve with gaps, and where a difference would
// lose digits, sums of their own. NaN where they overflow.
void find_lengths(const AlignArgs& args, const Tables& tables, const Tile& tile) {
  bool again = false;
  for (int pass = 0; pass < (again ? 2 : 1); ++pass) {
    for (std::int64_t k = 0; k < tile.n_rows; ++k) {
      const Row& row = tile.rows[k];
      if (row.gaps) again = true;
      if (row.gaps || row.n == 0) continue;
      const double* const before = tables.squares + row.first * tables.columns;
      const double* const after = tables.squares + (row.last + 1) * tables.columns;
      double* const to = tile.lengths + k * tables.columns;
      for (std::int64_t c = 0; c < tables.columns; c += kLanes) {
        const Vec all = load(after + c);
        const Vec part = all - load(before + c);
        const Bits exact = part * 16.0 >= all;
        store(to + c, pass == 0 ? part : select(exact, part, load(to + c)));
        if (!every(exact)) again = true;
      }
    }
    if (pass > 0 || !again) continue;
    for (std::int64_t k = 0; k < kTile; ++k) {
      const Row* const row = k < tile.n_rows ? tile.rows + k : nullptr;
      double* const to = tile.mask + k * tables.stride;
      if (row != nullptr && row->n > 0) fill_mask(args, *row, to);
      fill_zeros(tile, row, to);
    }
    multiply_all<true>(tables, args.grid, tile.mask, tile.n_rows, tile.first, tile.last + 1,
                       tile.lengths, {tile.mask, 0});
  }
  for (std::int64_t i = 0; i < tile.n_rows * tables.columns; i += kLanes) {
    const Vec length = load(tile.lengths + i);
    store(tile.lengths + i, select(usable(length), length, kNan));
  }
}

// For a curve with gaps, `others` is filled.
PLANNER_INLINE Stretch stretch_of(const Tables& tables, const Tile& tile, std::int64_t k,
                                  std::int64_t c) {
  const Row& row = tile.rows[k];
  const double* u = tables.rows + c * tables.stride + row.from;
  if (row.gaps) {
    const double* const mask = tile.mask + k * tables.stride + row.from;
    double* const copy = tile.others + k * tables.stride;
    for (std::int64_t i = 0; i < row.end - row.from; i += kLanes) {
      store(copy + i, keep(load(u + i), load(mask + i) > 0.0));
    }
    u = copy;
  }
  return {tile.x + k * tables.stride + row.from, u, (row.end - row.from) / kLanes, row.ends};
}

PLANNER_INLINE void write(const AlignArgs& args, std::int64_t at, const Fit& found) {
  const bool good = is_usable(found.divisor) && is_usable(found.objective) &&
                    (found.status == Status::kOk || found.status == Status::kStalled ||
                     found.status == Status::kMaxIterations);
  const Status status = !good && found.status == Status::kOk ? Status::kNonFinite : found.status;
  args.divisor[at] = good ? found.divisor : kNan;
  args.objective[at] = good ? found.objective : kNan;
  args.status[at] = static_cast<std::int32_t>(status);
}

// The objective is (sum x^2 - c sum x u) / 2, or, where that would lose more than six digits, the
// sum of its own.
PLANNER_INLINE void least_squares(const AlignArgs& args, const Tables& tables, const Tile& tile,
                                  std::int64_t k) {
  const Row& row = tile.rows[k];
  const double* const products = tile.products + k * tables.columns;
  const double* const lengths = tile.lengths + k * tables.columns;
  const std::int64_t start = row.curve * args.n_candidates;
  for (std::int64_t c0 = 0; c0 < args.n_candidates; c0 += kLanes) {
    const Vec product = load(products + c0);
    const Vec divisor = product / load(lengths + c0);
    const Vec objective = 0.5 * fnma(divisor, product, vec(row.squares));
    const std::int64_t left = args.n_candidates - c0;
    const unsigned wanted = left < kLanes ? (1U << left) - 1U : 0xffU;
    const unsigned good = lanes(usable(divisor)) & lanes(usable(objective));
    const unsigned exact = lanes(objective <= 1e-6 * row.squares);
    if (wanted == 0xffU && good == 0xffU && exact == 0) {
      store(args.divisor + start + c0, divisor);
      store(args.objective + start + c0, objective);
      static_assert(static_cast<std::int32_t>(Status::kOk) == 0);
      __builtin_memset(args.status + start + c0, 0, kLanes * sizeof(std::int32_t));
      continue;
    }
    double divisors[kLanes];
    double objectives[kLanes];
    store(divisors, divisor);
    store(objectives, objective);
    for (std::int64_t i = 0; i < left && i < kLanes; ++i) {
      if ((exact & good) >> i & 1U) {
        objectives[i] = half_squares_at(stretch_of(tables, tile, k, c0 + i), divisors[i]);
      }
      write(args, start + c0 + i, {divisors[i], objectives[i], Status::kOk});
    }
  }
}

// The ratio to start from for the next candidate: along the line through the last two, or the last
// one, or 1, whichever would have been nearest this time.
PLANNER_INLINE void expect(Ratios& ratios, const Vec& ratio, const Bits& where) {
  const Vec now = load(ratios.now);
  const Vec line = abs(2.0 * now - load(ratios.before) - ratio);
  const Vec same = abs(now - ratio);
  const Vec none = abs(1.0 - ratio);
  Vec next = select(line < same, 2.0 * ratio - now, ratio);
  next = select((line < none) | (same < none), next, 1.0);
  store(ratios.expected, select(where, next, load(ratios.expected)));
  store(ratios.before, select(where, now, load(ratios.before)));
  store(ratios.now, select(where, ratio, now));
}

// How one lane went on where Newton's step was no good.
struct Lane {
  bool halve = false;
  double reach = 1.0;
};

// Where Newton's step leaves the bracket or is not half the step before, a secant or half of the
// bracket; before there is one, the step of reweighted least squares, which descends, then twice
// and four times as much: on its own it may creep for ever on one side.
double other_step(const Stretch& pair, double c, double next, double delta, double gradient,
                  double low, double high, double low_gradient, double high_gradient, Lane& lane) {
  if (low > -kInf && high < kInf) {
    lane.halve = !lane.halve;
    return lane.halve ? low + (high - low) * (low_gradient / (low_gradient - high_gradient))
                      : low + 0.5 * (high - low);
  }
  if (next > low && next < high) return next;
  const double step = lane.reach * (gradient / weight_at(pair, c, delta));
  lane.reach *= 2.0;
  return c + step;
}

// Newton's steps inside a bracket, of a convex function of one variable, for all curves of the tile
// and one candidate: exact, but for rounding, as soon as no point passes delta any more.
void huber(const AlignArgs& args, const Tables& tables, const Tile& tile, const double* delta,
           Ratios& ratios, std::int64_t candidate) {
  double products[kLanes] = {};
  double lengths[kLanes] = {};
  Stretch pairs[kLanes];
  for (std::int64_t k = 0; k < tile.n_rows; ++k) {
    if (!(tile.wanted >> k & 1U)) continue;
    products[k] = tile.products[k * tables.columns + candidate];
    lengths[k] = tile.lengths[k * tables.columns + candidate];
    pairs[k] = stretch_of(tables, tile, k, candidate);
  }
  const Vec least = load(products) / load(lengths);
  const Bits some = usable(least);
  const Vec start = least * load(ratios.expected);
  Vec c = select(usable(start), start, least);
  Vec low = vec(-kInf);
  Vec high = vec(kInf);
  Vec low_gradient = vec(0.0);
  Vec high_gradient = vec(0.0);
  Vec moved = vec(kInf);
  Lane others[kLanes];
  double found[kLanes] = {};
  double gradients[kLanes] = {};
  double insides[kLanes] = {};
  double objectives[kLanes] = {};
  double at[kLanes];
  store(at, c);
  unsigned active = tile.wanted & lanes(some);
  for (unsigned rest = tile.wanted & ~active; rest != 0; rest &= rest - 1) {
    write(args, tile.rows[__builtin_ctz(rest)].curve * args.n_candidates + candidate,
          {kNan, kNan, Status::kNonFinite});
  }
  int step = 0;
  // Of lanes that are done, `at` is found; what comes after in them does not matter.
  const auto finish = [&](unsigned which, Status status, bool objective) {
    for (; which != 0; which &= which - 1) {
      const int k = __builtin_ctz(which);
      if (!objective) objectives[k] = slopes_at<true>(pairs[k], at[k], delta[k]).objective;
      found[k] = at[k];
      const std::int64_t pair = tile.rows[k].curve * args.n_candidates + candidate;
      write(args, pair, {at[k], objectives[k], status});
      if (args.iterations != nullptr) args.iterations[pair] = step + 1;
    }
  };
  for (; active != 0; ++step) {
    for (unsigned rest = active; rest != 0; rest &= rest - 1) {
      const int k = __builtin_ctz(rest);
      const Slopes slopes = step == 0 ? slopes_at<false>(pairs[k], at[k], delta[k])
                                      : slopes_at<true>(pairs[k], at[k], delta[k]);
      gradients[k] = slopes.gradient;
      insides[k] = slopes.inside;
      objectives[k] = slopes.objective;
    }
    const Vec gradient = load(gradients);
    const Vec inside = load(insides);
    const Vec close = 1e-13 * abs(c);
    const Bits done = (gradient == 0.0) | (high - low <= close) |
                      ((inside > 0.0) & (abs(gradient) <= close * inside));
    finish(active & lanes(done), Status::kOk, step > 0);
    active &= ~lanes(done);
    if (step == kMostSteps) {
      finish(active, Status::kMaxIterations, true);
      break;
    }
    const Bits up = gradient > 0.0;
    low = select(up, c, low);
    low_gradient = select(up, gradient, low_gradient);
    high = select(up, high, c);
    high_gradient = select(up, high_gradient, gradient);
    Vec next = c + gradient / select(inside > 0.0, inside, kNan);
    const Bits good = (next > low) & (next < high) & (abs(next - c) <= 0.5 * moved);
    if (const unsigned bad = active & ~lanes(good); bad != 0) {
      double lows[kLanes];
      double highs[kLanes];
      double low_gradients[kLanes];
      double high_gradients[kLanes];
      double nexts[kLanes];
      store(lows, low);
      store(highs, high);
      store(low_gradients, low_gradient);
      store(high_gradients, high_gradient);
      store(nexts, next);
      for (unsigned rest = bad; rest != 0; rest &= rest - 1) {
        const int k = __builtin_ctz(rest);
        nexts[k] = other_step(pairs[k], at[k], nexts[k], delta[k], gradients[k], lows[k], highs[k],
                              low_gradients[k], high_gradients[k], others[k]);
      }
      next = load(nexts);
    }
    const unsigned lost = active & ~lanes(usable(next));
    finish(lost, Status::kStalled, step > 0);
    active &= ~lost;
    moved = abs(next - c);
    c = next;
    store(at, c);
  }
  expect(ratios, load(found) / least, some);
}

// What needs the points side by side: least absolute deviations, and standard errors.
PLANNER_INLINE void by_points(const AlignArgs& args, const Tables& tables, const Tile& tile,
                              std::int64_t k) {
  const Row& row = tile.rows[k];
  double* const kept = tile.points;
  double* const others = kept + tables.stride;
  double* const ratio = others + tables.stride;
  double* const weight = ratio + tables.stride;
  double* const score = weight;
  std::int64_t n = 0;
  for (std::int64_t i = row.first; i <= row.last; ++i) {
    const double x = args.curves[row.curve * args.grid + i];
    if (is_usable(x)) kept[n++] = x;
  }
  for (std::int64_t c = 0; c < args.n_candidates; ++c) {
    const double* u = tables.rows + c * tables.stride + row.first;
    if (row.gaps) {
      std::int64_t at = 0;
      for (std::int64_t i = row.first; i <= row.last; ++i) {
        if (is_usable(args.curves[row.curve * args.grid + i])) others[at++] = u[i - row.first];
      }
      u = others;
    }
    const Pair pair = {kept, u, n};
    const std::int64_t at = row.curve * args.n_candidates + c;
    if (args.method == Alignment::kLeastAbsolute) {
      const std::int64_t here = k * tables.columns + c;
      const bool some = is_usable(tile.products[here] / tile.lengths[here]);
      write(args, at,
            some ? least_absolute(pair, ratio, weight) : Fit{kNan, kNan, Status::kNonFinite});
    }
    if (args.error != nullptr) {
      const double delta = args.method == Alignment::kHuber ? args.delta[row.curve] : 0.0;
      const double divisor = args.divisor[at];
      args.error[at] =
          is_usable(divisor) ? standard_error(pair, divisor, args.method, delta, score) : kNan;
    }
  }
}

void align_tile(const AlignArgs& args, const Tables& tables, Row* rows, std::int64_t n_rows,
                const Ahead& ahead, double* memory) {
  Tile tile;
  tile.rows = rows;
  tile.n_rows = n_rows;
  tile.wanted = 0;
  tile.x = memory;
  tile.mask = tile.x + kTile * tables.stride;
  tile.others = tile.mask + kTile * tables.stride;
  tile.products = tile.others + kTile * tables.stride;
  tile.lengths = tile.products + kTile * tables.columns;
  tile.points = tile.lengths + kTile * tables.columns;
  tile.first = args.grid;
  tile.last = -1;
  double delta[kTile] = {};
  for (std::int64_t k = 0; k < n_rows; ++k) {
    Row& row = rows[k];
    read_row(args, row, tile.x + k * tables.stride);
    args.n_finite[row.curve] = row.n;
    if (args.method == Alignment::kHuber) delta[k] = args.delta[row.curve];
    if (row.n > 0 && row.first < tile.first) tile.first = row.first;
    if (row.n > 0 && row.last > tile.last) tile.last = row.last;
    if (row.n >= kFewest) {
      tile.wanted |= 1U << k;
      continue;
    }
    const Status status = row.n == 0 ? Status::kNonFinite : Status::kTooFewPoints;
    for (std::int64_t c = 0; c < args.n_candidates; ++c) {
      const std::int64_t at = row.curve * args.n_candidates + c;
      write(args, at, {kNan, kNan, status});
      if (args.error != nullptr) args.error[at] = kNan;
    }
  }
  if (tile.wanted == 0) return;
  for (std::int64_t k = 0; k < kTile; ++k) {
    fill_zeros(tile, k < n_rows ? rows + k : nullptr, tile.x + k * tables.stride);
  }
  multiply_all<false>(tables, args.grid, tile.x, n_rows, tile.first, tile.last + 1, tile.products,
                      ahead);
  find_lengths(args, tables, tile);
  if (args.method == Alignment::kHuber) {
    Ratios ratios;
    for (std::int64_t k = 0; k < kTile; ++k) {
      ratios.now[k] = ratios.before[k] = ratios.expected[k] = 1.0;
    }
    for (std::int64_t c = 0; c < args.n_candidates; ++c) {
      huber(args, tables, tile, delta, ratios, c);
    }
  }
  for (std::int64_t k = 0; k < n_rows; ++k) {
    if (!(tile.wanted >> k & 1U)) continue;
    if (args.method == Alignment::kLeastSquares) least_squares(args, tables, tile, k);
    if (args.method == Alignment::kLeastAbsolute || args.error != nullptr) {
      by_points(args, tables, tile, k);
    }
  }
}

// The first and the last usable point; both before the grid where there is none.
PLANNER_INLINE void find_ends(const AlignArgs& args, Row& row) {
  const double* const x = args.curves + row.curve * args.grid;
  row.last = args.grid - 1;
  while (row.last >= kLanes && !any(usable(load(x + row.last - kLanes + 1)))) row.last -= kLanes;
  while (row.last >= 0 && !is_usable(x[row.last])) --row.last;
  row.first = 0;
  while (row.first + kLanes <= row.last && !any(usable(load(x + row.first)))) row.first += kLanes;
  while (row.first < row.last && !is_usable(x[row.first])) ++row.first;
}

void align_curves(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                  double* memory) noexcept {
  const Tables tables = tables_of(args);
  for (std::int64_t start = begin; start < end; start += kAlignGroup) {
    // Ordered by the last point: a tile takes the time of its longest curve.
    Row rows[kAlignGroup];
    const std::int64_t n = end - start < kAlignGroup ? end - start : kAlignGroup;
    for (std::int64_t k = 0; k < n; ++k) {
      Row row = {};
      row.curve = start + k;
      find_ends(args, row);
      std::int64_t at = k;
      for (; at > 0 && rows[at - 1].last > row.last; --at) rows[at] = rows[at - 1];
      rows[at] = row;
    }
    // The next group comes from memory while this one is worked on: past `end` too, since it is
    // this thread that takes the next chunk, where it is the only one.
    for (std::int64_t k = 0; k < n; k += kTile) {
      const std::int64_t next = start + kAlignGroup + k;
      const std::int64_t left = args.n_curves - next;
      const std::int64_t rows_ahead = left < 0 ? 0 : left < kTile ? left : kTile;
      const Ahead ahead = {args.curves + (rows_ahead > 0 ? next : start) * args.grid,
                           rows_ahead * args.grid};
      align_tile(args, tables, rows + k, n - k < kTile ? n - k : kTile, ahead, memory);
    }
  }
}

}  // namespace

const AlignKernels align = {tables, panels, scratch, prepare, align_curves};

}  // namespace planner::PLANNER_LEVEL
