// The Multi-Power Law: terms in the lanes, then damped Gauss-Newton on the Huber sum.
#include "schedule.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"
#include "levenberg.hpp"
#include "vmath.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

enum { kL0, kLogA, kAlpha, kLogB, kLogC, kLogBeta, kGamma };
constexpr int kN = static_cast<int>(kScheduleParameters);

using Point = Local<kN>;

PLANNER_INLINE double scalar_exp(double x) { return vexp_bounded(vec(x)).part[0][0]; }
PLANNER_INLINE double scalar_log(double x) { return vlog(vec(x)).part[0][0]; }

// The parameters that are kept as logs.
struct Scales {
  double a;
  double b;
  double c;
  double beta;
};

PLANNER_INLINE Scales scales_of(const double* theta) {
  return {scalar_exp(theta[kLogA]), scalar_exp(theta[kLogB]), scalar_exp(theta[kLogC]),
          scalar_exp(theta[kLogBeta])};
}

// Sums over the terms of one target.
struct Sums {
  double drop;
  double by_log_c;
  double by_beta;
  double by_gamma;
};

template <bool kGradient>
PLANNER_INLINE Sums sums_of(const ScheduleTerms& terms, std::int64_t target, const Vec& gamma,
                            const Vec& beta, const Vec& scale) {
  Vec drop = vec(0.0);
  Vec by_log_c = vec(0.0);
  Vec by_beta = vec(0.0);
  Vec by_gamma = vec(0.0);
  const std::int64_t end = terms.first[target + 1];
  for (std::int64_t i = terms.first[target]; i < end; i += kLanes) {
    const Vec w = load(terms.w + i);
    const Vec log_lr = load(terms.log_lr + i);
    const Vec cx = min(scale * load(terms.s + i) * vexp_bounded(gamma * log_lr), vec(1e290));
    const Vec u = cx + 1.0;
    const Vec log_u = vlog_normal(u);
    const Vec q = vexp_bounded(max(beta * log_u, vec(-700.0)));
    drop = fma(w, 1.0 - q, drop);
    if constexpr (kGradient) {
      const Vec wq = w * q;
      by_beta = fma(wq, log_u, by_beta);
      const Vec slope = wq * cx * vrecip_rough(u);
      by_log_c += slope;
      by_gamma = fma(slope, log_lr, by_gamma);
    }
  }
  if constexpr (!kGradient) return {sum(drop), 0.0, 0.0, 0.0};
  return {sum(drop), sum(by_log_c), sum(by_beta), sum(by_gamma)};
}

// The losses of eight targets and their seven derivatives, from their sums and area^-alpha.
PLANNER_INLINE Vec losses_of(const double* theta, const Scales& scales, const Vec& log_area,
                             const Vec& power, const Vec& drop, const Vec& by_log_c,
                             const Vec& by_beta, const Vec& by_gamma, Vec* gradient) {
  const Vec decay = scales.a * power;
  const Vec fallen = scales.b * drop;
  const double b_beta = scales.b * scales.beta;
  gradient[kL0] = vec(1.0);
  gradient[kLogA] = decay;
  gradient[kAlpha] = -decay * log_area;
  gradient[kLogB] = -fallen;
  gradient[kLogBeta] = -b_beta * by_beta;
  gradient[kLogC] = -b_beta * by_log_c;
  gradient[kGamma] = b_beta * by_gamma;
  return theta[kL0] + decay - fallen;
}

template <bool kGradient>
void predict_as(const SchedulePredict& args, std::int64_t begin, std::int64_t end) {
  const Scales scales = scales_of(args.theta);
  const Vec gamma = vec(-args.theta[kGamma]);
  const Vec beta = vec(-scales.beta);
  const Vec c = vec(scales.c);
  for (std::int64_t from = begin; from < end; from += kLanes) {
    const std::int64_t count = end - from < kLanes ? end - from : kLanes;
    double columns[5][kLanes] = {};
    for (std::int64_t lane = 0; lane < count; ++lane) {
      const Sums sums = sums_of<kGradient>(args.terms, from + lane, gamma, beta, c);
      columns[0][lane] = args.terms.log_area[from + lane];
      columns[1][lane] = sums.drop;
      columns[2][lane] = sums.by_log_c;
      columns[3][lane] = sums.by_beta;
      columns[4][lane] = sums.by_gamma;
    }
    const Vec log_area = load(columns[0]);
    Vec by[kN];
    double out[kLanes];
    store(out,
          losses_of(args.theta, scales, log_area, vexp_bounded(-args.theta[kAlpha] * log_area),
                    load(columns[1]), load(columns[2]), load(columns[3]), load(columns[4]), by));
    for (std::int64_t lane = 0; lane < count; ++lane) args.loss[from + lane] = out[lane];
    if constexpr (kGradient) {
      for (int j = 0; j < kN; ++j) {
        store(out, by[j]);
        for (std::int64_t lane = 0; lane < count; ++lane) {
          args.gradient[(from + lane) * kN + j] = out[lane];
        }
      }
    }
  }
}

void predict(const SchedulePredict& args, std::int64_t begin, std::int64_t end) noexcept {
  if (args.gradient == nullptr) {
    predict_as<false>(args, begin, end);
  } else {
    predict_as<true>(args, begin, end);
  }
}

// The targets a stage of a fit runs over, and what an evaluation leaves of each. (padded,)
struct Table {
  std::int64_t count;
  std::int64_t padded;
  std::int64_t stride;
  double* log_loss;
  double* weight;  // 0 behind the targets
  double* log_area;
  double* power;  // area^-alpha
  double* drop;
  double* by_log_c;
  double* by_beta;
  double* by_gamma;
};

// Every stride-th target.
Table table_of(const ScheduleFit& args, std::int64_t stride, double* scratch) {
  Table table = {};
  table.count = (args.targets + stride - 1) / stride;
  table.padded = (table.count + kLanes - 1) / kLanes * kLanes;
  table.stride = stride;
  double** const columns[] = {&table.log_loss, &table.weight,   &table.log_area, &table.power,
                              &table.drop,     &table.by_log_c, &table.by_beta,  &table.by_gamma};
  for (double** const column : columns) {
    *column = scratch;
    scratch += table.padded;
    for (std::int64_t i = table.count; i < table.padded; ++i) (*column)[i] = 0.0;
  }
  for (std::int64_t i = 0; i < table.count; ++i) {
    table.log_loss[i] = args.log_loss[i * stride];
    table.weight[i] = args.weights[i * stride];
    table.log_area[i] = args.terms.log_area[i * stride];
  }
  return table;
}

// How residuals count. Reweighted: the matrix is sum min(1, delta / |r|) g g'; else only the
// targets within delta count in it, as in the Hessian.
struct Counting {
  double delta;
  bool reweighted;
};

struct Share {
  Vec value;
  Vec pull;    // minus the derivative by the loss
  Vec weight;  // of g g' in the matrix, g the derivatives of the loss
  Vec bad;     // above 0 where there is no logarithm
};

PLANNER_INLINE Share share_of(const Table& table, std::int64_t i, const Vec& loss,
                              const Counting& counting) {
  const Vec w = load(table.weight + i);
  const Vec limit = vec(counting.delta);
  const Vec usable = max(min(loss, vec(1e300)), vec(1e-300));
  const Vec r = load(table.log_loss + i) - vlog_normal(usable);
  const Vec size = abs(r);
  const Vec psi = max(min(r, limit), -limit);
  const Vec over = 1.0 / usable;
  const Vec m = w * psi;
  const Vec inside =
      counting.reweighted ? w * select(size <= limit, 1.0, limit / size) : keep(w, size <= limit);
  return {m * fma(psi, -0.5, r), m * over, inside * over * over, select(loss == usable, 0.0, w)};
}

template <std::size_t N>
PLANNER_INLINE void finish(const Vec& value, const Vec& bad, const Vec* g, const Vec (*h)[N],
                           Local<N>& at) {
  at.value = sum(value);
  for (std::size_t i = 0; i < N; ++i) {
    at.gradient[i] = sum(g[i]);
    for (std::size_t j = 0; j <= i; ++j) at.matrix[i][j] = at.matrix[j][i] = sum(h[i][j]);
  }
  if (any(bad > 0.0) || !(at.value < kInf)) at.value = kInf;
}

// By L0, A and B, all else as in the table.
__attribute__((noinline)) void evaluate_linear(const Table& table, const Counting& counting,
                                               Local<3>& at) {
  Vec value = vec(0.0);
  Vec bad = vec(0.0);
  Vec g[3];
  Vec h[3][3];
  for (int i = 0; i < 3; ++i) {
    g[i] = vec(0.0);
    for (int j = 0; j <= i; ++j) h[i][j] = vec(0.0);
  }
  for (std::int64_t i = 0; i < table.padded; i += kLanes) {
    const Vec power = load(table.power + i);
    const Vec drop = load(table.drop + i);
    const Vec loss = fnma(drop, at.theta[2], fma(power, at.theta[1], vec(at.theta[0])));
    const Share share = share_of(table, i, loss, counting);
    value += share.value;
    bad = max(bad, share.bad);
    g[0] -= share.pull;
    g[1] = fnma(share.pull, power, g[1]);
    g[2] = fma(share.pull, drop, g[2]);
    const Vec wp = share.weight * power;
    const Vec wd = share.weight * drop;
    h[0][0] += share.weight;
    h[1][0] += wp;
    h[2][0] -= wd;
    h[1][1] = fma(wp, power, h[1][1]);
    h[2][1] = fnma(wp, drop, h[2][1]);
    h[2][2] = fma(wd, drop, h[2][2]);
  }
  finish<3>(value, bad, g, h, at);
}

// Value, gradient and a positive matrix, where L0, A and B are the best for the four others:
// at.theta[kL0], [kLogA] and [kLogB] are where the search for them begins. The valley of the seven
// is much more curved than that of the four.
__attribute__((noinline)) void evaluate(const ScheduleFit& args, const Table& table,
                                        const Counting& counting, Point& at) {
  const Scales scales = scales_of(at.theta);
  const Vec gamma = vec(-at.theta[kGamma]);
  const Vec beta = vec(-scales.beta);
  const Vec c = vec(scales.c);
  for (std::int64_t i = 0; i < table.count; ++i) {
    const Sums sums = sums_of<true>(args.terms, i * table.stride, gamma, beta, c);
    table.drop[i] = sums.drop;
    table.by_log_c[i] = sums.by_log_c;
    table.by_beta[i] = sums.by_beta;
    table.by_gamma[i] = sums.by_gamma;
  }
  for (std::int64_t i = 0; i < table.padded; i += kLanes) {
    store(table.power + i, vexp_bounded(-at.theta[kAlpha] * load(table.log_area + i)));
  }

  constexpr int kLinear[] = {kL0, kLogA, kLogB};
  double lower[3];
  double upper[3];
  Local<3> linear = {};
  for (int i = 0; i < 3; ++i) {
    const int j = kLinear[i];
    lower[i] = i == 0 ? args.lower[j] : scalar_exp(args.lower[j]);
    upper[i] = i == 0 ? args.upper[j] : scalar_exp(args.upper[j]);
  }
  linear.theta[0] = at.theta[kL0];
  linear.theta[1] = scales.a;
  linear.theta[2] = scales.b;
  evaluate_linear(table, counting, linear);
  at.value = linear.value;
  if (!(at.value < kInf)) return;
  double damping = 1e-9;
  int evaluations = 0;
  const auto run = [&](Local<3>& p) { evaluate_linear(table, counting, p); };
  descend<3>(linear, {lower, upper}, {1e-12, 1e-24, 20}, damping, &evaluations, run,
             [](double, double) { return false; });
  for (int i = 0; i < 3; ++i) {
    const int j = kLinear[i];
    const double x = linear.theta[i];
    at.theta[j] = x <= lower[i]   ? args.lower[j]
                  : x >= upper[i] ? args.upper[j]
                  : i == 0        ? x
                                  : scalar_log(x);
  }

  const Scales found = {linear.theta[1], linear.theta[2], scales.c, scales.beta};
  Vec value = vec(0.0);
  Vec bad = vec(0.0);
  Vec g[kN];
  Vec h[kN][kN];
  for (int i = 0; i < kN; ++i) {
    g[i] = vec(0.0);
    for (int j = 0; j <= i; ++j) h[i][j] = vec(0.0);
  }
  for (std::int64_t k = 0; k < table.padded; k += kLanes) {
    Vec by[kN];
    const Vec loss = losses_of(at.theta, found, load(table.log_area + k), load(table.power + k),
                               load(table.drop + k), load(table.by_log_c + k),
                               load(table.by_beta + k), load(table.by_gamma + k), by);
    const Share share = share_of(table, k, loss, counting);
    value += share.value;
    bad = max(bad, share.bad);
    for (int i = 0; i < kN; ++i) {
      g[i] = fnma(share.pull, by[i], g[i]);
      const Vec hg = share.weight * by[i];
      for (int j = 0; j <= i; ++j) h[i][j] = fma(hg, by[j], h[i][j]);
    }
  }
  finish<7>(value, bad, g, h, at);
}

void fit_one(const ScheduleFit& args, std::int64_t start, double* scratch) {
  Point at = {};
  for (int i = 0; i < kN; ++i) {
    const double x = args.starts[start * kN + i];
    at.theta[i] = x < args.lower[i] ? args.lower[i] : x > args.upper[i] ? args.upper[i] : x;
  }
  const Box<kN> box = {args.lower, args.upper};
  // The Huber width comes down in stages, then all targets count.
  constexpr double kWidths[] = {30.0, 3.0, 1.0, 1.0};
  const int stages = args.stride > 1 ? 4 : 3;
  int evaluations = 0;
  double damping = 1e-3;
  Counting counting = {};
  Table table = {};
  bool finite = true;
  Stop stop = Stop::kEvaluations;
  const auto run = [&](Point& p) { evaluate(args, table, counting, p); };
  // In each: reweighted while that goes fast, then as Newton.
  for (int stage = 0; stage < stages && finite; ++stage) {
    const bool last = stage + 1 == stages;
    counting.delta = kWidths[stage] * args.delta;
    if (stage == 0 || last) table = table_of(args, last ? 1 : args.stride, scratch);
    for (int pass = 0; pass < 2 && finite; ++pass) {
      counting.reweighted = pass == 0;
      run(at);
      ++evaluations;
      finite = at.value < kInf;
      if (!finite) break;
      if (damping > 1e-3) damping = 1e-3;
      int left = args.max_evaluations - evaluations;
      if (!last && left > 15) left = 15;
      if (left < 1) left = 1;
      const bool first = counting.reweighted;
      const double goal = last && !first ? 1e-9 : 1e-3;
      stop = descend<kN>(
          at, box, {goal, 1e-24, left}, damping, &evaluations, run,
          [first](double before, double after) { return first && before - after < 0.05 * before; });
    }
  }
  Status status = !finite                      ? Status::kNonFinite
                  : stop == Stop::kConverged   ? Status::kOk
                  : stop == Stop::kEvaluations ? Status::kMaxIterations
                                               : Status::kStalled;
  for (int i = 0; i < kN && status == Status::kOk; ++i) {
    if (!(args.lower[i] < args.upper[i])) continue;
    if (at.theta[i] <= args.lower[i] || at.theta[i] >= args.upper[i]) status = Status::kBoundActive;
  }
  for (int i = 0; i < kN; ++i) args.theta[start * kN + i] = finite ? at.theta[i] : kNan;
  args.objective[start] = finite ? at.value : kNan;
  args.evaluations[start] = evaluations;
  args.status[start] = static_cast<std::int32_t>(status);
}

void fit_curves(const ScheduleFit& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept {
  for (std::int64_t start = begin; start < end; ++start) fit_one(args, start, scratch);
}

}  // namespace

const ScheduleKernels schedule = {predict, fit_curves};

}  // namespace planner::PLANNER_LEVEL
