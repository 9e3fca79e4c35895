// The loss law: screening with starts in the lanes, fits and refits with points in the lanes.
//
// log L^ = log(exp(a - alpha x) + exp(b - beta y) + exp(e)) needs no maximum taken out: x and y are
// centred and the parameters bounded, so that every term is within exp(+-kReach).
//
// Hessian of the Huber sum, exact: with r = z - log L^, psi = clip(r), c = [|r| <= delta] + psi,
// the softmax weights p, g = d log L^, and v the derivatives of the three exponents,
// H = sum c g g' - psi (E[v v'] + E[d^2 exponent]). It costs a few FMAs more than Gauss-Newton.
#include "losslaw.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"
#include "levenberg.hpp"
#include "vmath.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

enum { kA, kB, kE, kAlpha, kBeta, kS };
constexpr int kN = static_cast<int>(kLossLawParameters);
constexpr double kReach = 600.0;

using Point = Local<kN>;

// The points that a fit runs over.
struct Points {
  const double* x;
  const double* y;
  const double* z;
  const double* repeats;
  const double* weights;
  std::int64_t padded;
};

// log D' - log U and its first two derivatives by s = log R*: D' = U (1 + R* (1 - exp(-R / R*))).
struct Effective {
  Vec log;
  Vec first;
  Vec second;
};

PLANNER_INLINE Effective effective(const Vec& repeats, const Vec& r_star, const Vec& inverse) {
  const Vec q = min(repeats * inverse, vec(700.0));
  const Vec left = vexp_bounded(-q);
  const Vec h = fma(r_star, 1.0 - left, vec(1.0));
  const Vec over = vrecip(h);
  const Vec slope = r_star * fnma(left, 1.0 + q, 1.0);
  const Vec bend = r_star * fnma(left, fma(q, 1.0 + q, vec(1.0)), 1.0);
  Effective out;
  out.log = vlog_normal(h);
  out.first = slope * over;
  out.second = fnma(out.first, out.first, bend * over);
  return out;
}

PLANNER_INLINE double scalar_exp(double x) { return vexp_bounded(vec(x)).part[0][0]; }

// --- value, gradient and matrix in one pass, points in the lanes --------------------------------

// What the first half of a block leaves for the second.
struct Buffer {
  double* p1;
  double* p2;
  double* p0;
  double* r;
  double* y;  // these three with repeats
  double* first;
  double* second;
};

PLANNER_INLINE Buffer buffer_of(double* scratch) {
  return {scratch,
          scratch + kLossLawBlock,
          scratch + 2 * kLossLawBlock,
          scratch + 3 * kLossLawBlock,
          scratch + 4 * kLossLawBlock,
          scratch + 5 * kLossLawBlock,
          scratch + 6 * kLossLawBlock};
}

template <bool kRepeats>
PLANNER_INLINE void shares(const Points& points, const double* theta, std::int64_t from,
                           std::int64_t n, const Buffer& out) {
  const Vec a = vec(theta[kA]);
  const Vec b = vec(theta[kB]);
  const Vec alpha = vec(theta[kAlpha]);
  const Vec beta = vec(theta[kBeta]);
  const Vec te = vexp_bounded(vec(theta[kE]));
  const Vec r_star = kRepeats ? vexp_bounded(vec(theta[kS])) : vec(1.0);
  const Vec inverse = 1.0 / r_star;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    Vec y = load(points.y + from + i);
    if constexpr (kRepeats) {
      const Effective e = effective(load(points.repeats + from + i), r_star, inverse);
      y += e.log;
      store(out.y + i, y);
      store(out.first + i, e.first);
      store(out.second + i, e.second);
    }
    const Vec ta = vexp_bounded(fnma(alpha, load(points.x + from + i), a));
    const Vec tb = vexp_bounded(fnma(beta, y, b));
    const Vec total = ta + tb + te;
    const Vec over = vrecip(total);
    store(out.p1 + i, ta * over);
    store(out.p2 + i, tb * over);
    store(out.p0 + i, te * over);
    store(out.r + i, load(points.z + from + i) - vlog_normal(total));
  }
}

// kReweighted: sum min(1, delta / |r|) g g' in place of the Hessian; never indefinite.
template <bool kRepeats, bool kReweighted>
__attribute__((noinline)) void evaluate_as(const Points& points, double delta, Point& at,
                                           double* scratch) {
  const Buffer block = buffer_of(scratch);
  const Vec zero = vec(0.0);
  Vec value = zero, g1 = zero, g2 = zero, g0 = zero, g1x = zero, g2y = zero;
  Vec q11 = zero, q11x = zero, q11xx = zero, q22 = zero, q22y = zero, q22yy = zero, q00 = zero;
  Vec q12 = zero, q12x = zero, q12y = zero, q12xy = zero;
  Vec q10 = zero, q10x = zero, q20 = zero, q20y = zero;
  Vec g2t = zero, g2tt = zero, q22t = zero, q22yt = zero, q22t2 = zero;  // with repeats
  Vec q12t = zero, q12xt = zero, q20t = zero;
  const Vec limit = vec(delta);
  for (std::int64_t from = 0; from < points.padded; from += kLossLawBlock) {
    const std::int64_t left = points.padded - from;
    const std::int64_t n = left < kLossLawBlock ? left : kLossLawBlock;
    shares<kRepeats>(points, at.theta, from, n, block);
    for (std::int64_t i = 0; i < n; i += kLanes) {
      const Vec w = load(points.weights + from + i);
      const Vec x = load(points.x + from + i);
      const Vec y = kRepeats ? load(block.y + i) : load(points.y + from + i);
      const Vec r = load(block.r + i);
      const Vec p1 = load(block.p1 + i);
      const Vec p2 = load(block.p2 + i);
      const Vec p0 = load(block.p0 + i);
      const Vec psi = max(min(r, limit), -limit);
      const Vec m = w * psi;
      value = fma(m, fma(psi, -0.5, r), value);
      const Vec m1 = m * p1;
      const Vec m2 = m * p2;
      const Vec m0 = m * p0;
      Vec c;
      if constexpr (kReweighted) {
        const Vec size = abs(r);
        c = w * select(size <= limit, 1.0, limit / size);
      } else {
        c = keep(w, abs(r) <= limit) + m;
      }
      const Vec c1 = c * p1;
      const Vec c2 = c * p2;
      const Vec t12 = c1 * p2;
      const Vec t10 = c1 * p0;
      const Vec t20 = c2 * p0;
      Vec t11 = c1 * p1;
      Vec t22 = c2 * p2;
      Vec t00 = c * p0 * p0;
      if constexpr (!kReweighted) {
        t11 -= m1;
        t22 -= m2;
        t00 -= m0;
      }
      g1 += m1;
      g2 += m2;
      g0 += m0;
      g1x = fma(m1, x, g1x);
      g2y = fma(m2, y, g2y);
      const Vec t11x = t11 * x;
      const Vec t22y = t22 * y;
      const Vec t12x = t12 * x;
      q11 += t11;
      q11x += t11x;
      q11xx = fma(t11x, x, q11xx);
      q22 += t22;
      q22y += t22y;
      q22yy = fma(t22y, y, q22yy);
      q00 += t00;
      q12 += t12;
      q12x += t12x;
      q12y = fma(t12, y, q12y);
      q12xy = fma(t12x, y, q12xy);
      q10 += t10;
      q10x = fma(t10, x, q10x);
      q20 += t20;
      q20y = fma(t20, y, q20y);
      if constexpr (kRepeats) {
        const Vec first = load(block.first + i);
        g2t = fma(m2, first, g2t);
        q22t = fma(t22, first, q22t);
        q22yt = fma(t22y, first, q22yt);
        q22t2 = fma(t22 * first, first, q22t2);
        q12t = fma(t12, first, q12t);
        q12xt = fma(t12x, first, q12xt);
        q20t = fma(t20, first, q20t);
        if constexpr (!kReweighted) g2tt = fma(m2, load(block.second + i), g2tt);
      }
    }
  }

  at.value = sum(value);
  double* g = at.gradient;
  g[kA] = -sum(g1);
  g[kB] = -sum(g2);
  g[kE] = -sum(g0);
  g[kAlpha] = sum(g1x);
  g[kBeta] = sum(g2y);
  auto& h = at.matrix;
  h[kA][kA] = sum(q11);
  h[kA][kAlpha] = -sum(q11x);
  h[kAlpha][kAlpha] = sum(q11xx);
  h[kB][kB] = sum(q22);
  h[kB][kBeta] = -sum(q22y);
  h[kBeta][kBeta] = sum(q22yy);
  h[kE][kE] = sum(q00);
  h[kA][kB] = sum(q12);
  h[kB][kAlpha] = -sum(q12x);
  h[kA][kBeta] = -sum(q12y);
  h[kAlpha][kBeta] = sum(q12xy);
  h[kA][kE] = sum(q10);
  h[kE][kAlpha] = -sum(q10x);
  h[kB][kE] = sum(q20);
  h[kE][kBeta] = -sum(q20y);
  g[kS] = 0.0;
  for (int i = 0; i < kN; ++i) h[i][kS] = 0.0;
  if constexpr (kRepeats) {
    const double beta = at.theta[kBeta];
    g[kS] = beta * sum(g2t);
    h[kA][kS] = -beta * sum(q12t);
    h[kB][kS] = -beta * sum(q22t);
    h[kE][kS] = -beta * sum(q20t);
    h[kAlpha][kS] = beta * sum(q12xt);
    h[kBeta][kS] = beta * sum(q22yt);
    h[kS][kS] = beta * beta * sum(q22t2);
    if constexpr (!kReweighted) {
      h[kBeta][kS] += sum(g2t);
      h[kS][kS] += beta * sum(g2tt);
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < i; ++j) h[i][j] = h[j][i];
  }
}

// Fills `at` but theta. An infinite value where a term is out of reach.
__attribute__((noinline)) void evaluate(const LossLaw& law, const Points& points, double delta,
                                        bool reweighted, Point& at, double* scratch) {
  const double* theta = at.theta;
  const double far_a = __builtin_fabs(theta[kA]) + __builtin_fabs(theta[kAlpha]) * law.x_limit;
  const double far_b = __builtin_fabs(theta[kB]) + __builtin_fabs(theta[kBeta]) * law.y_limit;
  if (!(far_a <= kReach && far_b <= kReach && __builtin_fabs(theta[kE]) <= kReach)) {
    at.value = kInf;
    return;
  }
  if (points.repeats != nullptr) {
    if (reweighted) {
      evaluate_as<true, true>(points, delta, at, scratch);
    } else {
      evaluate_as<true, false>(points, delta, at, scratch);
    }
  } else if (reweighted) {
    evaluate_as<false, true>(points, delta, at, scratch);
  } else {
    evaluate_as<false, false>(points, delta, at, scratch);
  }
  if (!(__builtin_fabs(at.value) < kInf)) at.value = kInf;
  if (!law.tied) return;
  // beta follows alpha: its derivatives go to alpha's.
  at.gradient[kAlpha] += at.gradient[kBeta];
  at.gradient[kBeta] = 0.0;
  auto& h = at.matrix;
  h[kAlpha][kAlpha] += 2.0 * h[kAlpha][kBeta] + h[kBeta][kBeta];
  for (int i = 0; i < kN; ++i) {
    if (i == kAlpha || i == kBeta) continue;
    h[i][kAlpha] += h[i][kBeta];
    h[kAlpha][i] = h[i][kAlpha];
  }
  for (int i = 0; i < kN; ++i) h[i][kBeta] = h[kBeta][i] = 0.0;
}

// --- one fit: the Huber width comes down in stages -----------------------------------------------

// Where a fit comes from: how wide it begins, and how far it goes at each width.
enum class Origin { kNear, kScreened, kFar };

struct Outcome {
  std::int32_t evaluations;
  Status status;
};

void clamp_start(const LossLaw& law, const double* start, double* theta) {
  for (int i = 0; i < kN; ++i) {
    const double x = start[i];
    theta[i] = x < law.lower[i] ? law.lower[i] : x > law.upper[i] ? law.upper[i] : x;
  }
  const double* limits[] = {&law.x_limit, &law.y_limit};
  for (int i = 0; i < 2; ++i) {  // steep starts are flattened until their terms are in reach
    double& slope = theta[kAlpha + i];
    const double room = 0.5 * kReach / (*limits[i] + 1e-300);
    if (slope > room && law.lower[kAlpha + i] <= room) slope = room;
    if (slope < -room && law.upper[kAlpha + i] >= -room) slope = -room;
  }
  if (law.tied) theta[kBeta] = theta[kAlpha];
}

__attribute__((noinline)) Outcome fit_one(const LossLaw& law, const Points& points,
                                          const double* start, Origin origin, int max_evaluations,
                                          Point& at, double* scratch) {
  clamp_start(law, start, at.theta);
  Box<kN> box = {law.lower, law.upper};
  double upper[kN];
  if (law.tied) {  // its own step is none
    for (int i = 0; i < kN; ++i) upper[i] = law.upper[i];
    upper[kBeta] = law.lower[kBeta];
    box.upper = upper;
  }
  int evaluations = 0;
  double damping = 1e-3;
  double delta = 0.0;
  bool reweighted = false;
  const auto run = [&](Point& p) {
    if (law.tied) p.theta[kBeta] = p.theta[kAlpha];
    evaluate(law, points, delta, reweighted, p, scratch);
  };
  const auto never = [](double, double) { return false; };
  const double tiny = 1e-24;  // rounding of log residuals, squared

  Stop stop = Stop::kEvaluations;
  // A refit begins near its end: wider than needed, it would walk away from it and back.
  constexpr double kWidths[] = {300.0, 30.0, 6.0, 1.0};
  constexpr double kNearWidths[] = {0.0, 12.0, 3.0, 1.0};
  const double* const widths = origin == Origin::kNear ? kNearWidths : kWidths;
  const int first = origin == Origin::kFar ? 0 : 1;
  const double loose = origin == Origin::kNear ? 5e-2 : 1e-4;
  const double tight = origin == Origin::kNear ? 1e-10 : 1e-12;
  const double last_step = origin == Origin::kNear ? 0.1 : 0.0;
  if (origin != Origin::kNear) {
    delta = widths[first] * law.delta;
    reweighted = true;
    run(at);
    ++evaluations;
    if (!(at.value < kInf)) return {evaluations, Status::kNonFinite};
    stop = descend<kN>(at, box, {1e-2, tiny, max_evaluations / 3}, damping, &evaluations, run,
                       [](double before, double after) { return before - after < 0.05 * before; });
    reweighted = false;
  }
  for (int i = first; i < 4; ++i) {
    const bool last = i == 3;
    delta = widths[i] * law.delta;
    run(at);
    ++evaluations;
    if (!(at.value < kInf)) return {evaluations, Status::kNonFinite};
    damping = damping < 1e-3 ? damping : 1e-3;
    int left = max_evaluations - evaluations;
    if (!last && left > 30) left = 30;
    if (left < 1) left = 1;
    const Stage stage = {last ? tight : loose, tiny, left, last ? 0.0 : last_step};
    stop = descend<kN>(at, box, stage, damping, &evaluations, run, never);
  }
  Status status = stop == Stop::kConverged     ? Status::kOk
                  : stop == Stop::kEvaluations ? Status::kMaxIterations
                                               : Status::kStalled;
  if (status == Status::kOk) {
    for (int i = 0; i < kN; ++i) {
      const bool fixed = !(box.lower[i] < box.upper[i]);
      if (!fixed && (at.theta[i] <= box.lower[i] || at.theta[i] >= box.upper[i])) {
        status = Status::kBoundActive;
      }
    }
  }
  return {evaluations, status};
}

void write(const Point& at, const Outcome& outcome, double* theta, double* objective,
           std::int32_t* evaluations, std::int32_t* status) {
  const bool bad = outcome.status == Status::kNonFinite;
  for (int i = 0; i < kN; ++i) theta[i] = bad ? kNan : at.theta[i];
  *objective = bad ? kNan : at.value;
  *evaluations = outcome.evaluations;
  *status = static_cast<std::int32_t>(outcome.status);
}

void fit_runs(const LossLawFit& args, std::int64_t begin, std::int64_t end,
              double* scratch) noexcept {
  const LossLaw& law = args.law;
  const Points points = {law.x, law.y, law.z, law.repeats, law.weights, law.padded};
  for (std::int64_t i = begin; i < end; ++i) {
    Point at = {};
    const Outcome outcome =
        fit_one(law, points, args.starts + i * kN, args.screened ? Origin::kScreened : Origin::kFar,
                args.max_evaluations, at, scratch);
    write(at, outcome, args.theta + i * kN, args.objective + i, args.evaluations + i,
          args.status + i);
  }
}

void refit(const LossLawRefit& args, std::int64_t begin, std::int64_t end,
           double* scratch) noexcept {
  const LossLaw& law = args.law;
  int free = 0;
  for (int i = 0; i < kN; ++i) free += law.lower[i] < law.upper[i] && !(law.tied && i == kBeta);
  double* const x = scratch + 7 * kLossLawBlock;
  double* const y = x + law.padded;
  double* const z = y + law.padded;
  double* const w = z + law.padded;
  double* const repeats = w + law.padded;
  for (std::int64_t set = begin; set < end; ++set) {
    // Points drawn zero times are left out.
    const std::uint8_t* counts = args.counts + set * law.points;
    std::int64_t n = 0;
    for (std::int64_t i = 0; i < law.points; ++i) {
      x[n] = law.x[i];
      y[n] = law.y[i];
      z[n] = law.z[i];
      w[n] = law.weights[i] * counts[i];
      if (law.repeats != nullptr) repeats[n] = law.repeats[i];
      n += w[n] > 0.0;
    }
    const std::int64_t distinct = n;
    for (; n % kLanes != 0; ++n) x[n] = y[n] = z[n] = w[n] = repeats[n] = 0.0;
    const Points points = {x, y, z, law.repeats != nullptr ? repeats : nullptr, w, n};

    Point best = {};
    best.value = kInf;
    Outcome outcome = {0, distinct < free ? Status::kTooFewPoints : Status::kNonFinite};
    std::int32_t evaluations = 0;
    if (distinct >= free) {
      for (std::int64_t start = 0; start < args.n_starts; ++start) {
        Point at = {};
        const Outcome one = fit_one(law, points, args.starts + start * kN, Origin::kNear,
                                    args.max_evaluations, at, scratch);
        evaluations += one.evaluations;
        if (one.status == Status::kNonFinite || !(at.value < best.value)) continue;
        best = at;
        outcome = one;
      }
    }
    const bool done = best.value < kInf;
    for (int i = 0; i < kN; ++i) args.theta[set * kN + i] = done ? best.theta[i] : kNan;
    args.objective[set] = done ? best.value : kNan;
    args.evaluations[set] = evaluations;
    args.status[set] = static_cast<std::int32_t>(outcome.status);
  }
}

// --- screening: eight starts in the lanes, a few reweighted Gauss-Newton steps each --------------

struct Octet {
  Vec theta[kN];
};

PLANNER_INLINE Vec clip(const Vec& x, double low, double high) {
  return max(min(x, vec(high)), vec(low));
}

// The effective data need R* itself, which the eight starts keep.
struct Repeat {
  Vec r_star;
  Vec inverse;
};

PLANNER_INLINE Vec y_of(const LossLaw& law, std::int64_t i, const Repeat& repeat) {
  const Vec y = vec(law.y[i]);
  if (law.repeats == nullptr) return y;
  const Vec q = min(law.repeats[i] * repeat.inverse, vec(700.0));
  return y + vlog_normal(fma(repeat.r_star, 1.0 - vexp_bounded(-q), vec(1.0)));
}

PLANNER_INLINE Vec in_reach(const Vec& x) { return clip(x, -kReach, kReach); }

// Sum over every stride-th point of the 15 products and five moments; then a step.
void screen_step(const LossLawScreen& args, Octet& at, const Repeat& repeat, double* scratch) {
  const LossLaw& law = args.law;
  const Vec te = vexp_bounded(at.theta[kE]);
  const Vec zero = vec(0.0);
  Vec g[5] = {zero, zero, zero, zero, zero};
  Vec q11 = zero, q11x = zero, q11xx = zero, q22 = zero, q22y = zero, q22yy = zero, q00 = zero;
  Vec q12 = zero, q12x = zero, q12y = zero, q12xy = zero;
  Vec q10 = zero, q10x = zero, q20 = zero, q20y = zero;
  Vec g1 = zero, g2 = zero, g0 = zero, g1x = zero, g2y = zero;
  const Vec limit = vec(args.delta);
  double* const p1s = scratch;
  double* const p2s = p1s + kLanes * kLossLawBlock;
  double* const cs = p2s + kLanes * kLossLawBlock;
  double* const rs = cs + kLanes * kLossLawBlock;
  double* const ys = rs + kLanes * kLossLawBlock;
  for (std::int64_t from = 0; from < law.points; from += args.stride * kLossLawBlock) {
    std::int64_t n = 0;
    for (std::int64_t i = from; i < law.points && n < kLossLawBlock; i += args.stride, ++n) {
      const Vec y = y_of(law, i, repeat);
      const Vec ta = vexp_bounded(in_reach(fnma(at.theta[kAlpha], law.x[i], at.theta[kA])));
      const Vec tb = vexp_bounded(in_reach(fnma(at.theta[kBeta], y, at.theta[kB])));
      const Vec total = ta + tb + te;
      const Vec over = vrecip(total);
      const Vec r = law.z[i] - vlog_normal(total);
      const Vec size = max(abs(r), limit);
      store(p1s + n * kLanes, ta * over);
      store(p2s + n * kLanes, tb * over);
      store(cs + n * kLanes, law.weights[i] * (limit * vrecip(size)));
      store(rs + n * kLanes, r);
      store(ys + n * kLanes, y);
    }
    for (std::int64_t k = 0; k < n; ++k) {
      const Vec p1 = load(p1s + k * kLanes);
      const Vec p2 = load(p2s + k * kLanes);
      const Vec p0 = max(1.0 - p1 - p2, vec(0.0));
      const Vec c = load(cs + k * kLanes);
      const Vec m = c * load(rs + k * kLanes);
      const Vec x = vec(law.x[from + k * args.stride]);
      const Vec y = load(ys + k * kLanes);
      const Vec m1 = m * p1;
      const Vec m2 = m * p2;
      g1 += m1;
      g2 += m2;
      g0 = fma(m, p0, g0);
      g1x = fma(m1, x, g1x);
      g2y = fma(m2, y, g2y);
      const Vec c1 = c * p1;
      const Vec c2 = c * p2;
      const Vec t11 = c1 * p1;
      const Vec t22 = c2 * p2;
      const Vec t12 = c1 * p2;
      const Vec t10 = c1 * p0;
      const Vec t20 = c2 * p0;
      const Vec t11x = t11 * x;
      const Vec t22y = t22 * y;
      const Vec t12x = t12 * x;
      q11 += t11;
      q11x += t11x;
      q11xx = fma(t11x, x, q11xx);
      q22 += t22;
      q22y += t22y;
      q22yy = fma(t22y, y, q22yy);
      q00 = fma(c * p0, p0, q00);
      q12 += t12;
      q12x += t12x;
      q12y = fma(t12, y, q12y);
      q12xy = fma(t12x, y, q12xy);
      q10 += t10;
      q10x = fma(t10, x, q10x);
      q20 += t20;
      q20y = fma(t20, y, q20y);
    }
  }
  g[kA] = g1;
  g[kB] = g2;
  g[kE] = g0;
  g[kAlpha] = -g1x;
  g[kBeta] = -g2y;
  Vec h[5][5];
  h[kA][kA] = q11;
  h[kB][kB] = q22;
  h[kE][kE] = q00;
  h[kAlpha][kAlpha] = q11xx;
  h[kBeta][kBeta] = q22yy;
  h[kB][kA] = q12;
  h[kE][kA] = q10;
  h[kE][kB] = q20;
  h[kAlpha][kA] = -q11x;
  h[kAlpha][kB] = -q12x;
  h[kAlpha][kE] = -q10x;
  h[kBeta][kA] = -q12y;
  h[kBeta][kB] = -q22y;
  h[kBeta][kE] = -q20y;
  h[kBeta][kAlpha] = q12xy;

  bool fixed[5];
  for (int i = 0; i < 5; ++i) fixed[i] = !(law.lower[i] < law.upper[i]);
  if (law.tied) {
    g[kAlpha] += g[kBeta];
    h[kAlpha][kAlpha] += 2.0 * h[kBeta][kAlpha] + h[kBeta][kBeta];
    for (int i = 0; i < kAlpha; ++i) h[kAlpha][i] += h[kBeta][i];
    fixed[kBeta] = true;
  }
  for (int i = 0; i < 5; ++i) {
    if (!fixed[i]) continue;
    g[i] = zero;
    for (int j = 0; j < 5; ++j) (j < i ? h[i][j] : h[j][i]) = zero;
    h[i][i] = vec(1.0);
  }
  // L D L' with a little damping; a pivot that rounding made negative becomes a small step.
  Vec inverse[5];
  for (int i = 0; i < 5; ++i) {
    const Vec floor = fma(h[i][i], 1e-6, vec(1e-30));
    for (int j = 0; j <= i; ++j) {
      Vec t = h[i][j];
      if (i == j) t = fma(t, 1e-3, t);
      for (int k = 0; k < j; ++k) t = fnma(h[i][k] * h[j][k], inverse[k], t);
      if (i == j) {
        t = max(t, floor);
        inverse[i] = 1.0 / t;
      }
      h[i][j] = t;
    }
    for (int k = 0; k < i; ++k) g[i] = fnma(h[i][k] * inverse[k], g[k], g[i]);
  }
  for (int i = 4; i >= 0; --i) {
    Vec t = g[i] * inverse[i];
    for (int k = i + 1; k < 5; ++k) t = fnma(h[k][i] * inverse[i], g[k], t);
    g[i] = t;
  }
  constexpr double kCaps[5] = {4.0, 4.0, 1.0, 0.5, 0.5};
  for (int i = 0; i < 5; ++i) {
    if (fixed[i]) continue;
    at.theta[i] = clip(at.theta[i] + clip(g[i], -kCaps[i], kCaps[i]), law.lower[i], law.upper[i]);
  }
  if (law.tied) at.theta[kBeta] = at.theta[kAlpha];
}

Vec screen_score(const LossLawScreen& args, const Octet& at, const Repeat& repeat) {
  const LossLaw& law = args.law;
  const Vec te = vexp_bounded(at.theta[kE]);
  const Vec limit = vec(args.score_delta);
  Vec value = vec(0.0);
  for (std::int64_t i = 0; i < law.points; ++i) {
    const Vec ta = vexp_bounded(in_reach(fnma(at.theta[kAlpha], law.x[i], at.theta[kA])));
    const Vec tb =
        vexp_bounded(in_reach(fnma(at.theta[kBeta], y_of(law, i, repeat), at.theta[kB])));
    const Vec r = law.z[i] - vlog_normal(ta + tb + te);
    const Vec psi = max(min(r, limit), -limit);
    value = fma(law.weights[i] * psi, fma(psi, -0.5, r), value);
  }
  return value;
}

void screen(const LossLawScreen& args, std::int64_t begin, std::int64_t end,
            double* scratch) noexcept {
  for (std::int64_t group = begin; group < end; ++group) {
    double lanes[kN][kLanes];
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const std::int64_t start = group * kLanes + lane;
      double theta[kN];  // behind the last start, that one again
      clamp_start(args.law, args.starts + (start < args.count ? start : args.count - 1) * kN,
                  theta);
      for (int i = 0; i < kN; ++i) lanes[i][lane] = theta[i];
    }
    Octet at;
    for (int i = 0; i < kN; ++i) at.theta[i] = load(lanes[i]);
    Repeat repeat;
    repeat.r_star = vexp_bounded(at.theta[kS]);
    repeat.inverse = 1.0 / repeat.r_star;
    for (int step = 0; step < args.steps; ++step) screen_step(args, at, repeat, scratch);
    double score[kLanes];
    store(score, screen_score(args, at, repeat));
    for (int i = 0; i < kN; ++i) store(lanes[i], at.theta[i]);
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const std::int64_t start = group * kLanes + lane;
      if (start >= args.count) break;
      args.score[start] = score[lane];
      for (int i = 0; i < kN; ++i) args.theta[start * kN + i] = lanes[i][lane];
    }
  }
}

}  // namespace

const LosslawKernels losslaw = {screen, fit_runs, refit};

}  // namespace planner::PLANNER_LEVEL
