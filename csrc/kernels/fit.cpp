// Robust multi-start fits by Levenberg-Marquardt with a fused value, gradient and Hessian pass.
//
// The pass works on blocks of 256 points: phase 1 evaluates exp and log and writes the residual
// and the columns of the Jacobian, phase 2 accumulates J'WJ, J'psi and the cost. Starts run on
// block medians first ("coarse"); the distinct good optima are polished on all points.
#include "fit.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"
#include "vmath.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kP = kFitParameters;
constexpr std::int64_t kBlock = 256;
constexpr std::int64_t kSlots = 32;  // values that a block median sorts
constexpr std::int64_t kKept = 3;    // optima polished on all points
constexpr double kWorse = 1.3;       // an optimum this much worse than the best is dropped
constexpr double kSame = 0.02;       // distance of optima, relative to the cost
constexpr double kCoarseTolerance = 1e-4;
constexpr std::int64_t kCoarseIterations = 40;

// Columns of the Jacobian: which of the model's parameters a pass differentiates for.
enum Shape : int {
  kShapeFull,    // log_eps1, m, b, q
  kShapeScale,   // log_eps1, m, b, q, scale
  kShapeFloor,   // log_eps1, m, b, q, eps2, scale
  kShapeTail,    // b, q, scale: the first term is known
  kShapePower,   // e, a, alpha: log(x + x0) is known
  kShapePower0,  // e, a, alpha, x0
};

// Usable points, padded to whole vectors.
struct Data {
  std::int64_t n;
  double* x;
  double* y;
  double* s;    // log2(eta + eps2), or log2(x + x0)
  double* eta;  // for kShapeFloor
  double* w;    // null: all 1
  double* a;    // the first term, for kShapeTail
};

struct Problem {
  Shape shape;
  bool normalized;
  bool linear_scale;  // scale multiplies the model: parameter 5 of a curve
  bool centred;       // kPower: `a` is the amplitude at x = centre
  std::int64_t np;
  double lower[kP];
  double upper[kP];
  double cap[kP];  // longest step
  bool fixed[kP];
  double delta;
  double eta_end;
  double centre;
  double floor;  // of the cost: below it, only rounding
  double* buffer;
};

struct Eval {
  double cost;
  double g[kP];
  double h[kP][kP];
};

PLANNER_INLINE double first(const Vec& x) { return x.part[0][0]; }
double exp1(double x) { return first(vexp(vec(x))); }
double log1(double x) { return first(vlog(vec(x))); }
PLANNER_INLINE double least(double a, double b) { return b < a ? b : a; }
PLANNER_INLINE double most(double a, double b) { return b > a ? b : a; }
PLANNER_INLINE double magnitude(double x) { return __builtin_fabs(x); }
PLANNER_INLINE std::int64_t whole(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// --- phase 1: the residual and the columns of up to 256 points ---------------------------------

constexpr std::int64_t columns_of(Shape shape) {
  return shape == kShapeFull || shape == kShapePower0 ? 4
         : shape == kShapeScale                       ? 5
         : shape == kShapeFloor                       ? 6
                                                      : 3;
}

// What the points share. Logarithms are those of base 2: a power is then 2^(m log2 x), which needs
// no reduction by ln 2.
struct Shared {
  double eps1, top, ratio;  // top: log2(1 + eps1); ratio: eps1 / (1 + eps1)
  double m, b, q, eps2, k;  // k: what multiplies the model
  double e, a, alpha, x0, log_ref, inverse_ref;
};

constexpr double kLn2 = 0.6931471805599453;
// Exponents are kept below this, so that m log2 x stays below 2^51.
constexpr double kSteepest = 1e9;

PLANNER_INLINE void read(const double* from, Vec& to) { to = load(from); }
PLANNER_INLINE void write(double* to, const Vec& x) { store(to, x); }
PLANNER_INLINE void fill(double x, Vec& to) { to = vec(x); }

#if defined(__AVX512F__)
// Two vectors whose operations alternate: one chain of FMAs waits for itself.
struct Pair {
  Vec a;
  Vec b;
};

PLANNER_INLINE void read(const double* from, Pair& to) {
  to.a = load(from);
  to.b = load(from + kLanes);
}
PLANNER_INLINE void write(double* to, const Pair& x) {
  store(to, x.a);
  store(to + kLanes, x.b);
}
PLANNER_INLINE void fill(double x, Pair& to) { to = {vec(x), vec(x)}; }
PLANNER_INLINE Pair operator-(const Pair& x) { return {-x.a, -x.b}; }
#define PLANNER_PAIR(op)                                                                    \
  PLANNER_INLINE Pair operator op(const Pair& x, const Pair& y) {                           \
    return {x.a op y.a, x.b op y.b};                                                        \
  }                                                                                         \
  PLANNER_INLINE Pair operator op(const Pair& x, double y) { return {x.a op y, x.b op y}; } \
  PLANNER_INLINE Pair operator op(double x, const Pair& y) { return {x op y.a, x op y.b}; }
PLANNER_PAIR(+)
PLANNER_PAIR(-)
PLANNER_PAIR(*)
#undef PLANNER_PAIR
PLANNER_INLINE Pair fma(const Pair& x, const Pair& y, const Pair& z) {
  return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
}
PLANNER_INLINE Pair fma(const Pair& x, const Pair& y, double z) {
  return {fma(x.a, y.a, z), fma(x.b, y.b, z)};
}
PLANNER_INLINE Pair fma(const Pair& x, double y, const Pair& z) {
  return {fma(x.a, y, z.a), fma(x.b, y, z.b)};
}
PLANNER_INLINE Pair fma(const Pair& x, double y, double z) {
  return {fma(x.a, y, z), fma(x.b, y, z)};
}
PLANNER_INLINE Pair fnma(const Pair& x, const Pair& y, const Pair& z) {
  return {fnma(x.a, y.a, z.a), fnma(x.b, y.b, z.b)};
}
PLANNER_INLINE Pair fnma(const Pair& x, const Pair& y, double z) {
  return {fnma(x.a, y.a, z), fnma(x.b, y.b, z)};
}
PLANNER_INLINE Pair fnma(const Pair& x, double y, const Pair& z) {
  return {fnma(x.a, y, z.a), fnma(x.b, y, z.b)};
}
PLANNER_INLINE Pair at_least(const Pair& x, double y) {
  return {max(x.a, vec(y)), max(x.b, vec(y))};
}

PLANNER_INLINE Pair vrecip_rough(const Pair& x) { return {vrecip_rough(x.a), vrecip_rough(x.b)}; }
#endif
PLANNER_INLINE Vec at_least(const Vec& x, double y) { return max(x, vec(y)); }

// 2^r for |r| <= 1/2 to 6e-16. These polynomials are shorter than those of vmath.hpp: what is left
// out is far below the noise of any curve.
template <class V>
PLANNER_INLINE V exp2_reduced(const V& r) {
  V t = fma(r, 0x1.e5e9f593117cfp-28, 0x1.b6571e333b041p-24);
  t = fma(t, r, 0x1.62bfe460f6d14p-20);
  t = fma(t, r, 0x1.ffcb76785221bp-17);
  t = fma(t, r, 0x1.43091303784ebp-13);
  t = fma(t, r, 0x1.5d87fe908f9b7p-10);
  t = fma(t, r, 0x1.3b2ab6fba385fp-7);
  t = fma(t, r, 0x1.c6b08d7044119p-5);
  t = fma(t, r, 0x1.ebfbdff82c590p-3);
  t = fma(t, r, 0x1.62e42fefa39f7p-1);
  return fma(t, r, 1.0);
}

// p 2^n for p in 0.7 .. 1.42, any integer n of up to 2^51; `shifted` is n + kRound.
#if defined(__AVX512F__)
PLANNER_INLINE Vec scaled(const Vec& p, const Vec& n, const Vec&) {
  Vec out;
  out.part[0] = _mm512_scalef_pd(p.part[0], n.part[0]);
  return out;
}
PLANNER_INLINE Pair scaled(const Pair& p, const Pair& n, const Pair& shifted) {
  return {scaled(p.a, n.a, shifted.a), scaled(p.b, n.b, shifted.b)};
}
#else
// Out of line: what few arguments need. Only the second product rounds, as scalef does.
__attribute__((noinline)) void scale_far(const Vec& p, const Vec& any_n, Vec& out) noexcept {
  const Vec n = min(max(any_n, vec(-1080.0)), vec(1025.0));
  const Vec first = fma(n, 0.5, detail::kRound);
  const Vec second = (n - (first - detail::kRound)) + detail::kRound;
  constexpr std::int64_t ones = 0x3ff0000000000000;
  out = p * as_vec(shift_left(as_bits(first), 52) + ones) *
        as_vec(shift_left(as_bits(second), 52) + ones);
}

PLANNER_INLINE Vec scaled(const Vec& p, const Vec& n, const Vec& shifted) {
  if (__builtin_expect(every(abs(n) <= 1020.0), 1)) {
    return as_vec(as_bits(p) + shift_left(as_bits(shifted), 52));
  }
  Vec out;
  scale_far(p, n, out);
  return out;
}
#endif

// 2^(u by), |by| <= kSteepest.
template <class V>
PLANNER_INLINE V power_of_two(const V& u, double by) {
  const V shifted = fma(u, by, detail::kRound);
  const V n = shifted - detail::kRound;
  return scaled(exp2_reduced(fma(u, by, -n)), n, shifted);
}

PLANNER_INLINE void split(const Vec& x, Vec& m, Vec& k) { detail::split(x, m, k); }
#if defined(__AVX512F__)
PLANNER_INLINE void split(const Pair& x, Pair& m, Pair& k) {
  split(x.a, m.a, k.a);
  split(x.b, m.b, k.b);
}
#endif

// top - log2(x) for positive normal x; log2 to 2e-15 of itself. As vlog_normal.
template <class V>
PLANNER_INLINE V below(double top, const V& x) {
  V m;
  V k;
  split(x, m, k);
  const V f = m - 1.0;
  const V d = m + 1.0;
  V y = fma(fma(d, 0.10670556973896733, -0.6802480070859167), d, 1.4342729119991664);
  const V e = fnma(d, y, 1.0);
  y = fma(y, fma(e, e, e), y);
  V s = f * y;
  s = fma(fnma(d, s, f), y, s);
  const V z = s * s;
  V q = fma(z, 0x1.010e4a2058ce5p-2, 0x1.0aecdf019819bp-2);
  q = fma(q, z, 0x1.4856eee99177dp-2);
  q = fma(q, z, 0x1.a61737e345077p-2);
  q = fma(q, z, 0x1.2776c5339ae37p-1);
  q = fma(q, z, 0x1.ec709dc388c36p-1);
  q = fma(q, z, 0x1.71547652b8308p+1);
  return fnma(s, q, top - k);
}

// The logarithm of the first term and its derivative, in a loop of their own: short chains overlap
// better than the long one of a logarithm and then an exponential.
template <class V>
PLANNER_INLINE void logarithms_at(const Data& data, const Shared& t, std::int64_t at, double* out) {
  V x;
  read(data.x + at, x);
  const V te = x + t.eps1;
  V ratio;
  fill(t.ratio, ratio);
  write(out, fnma(vrecip_rough(te), t.eps1, ratio));
  write(out + kBlock, below(t.top, te));
}

// V is a vector or a pair of them.
template <Shape kShape, class V>
PLANNER_INLINE void columns_at(const Data& data, const Shared& t, std::int64_t at, double* out) {
  constexpr std::int64_t N = columns_of(kShape);
  V y;
  read(data.y + at, y);
  if constexpr (kShape == kShapePower || kShape == kShapePower0) {
    V u;
    V w;
    if constexpr (kShape == kShapePower) {
      read(data.s + at, u);
      u = u - t.log_ref;
    } else {
      read(data.x + at, w);
      w = w + t.x0;
      u = -below(t.log_ref, w);
    }
    const V p = power_of_two(u, -t.alpha);
    V ones;
    fill(1.0, ones);
    write(out, ones);
    write(out + kBlock, p);
    write(out + 2 * kBlock, p * u);
    if constexpr (kShape == kShapePower0) {
      write(out + 3 * kBlock, p * (vrecip_rough(w) - t.inverse_ref));
    }
    write(out + N * kBlock, fma(p, t.a, t.e - y));
  } else {
    constexpr bool tail = kShape == kShapeTail;
    constexpr int head = tail ? 0 : 2;
    V a;
    if constexpr (tail) {
      read(data.a + at, a);
    } else {
      V slope;
      V u;
      read(out, slope);
      read(out + kBlock, u);
      a = power_of_two(u, t.m);
      write(out, a * slope);
      write(out + kBlock, a * u);
    }
    V s;
    V floor;
    if constexpr (kShape == kShapeFloor) {
      read(data.eta + at, floor);
      floor = at_least(floor + t.eps2, kFitEtaFloor);
      s = -below(0.0, floor);
    } else {
      read(data.s + at, s);
    }
    const V p = power_of_two(s, t.q);
    write(out + head * kBlock, p);
    write(out + (head + 1) * kBlock, p * s);
    if constexpr (kShape == kShapeFloor) write(out + 4 * kBlock, p * vrecip_rough(floor));
    const V f = fma(p, t.b, a);
    if constexpr (kShape != kShapeFull) write(out + (N - 1) * kBlock, f);
    write(out + N * kBlock, fma(f, t.k, -y));
  }
}

template <Shape kShape>
__attribute__((noinline)) void phase1(const Data& points, const Shared& shared, std::int64_t begin,
                                      std::int64_t count, double* out) {
  constexpr std::int64_t N = columns_of(kShape);
  const Shared t = shared;  // copies: what is stored to `out` cannot change them
  const Data data = points;
  const std::int64_t padded = whole(count);
  std::int64_t i = 0;
  if constexpr (kShape == kShapeFull || kShape == kShapeScale || kShape == kShapeFloor) {
#if defined(__AVX512F__)
    for (; i + 2 * kLanes <= padded; i += 2 * kLanes) {
      logarithms_at<Pair>(data, t, begin + i, out + i);
    }
#endif
    for (; i < padded; i += kLanes) logarithms_at<Vec>(data, t, begin + i, out + i);
  }
  i = 0;
#if defined(__AVX512F__)
  for (; i + 2 * kLanes <= padded; i += 2 * kLanes) {
    columns_at<kShape, Pair>(data, t, begin + i, out + i);
  }
#endif
  for (; i < padded; i += kLanes) columns_at<kShape, Vec>(data, t, begin + i, out + i);
  for (i = count; i < padded; ++i) {
    for (std::int64_t c = 0; c <= N; ++c) out[c * kBlock + i] = 0.0;
  }
}

void phase1_any(Shape shape, const Data& data, const Shared& t, std::int64_t begin,
                std::int64_t count, double* out) {
  switch (shape) {
    case kShapeFull:
      return phase1<kShapeFull>(data, t, begin, count, out);
    case kShapeScale:
      return phase1<kShapeScale>(data, t, begin, count, out);
    case kShapeFloor:
      return phase1<kShapeFloor>(data, t, begin, count, out);
    case kShapeTail:
      return phase1<kShapeTail>(data, t, begin, count, out);
    case kShapePower:
      return phase1<kShapePower>(data, t, begin, count, out);
    case kShapePower0:
      return phase1<kShapePower0>(data, t, begin, count, out);
  }
}

// --- phase 2: sums over the points, register by register ---------------------------------------

PLANNER_INLINE void add_to(double* to, Doubles x) {
  const Doubles r = load_register(to) + x;
  __builtin_memcpy(to, &r, sizeof r);
}

constexpr int kSums = 28;  // cost, six of g, 21 of h

// b < a ? b : a and b > a ? b : a; a NaN in `a` stays.
PLANNER_INLINE Doubles smaller(Doubles a, Doubles b) {
#if defined(__AVX512F__)
  return _mm512_min_pd(b, a);
#elif defined(__AVX__)
  return _mm256_min_pd(b, a);
#elif defined(__SSE2__)
  return _mm_min_pd(b, a);
#else
  return b < a ? b : a;
#endif
}
PLANNER_INLINE Doubles larger(Doubles a, Doubles b) {
#if defined(__AVX512F__)
  return _mm512_max_pd(b, a);
#elif defined(__AVX__)
  return _mm256_max_pd(b, a);
#elif defined(__SSE2__)
  return _mm_max_pd(b, a);
#else
  return b > a ? b : a;
#endif
}

// Rows of h, lower triangle: (i, j) is at 7 + i (i + 1) / 2 + j.
template <int N, bool kIrls>
__attribute__((noinline)) void phase2(const double* columns, const double* w, std::int64_t count,
                                      double delta, double* totals) {
  const Doubles top = Doubles{} + delta;
  for (std::int64_t lane = 0; lane < kLanes; lane += kWidth) {
    Doubles c = {}, g0 = {}, g1 = {}, g2 = {}, g3 = {}, g4 = {}, g5 = {};
    Doubles h00 = {}, h10 = {}, h11 = {}, h20 = {}, h21 = {}, h22 = {}, h30 = {}, h31 = {};
    Doubles h32 = {}, h33 = {}, h40 = {}, h41 = {}, h42 = {}, h43 = {}, h44 = {}, h50 = {};
    Doubles h51 = {}, h52 = {}, h53 = {}, h54 = {}, h55 = {};
    for (std::int64_t i = lane; i < count; i += kLanes) {
      const double* const at = columns + i;
      const Doubles r = load_register(at + N * kBlock);
      Doubles psi = smaller(larger(r, -top), top);
      const Doubles twice = r + (r - psi);  // 2 r - psi
      const Longs inside = reinterpret_cast<Longs>(psi == r);
      Doubles weight = inside ? Doubles{} + 1.0 : (kIrls ? psi / r : Doubles{});
      if (w != nullptr) {
        const Doubles given = load_register(w + i);
        psi = psi * given;
        weight = weight * given;
      }
      c = fused(psi, twice, c);
      const Doubles j0 = load_register(at);
      const Doubles j1 = load_register(at + kBlock);
      const Doubles j2 = load_register(at + 2 * kBlock);
      const Doubles p0 = weight * j0;
      const Doubles p1 = weight * j1;
      const Doubles p2 = weight * j2;
      g0 = fused(psi, j0, g0);
      g1 = fused(psi, j1, g1);
      g2 = fused(psi, j2, g2);
      h00 = fused(p0, j0, h00);
      h10 = fused(p1, j0, h10);
      h11 = fused(p1, j1, h11);
      h20 = fused(p2, j0, h20);
      h21 = fused(p2, j1, h21);
      h22 = fused(p2, j2, h22);
      if constexpr (N > 3) {
        const Doubles j3 = load_register(at + 3 * kBlock);
        const Doubles p3 = weight * j3;
        g3 = fused(psi, j3, g3);
        h30 = fused(p3, j0, h30);
        h31 = fused(p3, j1, h31);
        h32 = fused(p3, j2, h32);
        h33 = fused(p3, j3, h33);
        if constexpr (N > 4) {
          const Doubles j4 = load_register(at + 4 * kBlock);
          const Doubles p4 = weight * j4;
          g4 = fused(psi, j4, g4);
          h40 = fused(p4, j0, h40);
          h41 = fused(p4, j1, h41);
          h42 = fused(p4, j2, h42);
          h43 = fused(p4, j3, h43);
          h44 = fused(p4, j4, h44);
          if constexpr (N > 5) {
            const Doubles j5 = load_register(at + 5 * kBlock);
            const Doubles p5 = weight * j5;
            g5 = fused(psi, j5, g5);
            h50 = fused(p5, j0, h50);
            h51 = fused(p5, j1, h51);
            h52 = fused(p5, j2, h52);
            h53 = fused(p5, j3, h53);
            h54 = fused(p5, j4, h54);
            h55 = fused(p5, j5, h55);
          }
        }
      }
    }
    double* const to = totals + lane;
    const Doubles sums[kSums] = {c,   g0,  g1,  g2,  g3,  g4,  g5,  h00, h10, h11,
                                 h20, h21, h22, h30, h31, h32, h33, h40, h41, h42,
                                 h43, h44, h50, h51, h52, h53, h54, h55};
    constexpr int last = 7 + N * (N + 1) / 2;
#pragma GCC unroll 28
    for (int k = 0; k < last; ++k) {
      if (k > N && k < 7) continue;
      add_to(to + k * kLanes, sums[k]);
    }
  }
}

template <bool kIrls>
void sums(int n, const double* columns, const double* w, std::int64_t count, double delta,
          double* totals) {
  switch (n) {
    case 3:
      return phase2<3, kIrls>(columns, w, count, delta, totals);
    case 4:
      return phase2<4, kIrls>(columns, w, count, delta, totals);
    case 5:
      return phase2<5, kIrls>(columns, w, count, delta, totals);
    default:
      return phase2<6, kIrls>(columns, w, count, delta, totals);
  }
}

// --- the pass ----------------------------------------------------------------------------------

// theta -> what the points share, and how the columns become derivatives: the derivative for
// parameter p is times[p] * column[p] + through[p] * (the scale's column).
struct Mapping {
  int column[kP];
  double times[kP];
  double through[kP];
  int scale_column;  // -1: none
};

void prepare(const Problem& problem, const double* theta, Shared& t, Mapping& map) {
  t = {};
  for (std::int64_t p = 0; p < kP; ++p) {
    map.column[p] = -1;
    map.times[p] = 0.0;
    map.through[p] = 0.0;
  }
  map.scale_column = -1;
  if (problem.np == 4) {
    t.e = theta[0];
    t.a = theta[1];
    t.alpha = theta[2];
    t.x0 = theta[3];
    if (problem.centred) {
      const double ref = problem.centre + t.x0;
      t.log_ref = log1(ref) * detail::kLog2E;
      t.inverse_ref = 1.0 / ref;
    }
    for (int p = 0; p < 4; ++p) map.column[p] = p;
    if (problem.shape == kShapePower) map.column[3] = -1;
    map.times[0] = 1.0;
    map.times[1] = 1.0;
    map.times[2] = -t.a * kLn2;
    map.times[3] = -t.alpha * t.a;
    return;
  }
  t.m = theta[1];
  t.b = theta[2];
  t.q = theta[3];
  t.eps2 = theta[4];
  t.k = theta[5];
  if (problem.shape != kShapeTail) {
    t.eps1 = exp1(theta[0]);
    t.top = first(vlog1p(vec(t.eps1))) * detail::kLog2E;
    t.ratio = t.eps1 / (1.0 + t.eps1);
  }
  switch (problem.shape) {
    case kShapeFull:
    case kShapeScale:
    case kShapeFloor:
      for (int p = 0; p < 4; ++p) map.column[p] = p;
      if (problem.shape == kShapeScale) map.scale_column = 4;
      if (problem.shape == kShapeFloor) {
        map.column[4] = 4;
        map.scale_column = 5;
      }
      break;
    default:
      map.column[2] = 0;
      map.column[3] = 1;
      map.scale_column = 2;
  }
  double inverse = 1.0;
  if (problem.normalized) {
    const double floor = most(problem.eta_end + t.eps2, kFitEtaFloor);
    const double s = log1(floor);
    const double p = exp1(t.q * s);
    inverse = 1.0 / (1.0 + t.b * p);
    const double slope = -t.k * inverse * inverse;
    map.through[2] = slope * p;
    map.through[3] = slope * t.b * p * s;
    map.through[4] = slope * t.b * t.q * p / floor;
    t.k *= inverse;
  }
  map.through[5] = inverse;
  map.times[0] = t.k * t.m;
  map.times[1] = t.k * kLn2;
  map.times[2] = t.k;
  map.times[3] = t.k * t.b * kLn2;
  map.times[4] = t.k * t.b * t.q;
}

// Value, gradient and Hessian (J'WJ, with the weights min(1, delta/|r|) of iterated least squares
// or those of Newton's method: 1 inside delta, 0 outside).
void evaluate(const Problem& problem, const Data& data, const double* theta, double delta,
              bool irls, Eval& out) {
  Shared t;
  Mapping map;
  prepare(problem, theta, t, map);
  alignas(64) double totals[kSums * kLanes] = {};
  const auto n = static_cast<int>(columns_of(problem.shape));
  for (std::int64_t begin = 0; begin < data.n; begin += kBlock) {
    const std::int64_t count = data.n - begin < kBlock ? data.n - begin : kBlock;
    phase1_any(problem.shape, data, t, begin, count, problem.buffer);
    const double* const w = data.w == nullptr ? nullptr : data.w + begin;
    (irls ? sums<true> : sums<false>)(n, problem.buffer, w, whole(count), delta, totals);
  }
  out.cost = 0.5 * sum(load(totals));
  double g[kP];
  double h[kP][kP];
  for (int i = 0; i < n; ++i) {
    g[i] = sum(load(totals + (1 + i) * kLanes));
    for (int j = 0; j <= i; ++j) {
      h[i][j] = h[j][i] = sum(load(totals + (7 + i * (i + 1) / 2 + j) * kLanes));
    }
  }
  const int scale = map.scale_column;
  for (std::int64_t p = 0; p < problem.np; ++p) {
    if (problem.fixed[p]) continue;
    const int a = map.column[p];
    const bool plain = map.through[p] == 0.0 || scale < 0;
    out.g[p] = (a < 0 ? 0.0 : map.times[p] * g[a]) + (plain ? 0.0 : map.through[p] * g[scale]);
    for (std::int64_t o = 0; o <= p; ++o) {
      if (problem.fixed[o]) continue;
      const int b = map.column[o];
      double x = a < 0 || b < 0 ? 0.0 : map.times[p] * map.times[o] * h[a][b];
      if (scale >= 0) {
        if (a >= 0) x += map.times[p] * map.through[o] * h[a][scale];
        if (b >= 0) x += map.through[p] * map.times[o] * h[scale][b];
        x += map.through[p] * map.through[o] * h[scale][scale];
      }
      out.h[p][o] = out.h[o][p] = x;
    }
  }
}

// --- small linear algebra ----------------------------------------------------------------------

// A = L L' in place, lower triangle. A pivot lost to rounding gets infinity: that unknown stays 0.
// False if there was one.
bool factor(double (*a)[kP], int n) {
  bool whole_rank = true;
  for (int j = 0; j < n; ++j) {
    double d = a[j][j];
    const double before = d;
    for (int k = 0; k < j; ++k) d -= a[j][k] * a[j][k];
    if (!(d > 1e-15 * before) || !(d > 1e-300)) {
      whole_rank = false;
      a[j][j] = kInf;
      for (int i = j + 1; i < n; ++i) a[i][j] = 0.0;
      continue;
    }
    const double root = __builtin_sqrt(d);
    const double inverse = 1.0 / root;
    a[j][j] = root;
    for (int i = j + 1; i < n; ++i) {
      double x = a[i][j];
      for (int k = 0; k < j; ++k) x -= a[i][k] * a[j][k];
      a[i][j] = x * inverse;
    }
  }
  return whole_rank;
}

void solve(const double (*l)[kP], int n, double* x) {
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) x[i] -= l[i][k] * x[k];
    x[i] /= l[i][i];
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int k = i + 1; k < n; ++k) x[i] -= l[k][i] * x[k];
    x[i] /= l[i][i];
  }
}

// --- Levenberg-Marquardt inside bounds ---------------------------------------------------------

PLANNER_INLINE bool held(const Problem& problem, const double* theta, const Eval& at, int p) {
  return problem.fixed[p] || (theta[p] <= problem.lower[p] && at.g[p] >= 0.0) ||
         (theta[p] >= problem.upper[p] && at.g[p] <= 0.0);
}

// The damped step; a parameter that would leave its bounds goes to the bound, and the others are
// solved for again. Returns the drop of the cost that the quadratic model predicts.
double step(const Problem& problem, const double* theta, const Eval& at, double lambda, double* d) {
  const auto np = static_cast<int>(problem.np);
  int list[kP];
  int n = 0;
  bool moved[kP] = {};
  for (int p = 0; p < np; ++p) {
    d[p] = 0.0;
    if (!held(problem, theta, at, p)) list[n++] = p;
  }
  while (n > 0) {
    double a[kP][kP];
    double x[kP];
    for (int i = 0; i < n; ++i) {
      const int p = list[i];
      x[i] = -at.g[p];
      for (int o = 0; o < np; ++o) {
        if (moved[o]) x[i] -= at.h[p][o] * d[o];
      }
      for (int j = 0; j < i; ++j) a[i][j] = at.h[p][list[j]];
      a[i][i] = at.h[p][p] * (1.0 + lambda);
    }
    factor(a, n);
    solve(a, n, x);
    int left = 0;
    for (int i = 0; i < n; ++i) {
      const int p = list[i];
      d[p] = x[i];
      if (theta[p] + x[i] < problem.lower[p]) {
        d[p] = problem.lower[p] - theta[p];
        moved[p] = true;
      } else if (theta[p] + x[i] > problem.upper[p]) {
        d[p] = problem.upper[p] - theta[p];
        moved[p] = true;
      } else {
        list[left++] = p;
      }
    }
    if (left == n) break;
    n = left;
  }
  double shrink = 1.0;
  for (int p = 0; p < np; ++p) {
    if (magnitude(d[p]) * shrink > problem.cap[p]) shrink = problem.cap[p] / magnitude(d[p]);
  }
  double drop = 0.0;
  for (int p = 0; p < np; ++p) d[p] *= shrink;
  for (int p = 0; p < np; ++p) {
    if (d[p] == 0.0) continue;
    double hd = 0.0;
    for (int o = 0; o < np; ++o) {
      if (d[o] != 0.0) hd += at.h[p][o] * d[o];
    }
    drop -= d[p] * (at.g[p] + 0.5 * hd);
  }
  return drop;
}

enum class Outcome { kConverged, kMaxIterations, kStalled, kNonFinite, kAbandoned };

struct Run {
  double theta[kP];
  Eval at;
  Outcome outcome;
  std::int64_t evaluations;
  std::int64_t iterations;
};

// Whether the quadratic model around an optimum sees little difference between it and theta.
bool close_to(const Problem& problem, const Run& optimum, const double* theta) {
  double form = 0.0;
  for (int p = 0; p < problem.np; ++p) {
    if (problem.fixed[p]) continue;
    for (int o = 0; o < problem.np; ++o) {
      if (problem.fixed[o]) continue;
      form += (optimum.theta[p] - theta[p]) * optimum.at.h[p][o] * (optimum.theta[o] - theta[o]);
    }
  }
  return 0.5 * form <= kSame * optimum.at.cost;
}

bool same_optimum(const Problem& problem, const Run& a, const Run& b) {
  const bool a_better = a.at.cost < b.at.cost;
  const Run& better = a_better ? a : b;
  if (magnitude(a.at.cost - b.at.cost) <= 1e-3 * better.at.cost) return true;
  return close_to(problem, better, a_better ? b.theta : a.theta);
}

// Optima found before, best first, that make a run not worth finishing.
struct Rivals {
  const Run* runs;
  std::int64_t n;
  double worse;  // abandon what will end above this times the best rival
  bool same;     // and what is about to end where a rival did
};

// Whether a run that can expect this much of a drop will not matter.
bool hopeless(const Problem& problem, const Rivals& rivals, const Run& run, double drop,
              bool irls) {
  if (rivals.n == 0 || !(drop <= 0.02 * run.at.cost)) return false;
  const double best = rivals.runs[0].at.cost;
  if (!irls && run.at.cost - 4.0 * drop > rivals.worse * best + problem.floor) return true;
  for (std::int64_t i = 0; rivals.same && i < rivals.n; ++i) {
    const Run& rival = rivals.runs[i];
    if (run.at.cost >= rival.at.cost && run.at.cost - 4.0 * drop <= 1.001 * rival.at.cost &&
        close_to(problem, rival, run.theta)) {
      return true;
    }
  }
  return false;
}

void minimize(const Problem& problem, const Data& data, double ftol, std::int64_t max_iterations,
              bool irls, double lambda, const Rivals& rivals, Run& run) {
  run.evaluations = 1;
  run.iterations = 0;
  run.outcome = Outcome::kMaxIterations;
  evaluate(problem, data, run.theta, problem.delta, irls, run.at);
  if (!(run.at.cost < 1e300)) {
    run.outcome = Outcome::kNonFinite;
    return;
  }
  bool tried_irls = irls;
  Eval trial;
  while (run.iterations < max_iterations) {
    double d[kP];
    const double drop = step(problem, run.theta, run.at, lambda, d);
    if (!(drop >= 0.0) && lambda < 1e13) {
      lambda = most(lambda, 1e-4) * 8.0;  // a bound, reached on the way, made the step a bad one
      continue;
    }
    const double enough = ftol * run.at.cost + problem.floor;
    if (!(drop > enough) && !(drop > 1e-3 * enough && lambda > 1.0)) {
      bool flat = false;  // Newton's weights saw no point inside delta
      for (int p = 0; p < problem.np; ++p) {
        flat = flat || (!held(problem, run.theta, run.at, p) && run.at.h[p][p] == 0.0 &&
                        run.at.g[p] != 0.0);
      }
      if (flat && !tried_irls) {
        tried_irls = irls = true;
        evaluate(problem, data, run.theta, problem.delta, irls, run.at);
        ++run.evaluations;
        continue;
      }
      run.outcome = Outcome::kConverged;
      return;
    }
    if (lambda <= 1.0 && hopeless(problem, rivals, run, drop, irls)) {
      run.outcome = Outcome::kAbandoned;
      return;
    }
    double next[kP];
    for (int p = 0; p < problem.np; ++p) {
      next[p] = least(most(run.theta[p] + d[p], problem.lower[p]), problem.upper[p]);
    }
    evaluate(problem, data, next, problem.delta, irls, trial);
    ++run.evaluations;
    ++run.iterations;
    if (trial.cost < run.at.cost) {
      if (irls && run.at.cost - trial.cost < 0.05 * run.at.cost) irls = false;
      for (int p = 0; p < problem.np; ++p) run.theta[p] = next[p];
      run.at = trial;
      lambda = most(lambda * 0.1, 1e-14);
    } else {
      lambda = lambda * 8.0;
      if (lambda > 1e13) {
        run.outcome = Outcome::kStalled;
        return;
      }
    }
  }
}

// --- points ------------------------------------------------------------------------------------

// Copies the usable points of a curve; returns whether x never decreases.
bool compact(const FitArgs& args, const Problem& problem, std::int64_t curve, Data& data) {
  const std::int64_t from = args.offsets[curve];
  const std::int64_t points = args.offsets[curve + 1] - from;
  const bool power = args.model == FitModel::kPower;
  const double* const y = args.y + from;
  const double* const x = args.x + from;
  const double* const eta = power ? nullptr : args.eta + from;
  const double* const w = args.weights == nullptr ? nullptr : args.weights + from;
  // Where x0 is fixed, a point is usable if x + x0 > 0.
  const double low = !power ? 0.0 : problem.fixed[3] ? 1e-290 - problem.lower[3] : -1e100;
  const double high = power ? 1e100 : 1e6;
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < points; i += kLanes) {
    const std::int64_t count = points - i < kLanes ? points - i : kLanes;
    const bool full = count == kLanes;
    const Vec vy = full ? load(y + i) : load_tail(y + i, count, kNan);
    const Vec vx = full ? load(x + i) : load_tail(x + i, count, kNan);
    Bits ok = usable(vy) & (vx >= low) & (vx <= high);
    Vec ve = vec(1.0);
    Vec vw = vec(1.0);
    if (eta != nullptr) {
      ve = full ? load(eta + i) : load_tail(eta + i, count, kNan);
      ok = ok & (ve >= 0.0) & (ve <= 1e100);
    }
    if (w != nullptr) {
      vw = full ? load(w + i) : load_tail(w + i, count, kNan);
      ok = ok & (vw > 0.0) & (vw <= 1e100);
    }
    const unsigned mask = lanes(ok);
    store(data.y + n, vy);
    store(data.x + n, vx);
    if (data.eta != nullptr) store(data.eta + n, ve);
    if (data.w != nullptr) store(data.w + n, vw);
    if (mask != 0xff) {
      double ly[kLanes], lx[kLanes], le[kLanes], lw[kLanes];
      store(ly, vy);
      store(lx, vx);
      store(le, ve);
      store(lw, vw);
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        data.y[n] = ly[lane];
        data.x[n] = lx[lane];
        if (data.eta != nullptr) data.eta[n] = le[lane];
        if (data.w != nullptr) data.w[n] = lw[lane];
        n += (mask >> lane) & 1;
      }
    } else {
      n += kLanes;
    }
  }
  data.n = n;
  bool sorted = true;
  for (std::int64_t i = 1; i < n; ++i) sorted &= data.x[i] >= data.x[i - 1];
  // Padding: any numbers that log() takes; their sums are dropped.
  for (std::int64_t i = n; i < whole(n); ++i) {
    data.y[i] = data.x[i] = 1.0;
    if (data.eta != nullptr) data.eta[i] = 1.0;
    if (data.w != nullptr) data.w[i] = 1.0;
  }
  return sorted;
}

// What is fixed is computed once: logarithms, and the first term.
void cache(const Problem& problem, Data& data) {
  const std::int64_t n = whole(data.n);
  if (problem.np == 4) {
    if (problem.shape == kShapePower0) return;
    for (std::int64_t i = 0; i < n; i += kLanes) {
      const Vec above = max(load(data.x + i) + problem.lower[3], vec(1e-300));
      store(data.s + i, vlog_normal(above) * detail::kLog2E);
    }
    return;
  }
  if (problem.shape != kShapeFloor) {
    for (std::int64_t i = 0; i < n; i += kLanes) {
      const Vec floor = max(load(data.eta + i) + problem.lower[4], vec(kFitEtaFloor));
      store(data.s + i, vlog_normal(floor) * detail::kLog2E);
    }
  }
  if (problem.shape == kShapeTail) {
    const double eps1 = exp1(problem.lower[0]);
    const double top = first(vlog1p(vec(eps1)));
    for (std::int64_t i = 0; i < n; i += kLanes) {
      store(data.a + i, vexp((top - vlog(load(data.x + i) + eps1)) * problem.lower[1]));
    }
  }
}

// Batcher's merge exchange on rows of eight lanes.
void sort_rows(double* rows, std::int64_t n) {
  std::int64_t top = 1;
  while (top < n) top *= 2;
  top /= 2;
  for (std::int64_t p = top; p > 0; p /= 2) {
    std::int64_t q = top;
    std::int64_t r = 0;
    std::int64_t d = p;
    for (;;) {
      for (std::int64_t i = 0; i + d < n; ++i) {
        if ((i & p) != r) continue;
        const Vec a = load(rows + i * kLanes);
        const Vec b = load(rows + (i + d) * kLanes);
        store(rows + i * kLanes, min(a, b));
        store(rows + (i + d) * kLanes, max(a, b));
      }
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
}

// At most kFitCoarse points: the median of y over blocks of consecutive points, at the middle x.
void thin(const Data& all, Data& few, double* rows) {
  std::int64_t slots = (all.n + kFitCoarse - 1) / kFitCoarse;
  const std::int64_t each = (slots + kSlots - 1) / kSlots;  // points a sorted value averages
  slots = (slots + each - 1) / each;
  const std::int64_t block = slots * each;
  const std::int64_t blocks = (all.n + block - 1) / block;
  few.n = blocks;
  for (std::int64_t begin = 0; begin < blocks; begin += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const std::int64_t b = begin + lane < blocks ? begin + lane : blocks - 1;
      const std::int64_t at = b * block + block <= all.n ? b * block : all.n - block;
      for (std::int64_t j = 0; j < slots; ++j) {
        double total = all.y[at + j * each];
        for (std::int64_t k = 1; k < each; ++k) total += all.y[at + j * each + k];
        rows[j * kLanes + lane] = each == 1 ? total : total / static_cast<double>(each);
      }
      const std::int64_t one = at + (block - 1) / 2;
      const std::int64_t two = at + block / 2;
      const std::int64_t to = begin + lane;
      few.x[to] = 0.5 * (all.x[one] + all.x[two]);
      few.s[to] = 0.5 * (all.s[one] + all.s[two]);
      if (few.eta != nullptr) few.eta[to] = 0.5 * (all.eta[one] + all.eta[two]);
      if (few.w != nullptr) few.w[to] = 0.5 * (all.w[one] + all.w[two]);
      few.a[to] = 0.5 * (all.a[one] + all.a[two]);
    }
    sort_rows(rows, slots);
    const Vec low = load(rows + (slots - 1) / 2 * kLanes);
    const Vec high = load(rows + slots / 2 * kLanes);
    store(few.y + begin, low + (high - low) * 0.5);
  }
}

// --- starts ------------------------------------------------------------------------------------

// The linear parameters that fit the data best by least squares, with the others as they are.
void solve_linear(const Problem& problem, const Data& data, const bool* linear, double* theta) {
  int list[kP];
  int n = 0;
  for (int p = 0; p < problem.np; ++p) {
    if (!linear[p] || problem.fixed[p]) continue;
    list[n++] = p;
    theta[p] = 0.0;
  }
  if (n == 0) return;
  Eval at;
  evaluate(problem, data, theta, kInf, false, at);
  double a[kP][kP];
  double x[kP];
  for (int i = 0; i < n; ++i) {
    x[i] = -at.g[list[i]];
    for (int j = 0; j <= i; ++j) a[i][j] = at.h[list[i]][list[j]];
  }
  factor(a, n);
  solve(a, n, x);
  for (int i = 0; i < n; ++i) {
    const int p = list[i];
    theta[p] = x[i] < 1e300 && x[i] > -1e300 ? x[i] : 1.0;
    theta[p] = least(most(theta[p], problem.lower[p]), problem.upper[p]);
  }
}

void start_from(const FitArgs& args, const Problem& problem, const Data& data, std::int64_t which,
                double span, double* theta) {
  bool linear[kP] = {};
  for (std::int64_t p = 0; p < problem.np; ++p) {
    double x = args.starts[which * problem.np + p];
    if (problem.np == 4 && p == 3)
      x = x * span + (problem.lower[3] > -1e99 ? problem.lower[3] : 0.0);
    linear[p] = x != x;
    if (linear[p]) x = 0.0;
    theta[p] = least(most(x, problem.lower[p]), problem.upper[p]);
  }
  solve_linear(problem, data, linear, theta);
}

// --- uncertainty -------------------------------------------------------------------------------

// Residuals of all points.
void residuals(const Problem& problem, const Data& data, const double* theta, double* out) {
  Shared t;
  Mapping map;
  prepare(problem, theta, t, map);
  const std::int64_t n = columns_of(problem.shape);
  for (std::int64_t begin = 0; begin < data.n; begin += kBlock) {
    const std::int64_t count = data.n - begin < kBlock ? data.n - begin : kBlock;
    phase1_any(problem.shape, data, t, begin, count, problem.buffer);
    __builtin_memcpy(out + begin, problem.buffer + n * kBlock,
                     static_cast<std::size_t>(count) * sizeof(double));
  }
}

PLANNER_INLINE double clip(double r, double delta) { return least(most(r, -delta), delta); }

// Lag-one autocorrelation of psi(r), shifted up by its small-sample bias.
double autocorrelation(const double* r, const double* w, std::int64_t n, double delta,
                       std::int64_t free) {
  double zero = 0.0;
  double one = 0.0;
  double last = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    double psi = clip(r[i], delta);
    if (w != nullptr) psi *= __builtin_sqrt(w[i]);
    zero += psi * psi;
    one += psi * last;
    last = psi;
  }
  if (!(zero > 0.0)) return 0.0;
  const double rho = one / zero;
  const double bias = (1.0 + static_cast<double>(free) + 3.0 * rho) / static_cast<double>(n);
  return least(most(rho + bias, -0.9), 0.97);
}

// H^-1 M H^-1 with H of Newton's weights and M the covariance of the scores when psi has a constant
// variance and autocorrelation rho^lag: Huber's sandwich for noise that is correlated along the
// curve. (Squares of the single scores instead are too small where few points carry a parameter, as
// the first ones do log_eps1.) Weights count as inverse variances. Rows of what the data do not
// determine are NaN. False if there is such a row.
bool sandwich(const Problem& problem, const Data& data, const Run& run, const double* r, double rho,
              double* cov) {
  const auto np = static_cast<int>(problem.np);
  int list[kP];
  int n = 0;
  for (int p = 0; p < np; ++p) {
    const bool at_bound = run.theta[p] <= problem.lower[p] || run.theta[p] >= problem.upper[p];
    if (!problem.fixed[p] && !at_bound) list[n++] = p;
    for (int o = 0; o < np; ++o) {
      cov[p * np + o] = problem.fixed[p] || problem.fixed[o] ? 0.0 : kNan;
    }
  }
  if (n == 0) return true;
  if (data.n <= n) return false;
  Shared t;
  Mapping map;
  prepare(problem, run.theta, t, map);
  const auto columns = static_cast<int>(columns_of(problem.shape));
  double meat[kP][kP] = {};
  double carried[kP] = {};  // sum over earlier points of rho^lag J
  double* const other = problem.buffer + (kP + 1) * kBlock;
  double variance = 0.0;
  for (std::int64_t begin = 0; begin < data.n; begin += kBlock) {
    const std::int64_t count = data.n - begin < kBlock ? data.n - begin : kBlock;
    const std::int64_t padded = whole(count);
    phase1_any(problem.shape, data, t, begin, count, problem.buffer);
    for (std::int64_t i = 0; i < count; ++i) {
      const double psi = clip(r[begin + i], problem.delta);
      variance += psi * psi * (data.w == nullptr ? 1.0 : data.w[begin + i]);
    }
    for (int c = 0; c < columns; ++c) {
      double* const column = problem.buffer + c * kBlock;
      double* const sums = other + c * kBlock;
      if (data.w != nullptr) {
        for (std::int64_t i = 0; i < padded; i += kLanes) {
          store(column + i, load(column + i) * sqrt(load(data.w + begin + i)));
        }
      }
      double carry = carried[c];
      for (std::int64_t i = 0; i < padded; ++i) {
        sums[i] = 0.5 * column[i] + carry;
        carry = rho * (carry + column[i]);
      }
      carried[c] = carry;
    }
    for (int a = 0; a < columns; ++a) {
      for (int b = 0; b < columns; ++b) {
        Vec total = vec(0.0);
        for (std::int64_t i = 0; i < padded; i += kLanes) {
          total = fma(load(problem.buffer + a * kBlock + i), load(other + b * kBlock + i), total);
        }
        const double x = sum(total);
        meat[a][b] += x;
        meat[b][a] += x;
      }
    }
  }
  double l[kP][kP];
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) l[i][j] = run.at.h[list[i]][list[j]];
  }
  if (!factor(l, n)) return false;
  const double factor_of = variance / static_cast<double>(data.n - n);
  double inner[kP][kP];
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      const int p = list[i];
      const int o = list[j];
      double x = 0.0;
      const int a = map.column[p];
      const int b = map.column[o];
      const int scale = map.scale_column;
      if (a >= 0 && b >= 0) x += map.times[p] * map.times[o] * meat[a][b];
      if (scale >= 0) {
        if (a >= 0) x += map.times[p] * map.through[o] * meat[a][scale];
        if (b >= 0) x += map.through[p] * map.times[o] * meat[scale][b];
        x += map.through[p] * map.through[o] * meat[scale][scale];
      }
      inner[i][j] = x * factor_of;
    }
  }
  // H^-1 from the left, then from the right (M is symmetric).
  for (int side = 0; side < 2; ++side) {
    for (int j = 0; j < n; ++j) {
      double x[kP];
      for (int i = 0; i < n; ++i) x[i] = inner[i][j];
      solve(l, n, x);
      for (int i = 0; i < n; ++i) inner[i][j] = x[i];
    }
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < i; ++j) {
        const double x = inner[i][j];
        inner[i][j] = inner[j][i];
        inner[j][i] = x;
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      const double x = 0.5 * (inner[i][j] + inner[j][i]);
      if (!(magnitude(x) < 1e300)) return false;
      cov[list[i] * np + list[j]] = x;
    }
  }
  return true;
}

// SplitMix64: the same numbers for a curve and a replicate, whichever thread draws them.
PLANNER_INLINE std::uint64_t draw(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// The power law's `a` at x = centre -> at x + x0 = 1.
void uncentre(const Problem& problem, double* theta, double* cov) {
  const double ref = problem.centre + theta[3];
  const double log_ref = log1(ref);
  const double times = exp1(theta[2] * log_ref);
  const double a = theta[1] * times;
  if (cov != nullptr) {
    const double j[4] = {0.0, times, a * log_ref, a * theta[2] / ref};
    for (int side = 0; side < 2; ++side) {
      for (int o = 0; o < 4; ++o) {
        const int by = side == 0 ? 4 : 1;
        double* const at = cov + (side == 0 ? o : 4 * o);
        double x = 0.0;
        for (int p = 1; p < 4; ++p) {
          if (!problem.fixed[p]) x += j[p] * at[p * by];
        }
        at[by] = x;
      }
    }
  }
  theta[1] = a;
}

// --- one curve ---------------------------------------------------------------------------------

struct Memory {
  Data all;
  Data few;
  double* rows;
  double* residual;
  double* drawn;
  double* buffer;
};

constexpr std::int64_t kFewPoints = kFitCoarse + kLanes;

PLANNER_INLINE std::int64_t stride_of(std::int64_t longest) { return whole(longest) + 2 * kLanes; }

std::int64_t scratch_size(std::int64_t longest) noexcept {
  return 8 * stride_of(longest) + 6 * kFewPoints + kSlots * kLanes + (2 * kP + 1) * kBlock;
}

void carve(double*& at, std::int64_t size, Data& data) {
  double** const arrays[] = {&data.x, &data.y, &data.s, &data.eta, &data.w, &data.a};
  for (double** const array : arrays) {
    *array = at;
    at += size;
  }
}

Status fit_curve(const FitArgs& args, std::int64_t curve, const Memory& memory) {
  Problem problem = {};
  problem.np = args.model == FitModel::kPower ? 4 : 6;
  problem.normalized = args.model == FitModel::kNormalized;
  problem.delta = args.delta[curve * args.delta_stride];
  problem.eta_end = problem.normalized ? args.eta_end[curve] : 0.0;
  problem.buffer = memory.buffer;
  const auto np = static_cast<int>(problem.np);
  constexpr double caps[2][kP] = {{2.5, 0.5, 1.0, 2.0, 0.2, kInf}, {kInf, kInf, 1.0, kInf}};
  int free = 0;
  for (int p = 0; p < np; ++p) {
    problem.lower[p] = args.lower[curve * args.bound_stride + p];
    problem.upper[p] = args.upper[curve * args.bound_stride + p];
    if (np == 4 ? p == 2 : p == 1 || p == 3) {
      problem.lower[p] = most(problem.lower[p], -kSteepest);
      problem.upper[p] = least(problem.upper[p], kSteepest);
    }
    problem.cap[p] = caps[np == 4][p];
    problem.fixed[p] = !(problem.lower[p] < problem.upper[p]);
    free += problem.fixed[p] ? 0 : 1;
  }
  const bool tail = problem.fixed[0] && problem.fixed[1];
  if (np == 4) {
    problem.shape = problem.fixed[3] ? kShapePower : kShapePower0;
  } else if (!problem.fixed[4]) {
    problem.shape = kShapeFloor;
  } else if (tail) {
    problem.shape = kShapeTail;
  } else {
    problem.shape = problem.fixed[5] && !problem.normalized ? kShapeFull : kShapeScale;
  }

  args.objective[curve] = kNan;
  args.evaluations[curve] = args.coarse_evaluations[curve] = args.iterations[curve] = 0;
  args.n_points[curve] = 0;
  double* const theta = args.theta + curve * np;
  for (int p = 0; p < np; ++p) theta[p] = kNan;
  double* const cov = args.cov == nullptr ? nullptr : args.cov + curve * np * np;
  if (cov != nullptr) {
    for (int p = 0; p < np * np; ++p) cov[p] = kNan;
    args.autocorrelation[curve] = kNan;
  }
  double* const samples =
      args.samples == nullptr ? nullptr : args.samples + curve * args.replicates * np;
  for (std::int64_t i = 0; samples != nullptr && i < args.replicates * np; ++i) samples[i] = kNan;

  const std::int64_t points = args.offsets[curve + 1] - args.offsets[curve];
  if (points == 0) return Status::kEmpty;
  Data all = memory.all;
  if (args.weights == nullptr) all.w = nullptr;
  if (np == 4) all.eta = nullptr;
  const bool sorted = compact(args, problem, curve, all);
  args.n_points[curve] = all.n;
  if (all.n == 0) return Status::kNonFinite;
  if (all.n < free) return Status::kTooFewPoints;

  double low = kInf;
  double high = -kInf;
  double size = 0.0;
  for (std::int64_t i = 0; i < all.n; ++i) {
    low = least(low, all.x[i]);
    high = most(high, all.x[i]);
    size = most(size, magnitude(all.y[i]));
  }
  const double span = high > low ? high - low : most(magnitude(high), 1.0);
  problem.floor = 1e-31 * static_cast<double>(all.n) * least(size, 1e140) * least(size, 1e140);
  if (np == 4) {
    if (!problem.fixed[3]) {
      problem.lower[3] = most(problem.lower[3], 1e-6 * span - low);
      if (!(problem.lower[3] < problem.upper[3])) return Status::kNonFinite;
      problem.cap[3] = span;
    }
    problem.centred = problem.lower[1] == -kInf && problem.upper[1] == kInf;
    problem.centre = 0.5 * (low + high);
  }
  cache(problem, all);

  const bool two_level = !args.brute && sorted && all.n > kFitCoarse;
  Data few = all;
  if (two_level) {
    few = memory.few;
    if (all.w == nullptr) few.w = nullptr;
    if (all.eta == nullptr) few.eta = nullptr;
    thin(all, few, memory.rows);
  }

  // All starts; of those that came out distinct and good, the best few, best first.
  Run kept[kKept];
  std::int64_t n_kept = 0;
  std::int64_t spent = 0;
  const double ftol = args.brute ? args.ftol : kCoarseTolerance;
  for (std::int64_t which = 0; which < args.n_starts; ++which) {
    // The first few are enough for a thinned curve, unless they disagree or most residuals are
    // beyond delta: there are more optima then.
    if (two_level && which == args.n_thin_starts && n_kept == 1) {
      residuals(problem, few, kept[0].theta, memory.residual);
      std::int64_t beyond = 0;
      for (std::int64_t i = 0; i < few.n; ++i) {
        beyond += magnitude(memory.residual[i]) > problem.delta ? 1 : 0;
      }
      if (2 * beyond <= few.n) break;
    }
    Run run;
    start_from(args, problem, few, which, span, run.theta);
    const Rivals rivals = {kept, args.brute ? 0 : n_kept, kWorse, true};
    minimize(problem, few, ftol, args.brute ? args.max_iterations : kCoarseIterations, true, 1e-3,
             rivals, run);
    spent += run.evaluations;
    if (run.outcome == Outcome::kNonFinite || run.outcome == Outcome::kAbandoned) continue;
    bool same = false;
    for (std::int64_t i = 0; i < n_kept && !same; ++i) {
      if (!same_optimum(problem, kept[i], run)) continue;
      same = true;
      if (run.at.cost < kept[i].at.cost) kept[i] = run;
    }
    if (same) continue;
    std::int64_t at = n_kept < kKept ? n_kept++ : kKept;
    if (at == kKept) {
      if (!(run.at.cost < kept[kKept - 1].at.cost)) continue;
      at = kKept - 1;
    }
    for (; at > 0 && run.at.cost < kept[at - 1].at.cost; --at) kept[at] = kept[at - 1];
    kept[at] = run;
  }
  (two_level ? args.coarse_evaluations : args.evaluations)[curve] = spent;
  if (n_kept == 0) return Status::kNonFinite;
  std::int64_t winner = 0;
  for (std::int64_t i = 1; i < n_kept; ++i) {
    if (kept[i].at.cost < kept[winner].at.cost) winner = i;
  }
  if (!args.brute) {
    const double limit = kWorse * kept[winner].at.cost + problem.floor;
    std::int64_t best = -1;
    for (std::int64_t i = 0; i < n_kept; ++i) {
      Run& run = kept[i];
      if (!(run.at.cost <= limit)) continue;
      const Rivals rivals = {best < 0 ? kept : kept + best, best < 0 ? 0 : 1, 1.0, false};
      minimize(problem, all, args.ftol, args.max_iterations, false, 1e-6, rivals, run);
      args.evaluations[curve] += run.evaluations;
      if (run.outcome == Outcome::kNonFinite || run.outcome == Outcome::kAbandoned) continue;
      if (best < 0 || run.at.cost < kept[best].at.cost) best = i;
    }
    if (best < 0) return Status::kNonFinite;
    winner = best;
  }
  Run& run = kept[winner];
  args.objective[curve] = run.at.cost;
  args.iterations[curve] = run.iterations;
  for (int p = 0; p < np; ++p) theta[p] = run.theta[p];

  bool at_bound = false;
  for (int p = 0; p < np; ++p) {
    at_bound = at_bound || (!problem.fixed[p] &&
                            (run.theta[p] <= problem.lower[p] || run.theta[p] >= problem.upper[p]));
  }
  bool singular = false;
  if (cov != nullptr || samples != nullptr) {
    residuals(problem, all, run.theta, memory.residual);
    const double rho = autocorrelation(memory.residual, all.w, all.n, problem.delta, free);
    if (cov != nullptr) {
      // The Hessian of Newton's weights, whichever the last pass had.
      evaluate(problem, all, run.theta, problem.delta, false, run.at);
      singular = !sandwich(problem, all, run, memory.residual, rho, cov);
      args.autocorrelation[curve] = rho;
    }
    if (samples != nullptr) {
      // Circular blocks of residuals around the fit; length after Politis and White (2004) for
      // lag-one autocorrelation.
      const double points_used = static_cast<double>(all.n);
      std::int64_t block = args.block;
      if (block == 0) {
        const double ratio = 2.0 * magnitude(rho) / (1.0 - rho * rho);
        const double length = exp1(log1(most(1.5 * ratio * ratio * points_used, 1.0)) / 3.0);
        block = 1 + static_cast<std::int64_t>(2.0 * length);
      }
      if (block > (all.n + 1) / 2) block = (all.n + 1) / 2;
      Data again = all;
      again.y = memory.drawn;
      double mean = 0.0;
      for (std::int64_t i = 0; i < all.n; ++i) mean += memory.residual[i];
      mean /= points_used;
      const double spread =
          __builtin_sqrt(points_used / most(points_used - static_cast<double>(free), 1.0));
      for (std::int64_t k = 0; k < args.replicates; ++k) {
        std::uint64_t state = args.seed;
        state = draw(state) ^ static_cast<std::uint64_t>(curve);
        state = draw(state) ^ static_cast<std::uint64_t>(k);
        for (std::int64_t i = 0; i < all.n;) {
          auto from = static_cast<std::int64_t>(draw(state) % static_cast<std::uint64_t>(all.n));
          for (std::int64_t j = 0; j < block && i < all.n; ++j, ++i) {
            again.y[i] = all.y[i] - memory.residual[i] - spread * (memory.residual[from] - mean);
            from = from + 1 == all.n ? 0 : from + 1;
          }
        }
        for (std::int64_t i = all.n; i < whole(all.n); ++i) again.y[i] = 1.0;
        Run replicate;
        for (int p = 0; p < np; ++p) replicate.theta[p] = run.theta[p];
        minimize(problem, again, 1e-8, args.max_iterations, false, 1e-6, {}, replicate);
        args.evaluations[curve] += replicate.evaluations;
        if (replicate.outcome == Outcome::kNonFinite) continue;
        if (problem.centred) uncentre(problem, replicate.theta, nullptr);
        for (int p = 0; p < np; ++p) samples[k * np + p] = replicate.theta[p];
      }
    }
  }
  if (problem.centred) uncentre(problem, theta, cov);
  bool finite = args.objective[curve] < 1e300;
  for (int p = 0; p < np; ++p) finite = finite && magnitude(theta[p]) < 1e300;
  if (!finite) {
    args.objective[curve] = kNan;
    for (int p = 0; p < np; ++p) theta[p] = kNan;
    return Status::kNonFinite;
  }
  if (run.outcome == Outcome::kMaxIterations) return Status::kMaxIterations;
  if (run.outcome == Outcome::kStalled) return Status::kStalled;
  if (at_bound) return Status::kBoundActive;
  return singular ? Status::kSingularCovariance : Status::kOk;
}

void fit_curves(const FitArgs& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept {
  Memory memory = {};
  double* at = scratch;
  const std::int64_t stride = stride_of(args.longest);
  carve(at, stride, memory.all);
  memory.residual = at;
  memory.drawn = at + stride;
  at += 2 * stride;
  carve(at, kFewPoints, memory.few);
  memory.rows = at;
  memory.buffer = at + kSlots * kLanes;
  for (std::int64_t curve = begin; curve < end; ++curve) {
    args.status[curve] = static_cast<std::int32_t>(fit_curve(args, curve, memory));
  }
}

}  // namespace

const FitKernels fit = {scratch_size, fit_curves};

}  // namespace planner::PLANNER_LEVEL
