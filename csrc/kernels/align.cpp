// curve = divisor * candidate, for every pair. Uses fma(): baseline differs by rounding.
//
// Curves go in tiles, as rows with zeros where a point is missing. Their products with the
// candidates are a matrix product; Huber's steps follow, candidate by candidate, for all curves of
// the tile while the candidate is in L1. What a pair gets does not depend on its tile: zeros add
// nothing.
#include "align.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kTile = 6;      // curves
constexpr std::int64_t kTogether = 4;  // candidates
constexpr std::int64_t kGroup = 48;    // curves that are ordered by their last point
constexpr std::int64_t kFewest = 3;
constexpr int kMostSteps = 300;

constexpr std::int64_t rounded(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

std::int64_t scratch(std::int64_t grid, std::int64_t n_candidates) noexcept {
  return kTile * (2 * rounded(grid) + 2 * rounded(n_candidates) + 2 * kLanes) + 2 * kLanes +
         5 * rounded(grid);
}

void prepare(const AlignArgs& args, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t c = begin; c < end; ++c) {
    const double* const from = args.candidates + c * args.grid;
    double* const to = args.packed + c * args.stride;
    for (std::int64_t i = 0; i < args.stride; ++i) to[i] = i < args.grid ? from[i] : 0.0;
    args.squares[c] = 0.0;
  }
  // All candidates at a point: their sums do not wait for each other.
  for (std::int64_t i = 0; i < args.grid; ++i) {
    const double* const before = args.squares + i * args.columns;
    double* const after = args.squares + (i + 1) * args.columns;
    for (std::int64_t c = begin; c < end; ++c) {
      const double u = args.candidates[c * args.grid + i];
      after[c] = before[c] + u * u;
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

// The first and the last block are in `ends`, without the points that are missing; where there is
// only one, the other is zeros. `blocks` are between them.
struct Stretch {
  const double* x;
  const double* u;
  std::int64_t blocks;
  const double* x_ends;
  const double* u_ends;
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
  Sums even = {vec(0.0), vec(0.0), vec(0.0)};
  Sums odd = even;
  add_slopes<kObjective>(even, load(pair.x_ends), load(pair.u_ends), at, limit);
  add_slopes<kObjective>(odd, load(pair.x_ends + kLanes), load(pair.u_ends + kLanes), at, limit);
  const double* x = pair.x;
  const double* u = pair.u;
  const double* const end = x + pair.blocks / 2 * 2 * kLanes;
  for (; x < end; x += 2 * kLanes, u += 2 * kLanes) {
    add_slopes<kObjective>(even, load(x), load(u), at, limit);
    add_slopes<kObjective>(odd, load(x + kLanes), load(u + kLanes), at, limit);
  }
  if (pair.blocks % 2 != 0) add_slopes<kObjective>(even, load(x), load(u), at, limit);
  return {sum(even.gradient + odd.gradient), sum(even.inside + odd.inside),
          kObjective ? sum(even.objective + odd.objective) : 0.0};
}

// The curvature of reweighted least squares: sum of min(1, delta / |r|) u^2.
PLANNER_INLINE void add_weight(Vec& to, const Vec& x, const Vec& u, double c, double delta) {
  const Vec size = abs(fnma(u, c, x));
  to = to + select(size <= delta, u * u, u * u * (delta / size));
}

double weight_at(const Stretch& pair, double c, double delta) {
  Vec weight = vec(0.0);
  add_weight(weight, load(pair.x_ends), load(pair.u_ends), c, delta);
  add_weight(weight, load(pair.x_ends + kLanes), load(pair.u_ends + kLanes), c, delta);
  for (std::int64_t i = 0; i < pair.blocks * kLanes; i += kLanes) {
    add_weight(weight, load(pair.x + i), load(pair.u + i), c, delta);
  }
  return sum(weight);
}

PLANNER_INLINE void add_square(Vec& to, const Vec& x, const Vec& u, double c) {
  const Vec r = fnma(u, c, x);
  to = fma(r, r, to);
}

double half_squares_at(const Stretch& pair, double c) {
  Vec even = vec(0.0);
  Vec odd = vec(0.0);
  add_square(even, load(pair.x_ends), load(pair.u_ends), c);
  add_square(odd, load(pair.x_ends + kLanes), load(pair.u_ends + kLanes), c);
  for (std::int64_t i = 0; i < pair.blocks * kLanes; i += kLanes) {
    add_square(i % (2 * kLanes) == 0 ? even : odd, load(pair.x + i), load(pair.u + i), c);
  }
  return 0.5 * sum(even + odd);
}

// Newton's steps inside a bracket, of a convex function of one variable: exact, but for rounding,
// as soon as no point passes delta any more. Where one leaves the bracket or is not half the step
// before, a secant or half of the bracket; before there is one, the step of reweighted least
// squares, which descends.
PLANNER_INLINE Fit huber(const Stretch& pair, double c, double delta) {
  double low = -kInf;
  double high = kInf;
  double low_gradient = 0.0;
  double high_gradient = 0.0;
  double moved = kInf;
  bool halve = false;
  Slopes at = slopes_at<false>(pair, c, delta);
  for (int step = 0; step < kMostSteps; ++step) {
    const double close = 1e-13 * __builtin_fabs(c);
    if (at.gradient == 0.0 || high - low <= close ||
        (at.inside > 0.0 && __builtin_fabs(at.gradient) <= close * at.inside)) {
      if (step == 0) at = slopes_at<true>(pair, c, delta);
      return {c, at.objective, Status::kOk};
    }
    if (at.gradient > 0.0) {
      low = c;
      low_gradient = at.gradient;
    } else {
      high = c;
      high_gradient = at.gradient;
    }
    double next = at.inside > 0.0 ? c + at.gradient / at.inside : kNan;
    if (!(next > low && next < high && __builtin_fabs(next - c) <= 0.5 * moved)) {
      if (low > -kInf && high < kInf) {
        next = halve ? low + 0.5 * (high - low)
                     : low + (high - low) * (low_gradient / (low_gradient - high_gradient));
        halve = !halve;
      } else if (!(next > low && next < high)) {
        next = c + at.gradient / weight_at(pair, c, delta);
      }
    }
    if (!is_usable(next)) {
      if (step == 0) at = slopes_at<true>(pair, c, delta);
      return {c, at.objective, Status::kStalled};
    }
    moved = __builtin_fabs(next - c);
    c = next;
    at = slopes_at<true>(pair, c, delta);
  }
  return {c, at.objective, Status::kMaxIterations};
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

// Three curves times one candidate. Not an array: gcc would keep it in memory.
struct Three {
  Vec a;
  Vec b;
  Vec c;
};

PLANNER_INLINE void add_products(Three& to, const Vec& u, const Vec& a, const Vec& b,
                                 const Vec& c) {
  to.a = fma(a, u, to.a);
  to.b = fma(b, u, to.b);
  to.c = fma(c, u, to.c);
}

PLANNER_INLINE void store_sums(const Three& from, double* to, std::int64_t columns) {
  to[0] = sum(from.a);
  to[columns] = sum(from.b);
  to[2 * columns] = sum(from.c);
}

// Products of three rows of x with two of u. Every pair is one chain of sums, so that the bits are
// those of multiply_wide().
PLANNER_INLINE void multiply(const double* x, const double* u0, const double* u1,
                             std::int64_t stride, std::int64_t from, std::int64_t end, double* to0,
                             double* to1, std::int64_t columns) {
  const double* const xb = x + stride;
  const double* const xc = xb + stride;
  const Three zeros = {vec(0.0), vec(0.0), vec(0.0)};
  Three p0 = zeros;
  Three p1 = zeros;
  for (std::int64_t i = from; i < end; i += kLanes) {
    const Vec v0 = load(u0 + i);
    const Vec v1 = load(u1 + i);
    const Vec a = load(x + i);
    const Vec b = load(xb + i);
    const Vec c = load(xc + i);
    add_products(p0, v0, a, b, c);
    add_products(p1, v1, a, b, c);
  }
  store_sums(p0, to0, columns);
  store_sums(p1, to1, columns);
}

// Six rows with four, where there are 32 registers.
PLANNER_INLINE void multiply_wide(const double* x, const double* const (&u)[kTogether],
                                  std::int64_t stride, std::int64_t from, std::int64_t end,
                                  double* const (&to)[kTogether], std::int64_t columns) {
  const double* const xb = x + stride;
  const double* const xc = xb + stride;
  const double* const xd = xc + stride;
  const double* const xe = xd + stride;
  const double* const xf = xe + stride;
  const double* const u0 = u[0];
  const double* const u1 = u[1];
  const double* const u2 = u[2];
  const double* const u3 = u[3];
  const Three zeros = {vec(0.0), vec(0.0), vec(0.0)};
  Three p0 = zeros;
  Three p1 = zeros;
  Three p2 = zeros;
  Three p3 = zeros;
  Three q0 = zeros;
  Three q1 = zeros;
  Three q2 = zeros;
  Three q3 = zeros;
  for (std::int64_t i = from; i < end; i += kLanes) {
    const Vec a = load(x + i);
    const Vec b = load(xb + i);
    const Vec c = load(xc + i);
    const Vec d = load(xd + i);
    const Vec e = load(xe + i);
    const Vec f = load(xf + i);
    const Vec v0 = load(u0 + i);
    add_products(p0, v0, a, b, c);
    add_products(q0, v0, d, e, f);
    const Vec v1 = load(u1 + i);
    add_products(p1, v1, a, b, c);
    add_products(q1, v1, d, e, f);
    const Vec v2 = load(u2 + i);
    add_products(p2, v2, a, b, c);
    add_products(q2, v2, d, e, f);
    const Vec v3 = load(u3 + i);
    add_products(p3, v3, a, b, c);
    add_products(q3, v3, d, e, f);
  }
  store_sums(p0, to[0], columns);
  store_sums(p1, to[1], columns);
  store_sums(p2, to[2], columns);
  store_sums(p3, to[3], columns);
  store_sums(q0, to[0] + 3 * columns, columns);
  store_sums(q1, to[1] + 3 * columns, columns);
  store_sums(q2, to[2] + 3 * columns, columns);
  store_sums(q3, to[3] + 3 * columns, columns);
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
  double squares;  // sum of x^2
  double* x;
  double* mask;
  double* x_ends;
  double* products;  // with the candidates
  double* lengths;   // sums of u^2 over the usable points

  // Divisors over those of least squares, which change slowly from candidate to candidate: of the
  // last two, and the one that is expected next.
  double ratio;
  double ratio_before;
  double expected;
};

PLANNER_INLINE void read_row(const AlignArgs& args, Row& row) {
  const double* const all = args.curves + row.curve * args.grid;
  Vec squares = vec(0.0);
  row.n = 0;
  row.from = row.first / kLanes * kLanes;
  row.end = rounded(row.last + 1);
  for (std::int64_t i = row.from; i < row.end; i += kLanes) {
    const std::int64_t left = args.grid - i;
    const Vec x = left >= kLanes ? load(all + i) : load_tail(all + i, left, kNan);
    const Bits good = usable(x);
    const Vec kept = keep(x, good);
    store(row.x + i, kept);
    store(row.mask + i, as_vec(good));
    squares = fma(kept, kept, squares);
    row.n += count(good);
  }
  row.squares = sum(squares);
  row.gaps = row.n != row.last - row.first + 1;
  for (std::int64_t k = 0; k < 2 * kLanes; ++k) row.x_ends[k] = 0.0;
  if (row.n == 0) return;
  store(row.x_ends, load(row.x + row.from));
  if (row.end - row.from > kLanes) store(row.x_ends + kLanes, load(row.x + row.end - kLanes));
}

PLANNER_INLINE Vec usable_part(const Row& row, const double* u, std::int64_t i) {
  return keep(load(u + i), as_bits(load(row.mask + i)));
}

double length_of(const Row& row, const double* u) {
  Vec even = vec(0.0);
  Vec odd = vec(0.0);
  std::int64_t i = row.from;
  for (; i + 2 * kLanes <= row.end; i += 2 * kLanes) {
    const Vec a = usable_part(row, u, i);
    const Vec b = usable_part(row, u, i + kLanes);
    even = fma(a, a, even);
    odd = fma(b, b, odd);
  }
  if (i < row.end) {
    const Vec a = usable_part(row, u, i);
    even = fma(a, a, even);
  }
  return sum(even + odd);
}

// `ends` and, for a curve with gaps, `copy` are filled.
PLANNER_INLINE Stretch stretch_of(const Row& row, const double* u, double* ends, double* copy) {
  if (row.gaps) {
    for (std::int64_t i = row.from; i < row.end; i += kLanes) {
      store(copy + i, usable_part(row, u, i));
    }
    u = copy;
  }
  const std::int64_t blocks = (row.end - row.from) / kLanes;
  store(ends, usable_part(row, u, row.from));
  store(ends + kLanes, blocks > 1 ? usable_part(row, u, row.end - kLanes) : vec(0.0));
  return {row.x + row.from + kLanes, u + row.from + kLanes, blocks > 2 ? blocks - 2 : 0, row.x_ends,
          ends};
}

// Sums of u^2: a difference of the sums before, or, where that would lose digits, one by one.
PLANNER_INLINE void find_lengths(const AlignArgs& args, const Row& row) {
  const double* const before = args.squares + row.first * args.columns;
  const double* const after = args.squares + (row.last + 1) * args.columns;
  for (std::int64_t c0 = 0; c0 < args.n_candidates; c0 += kLanes) {
    const Vec all = load(after + c0);
    const Vec part = all - load(before + c0);
    store(row.lengths + c0, part);
    unsigned again = row.gaps ? 0xffU : lanes(part * 16.0 < all);
    const std::int64_t left = args.n_candidates - c0;
    if (left < kLanes) again &= (1U << left) - 1U;
    for (; again != 0; again &= again - 1) {
      const std::int64_t c = c0 + __builtin_ctz(again);
      row.lengths[c] = length_of(row, args.packed + c * args.stride);
    }
  }
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
PLANNER_INLINE void least_squares(const AlignArgs& args, const Row& row, double* ends,
                                  double* copy) {
  const std::int64_t start = row.curve * args.n_candidates;
  for (std::int64_t c0 = 0; c0 < args.n_candidates; c0 += kLanes) {
    const Vec products = load(row.products + c0);
    const Vec divisor = products / load(row.lengths + c0);
    const Vec objective = 0.5 * fnma(divisor, products, vec(row.squares));
    const std::int64_t left = args.n_candidates - c0;
    const unsigned wanted = left < kLanes ? (1U << left) - 1U : 0xffU;
    const unsigned good = lanes(usable(divisor)) & lanes(usable(objective));
    const unsigned exact = lanes(objective <= 1e-6 * row.squares);
    if (wanted == 0xffU && good == 0xffU && exact == 0) {
      store(args.divisor + start + c0, divisor);
      store(args.objective + start + c0, objective);
      for (std::int64_t k = 0; k < kLanes; ++k) {
        args.status[start + c0 + k] = static_cast<std::int32_t>(Status::kOk);
      }
      continue;
    }
    double divisors[kLanes];
    double objectives[kLanes];
    store(divisors, divisor);
    store(objectives, objective);
    for (std::int64_t k = 0; k < left && k < kLanes; ++k) {
      if ((exact & good) >> k & 1U) {
        const double* const u = args.packed + (c0 + k) * args.stride;
        objectives[k] = half_squares_at(stretch_of(row, u, ends, copy), divisors[k]);
      }
      write(args, start + c0 + k, {divisors[k], objectives[k], Status::kOk});
    }
  }
}

// The ratio to start from for the next candidate: along the line through the last two, or the last
// one, or 1, whichever would have been nearest this time.
PLANNER_INLINE void expect(Row& row, double ratio) {
  const double line = __builtin_fabs(2.0 * row.ratio - row.ratio_before - ratio);
  const double same = __builtin_fabs(row.ratio - ratio);
  const double none = __builtin_fabs(1.0 - ratio);
  row.expected = line < same ? 2.0 * ratio - row.ratio : ratio;
  if (!(line < none || same < none)) row.expected = 1.0;
  row.ratio_before = row.ratio;
  row.ratio = ratio;
}

PLANNER_INLINE void fit_huber(const AlignArgs& args, Row& row, std::int64_t c, double* ends,
                              double* copy) {
  const double delta = args.delta[row.curve];
  const double least = row.products[c] / row.lengths[c];
  Fit found = {least, 0.0, Status::kNonFinite};
  if (is_usable(least)) {
    const double start = least * row.expected;
    const Stretch pair = stretch_of(row, args.packed + c * args.stride, ends, copy);
    found = huber(pair, is_usable(start) ? start : least, delta);
    expect(row, found.divisor / least);
  }
  write(args, row.curve * args.n_candidates + c, found);
}

// What needs the points side by side: least absolute deviations, and standard errors.
PLANNER_INLINE void by_points(const AlignArgs& args, const Row& row, double* memory) {
  const std::int64_t stride = args.stride;
  double* const kept = memory;
  double* const others = kept + stride;
  double* const ratio = others + stride;
  double* const weight = ratio + stride;
  double* const score = weight;
  std::int64_t n = 0;
  for (std::int64_t i = row.first; i <= row.last; ++i) {
    const double x = args.curves[row.curve * args.grid + i];
    if (is_usable(x)) kept[n++] = x;
  }
  for (std::int64_t c = 0; c < args.n_candidates; ++c) {
    const double* u = args.packed + c * stride + row.first;
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
      const bool some = is_usable(row.products[c] / row.lengths[c]);
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

void align_tile(const AlignArgs& args, Row* rows, std::int64_t n_rows, double* memory) {
  double* const ends = memory;
  double* const copy = ends + 2 * kLanes;
  double* const points = copy + args.stride;
  double* const xs = points + 4 * args.stride;
  double* const masks = xs + kTile * args.stride;
  double* const x_ends = masks + kTile * args.stride;
  double* const products = x_ends + kTile * 2 * kLanes;
  double* const lengths = products + kTile * args.columns;
  std::int64_t from = args.stride;
  std::int64_t end = 0;
  for (std::int64_t k = 0; k < n_rows; ++k) {
    Row& row = rows[k];
    row.x = xs + k * args.stride;
    row.mask = masks + k * args.stride;
    row.x_ends = x_ends + k * 2 * kLanes;
    row.products = products + k * args.columns;
    row.lengths = lengths + k * args.columns;
    row.ratio = row.ratio_before = row.expected = 1.0;
    read_row(args, row);
    args.n_finite[row.curve] = row.n;
    if (row.n > 0 && row.from < from) from = row.from;
    if (row.n > 0 && row.end > end) end = row.end;
  }
  // Zeros up to what the tile spans, and in rows that it lacks.
  for (std::int64_t k = 0; k < kTile; ++k) {
    double* const x = xs + k * args.stride;
    const bool some = k < n_rows && rows[k].n > 0;
    const std::int64_t head = some ? rows[k].from : end;
    for (std::int64_t i = from; i < head; ++i) x[i] = 0.0;
    for (std::int64_t i = some ? rows[k].end : end; i < end; ++i) x[i] = 0.0;
  }
  for (std::int64_t c0 = 0; c0 < args.n_candidates; c0 += kTogether) {
    const double* u[kTogether];
    double* to[kTogether];
    for (std::int64_t k = 0; k < kTogether; ++k) {
      // Past the last candidate: the last one again.
      const std::int64_t c = c0 + k < args.n_candidates ? c0 + k : args.n_candidates - 1;
      u[k] = args.packed + c * args.stride;
      to[k] = products + c;
    }
    if (kParts == 1 && n_rows > 3) {
      multiply_wide(xs, u, args.stride, from, end, to, args.columns);
      continue;
    }
    for (std::int64_t k = 0; k < n_rows; k += 3) {
      const double* const x = xs + k * args.stride;
      const std::int64_t at = k * args.columns;
      multiply(x, u[0], u[1], args.stride, from, end, to[0] + at, to[1] + at, args.columns);
      multiply(x, u[2], u[3], args.stride, from, end, to[2] + at, to[3] + at, args.columns);
    }
  }
  bool wanted[kTile] = {};
  for (std::int64_t k = 0; k < n_rows; ++k) {
    const Row& row = rows[k];
    wanted[k] = row.n >= kFewest;
    if (wanted[k]) {
      find_lengths(args, row);
      continue;
    }
    const Status status = row.n == 0 ? Status::kNonFinite : Status::kTooFewPoints;
    for (std::int64_t c = 0; c < args.n_candidates; ++c) {
      const std::int64_t at = row.curve * args.n_candidates + c;
      write(args, at, {kNan, kNan, status});
      if (args.error != nullptr) args.error[at] = kNan;
    }
  }
  if (args.method == Alignment::kHuber) {
    for (std::int64_t c = 0; c < args.n_candidates; ++c) {
      for (std::int64_t k = 0; k < n_rows; ++k) {
        if (wanted[k]) fit_huber(args, rows[k], c, ends, copy);
      }
    }
  }
  for (std::int64_t k = 0; k < n_rows; ++k) {
    if (!wanted[k]) continue;
    if (args.method == Alignment::kLeastSquares) least_squares(args, rows[k], ends, copy);
    if (args.method == Alignment::kLeastAbsolute || args.error != nullptr) {
      by_points(args, rows[k], points);
    }
  }
}

void align_curves(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                  double* memory) noexcept {
  for (std::int64_t start = begin; start < end; start += kGroup) {
    // Ordered by the last point: a tile takes the time of its longest curve.
    Row rows[kGroup];
    const std::int64_t n = end - start < kGroup ? end - start : kGroup;
    for (std::int64_t k = 0; k < n; ++k) {
      const double* const x = args.curves + (start + k) * args.grid;
      Row row = {};
      row.curve = start + k;
      row.last = args.grid - 1;
      while (row.last >= 0 && !is_usable(x[row.last])) --row.last;
      while (row.first < row.last && !is_usable(x[row.first])) ++row.first;
      std::int64_t at = k;
      for (; at > 0 && rows[at - 1].last > row.last; --at) rows[at] = rows[at - 1];
      rows[at] = row;
    }
    for (std::int64_t k = 0; k < n; k += kTile) {
      align_tile(args, rows + k, n - k < kTile ? n - k : kTile, memory);
    }
  }
}

}  // namespace

const AlignKernels align = {scratch, prepare, align_curves};

}  // namespace planner::PLANNER_LEVEL
