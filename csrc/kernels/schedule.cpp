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

// Loss of one target, and its derivatives by the seven parameters unless null.
template <bool kGradient>
PLANNER_INLINE double loss_of(const ScheduleTerms& terms, std::int64_t target, const double* theta,
                              const Scales& scales, double* gradient) {
  const double a = scales.a;
  const double b = scales.b;
  const Vec gamma = vec(-theta[kGamma]);
  const Vec beta = vec(-scales.beta);
  const Vec scale = vec(scales.c);
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
      const Vec slope = wq * cx * vrecip(u);
      by_log_c += slope;
      by_gamma = fma(slope, log_lr, by_gamma);
    }
  }
  const double power = scalar_exp(-theta[kAlpha] * terms.log_area[target]);
  const double fallen = b * sum(drop);
  if constexpr (kGradient) {
    gradient[kL0] = 1.0;
    gradient[kLogA] = a * power;
    gradient[kAlpha] = -a * power * terms.log_area[target];
    gradient[kLogB] = -fallen;
    gradient[kLogBeta] = -b * scales.beta * sum(by_beta);
    gradient[kLogC] = -b * scales.beta * sum(by_log_c);
    gradient[kGamma] = b * scales.beta * sum(by_gamma);
  }
  return theta[kL0] + a * power - fallen;
}

void predict(const SchedulePredict& args, std::int64_t begin, std::int64_t end) noexcept {
  const Scales scales = scales_of(args.theta);
  for (std::int64_t i = begin; i < end; ++i) {
    args.loss[i] = args.gradient == nullptr
                       ? loss_of<false>(args.terms, i, args.theta, scales, nullptr)
                       : loss_of<true>(args.terms, i, args.theta, scales, args.gradient + i * kN);
  }
}

// Value, gradient and a positive matrix. Reweighted: sum min(1, delta / |r|) g g'; else only the
// targets within delta count, as in the Hessian.
__attribute__((noinline)) void evaluate(const ScheduleFit& args, double delta, bool reweighted,
                                        Point& at) {
  const Scales scales = scales_of(at.theta);
  at.value = 0.0;
  for (int i = 0; i < kN; ++i) {
    at.gradient[i] = 0.0;
    for (int j = 0; j < kN; ++j) at.matrix[i][j] = 0.0;
  }
  for (std::int64_t target = 0; target < args.targets; ++target) {
    const double w = args.weights[target];
    if (!(w > 0.0)) continue;
    double g[kN];
    const double loss = loss_of<true>(args.terms, target, at.theta, scales, g);
    if (!(loss > 1e-300 && loss < 1e300)) {
      at.value = kInf;
      return;
    }
    const double r = args.log_loss[target] - scalar_log(loss);
    const double size = __builtin_fabs(r);
    const double psi = r > delta ? delta : r < -delta ? -delta : r;
    const double over = 1.0 / loss;
    at.value += w * psi * (r - 0.5 * psi);
    const double pull = w * psi * over;
    const double inside = size <= delta ? 1.0 : reweighted ? delta / size : 0.0;
    const double h = w * inside * over * over;
    for (int i = 0; i < kN; ++i) {
      at.gradient[i] -= pull * g[i];
      const double hg = h * g[i];
      for (int j = 0; j <= i; ++j) at.matrix[i][j] += hg * g[j];
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j < i; ++j) at.matrix[j][i] = at.matrix[i][j];
  }
  if (!(at.value < kInf)) at.value = kInf;
}

void fit_one(const ScheduleFit& args, std::int64_t start) {
  Point at = {};
  for (int i = 0; i < kN; ++i) {
    const double x = args.starts[start * kN + i];
    at.theta[i] = x < args.lower[i] ? args.lower[i] : x > args.upper[i] ? args.upper[i] : x;
  }
  const Box<kN> box = {args.lower, args.upper};
  constexpr double kWidths[] = {30.0, 3.0, 1.0};
  constexpr int kStages = 3;
  int evaluations = 0;
  double damping = 1e-3;
  double delta = 0.0;
  bool reweighted = true;
  bool finite = true;
  Stop stop = Stop::kEvaluations;
  const auto run = [&](Point& p) { evaluate(args, delta, reweighted, p); };
  // At each width: reweighted while that goes fast, then as Newton.
  for (int stage = 0; stage < kStages && finite; ++stage) {
    const bool last = stage + 1 == kStages;
    delta = kWidths[stage] * args.delta;
    for (int pass = 0; pass < 2 && finite; ++pass) {
      reweighted = pass == 0;
      run(at);
      ++evaluations;
      finite = at.value < kInf;
      if (!finite) break;
      if (damping > 1e-3) damping = 1e-3;
      int left = args.max_evaluations - evaluations;
      if (!last && left > 15) left = 15;
      if (left < 1) left = 1;
      const bool first = reweighted;
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

void fit_curves(const ScheduleFit& args, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t start = begin; start < end; ++start) fit_one(args, start);
}

}  // namespace

const ScheduleKernels schedule = {predict, fit_curves};

}  // namespace planner::PLANNER_LEVEL
