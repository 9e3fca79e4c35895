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

// The seven derivatives of the loss of eight targets, and the losses, from their sums.
PLANNER_INLINE Vec losses_of(const double* theta, const Scales& scales, const Vec& log_area,
                             const Vec& drop, const Vec& by_log_c, const Vec& by_beta,
                             const Vec& by_gamma, Vec* gradient) {
  const Vec decay = scales.a * vexp_bounded(-theta[kAlpha] * log_area);
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

// Eight targets, `stride` apart; those from `count` on are the first again.
struct Eight {
  double log_area[kLanes];
  double drop[kLanes];
  double by_log_c[kLanes];
  double by_beta[kLanes];
  double by_gamma[kLanes];
};

template <bool kGradient>
PLANNER_INLINE Vec eight_losses(const ScheduleTerms& terms, std::int64_t from, std::int64_t stride,
                                std::int64_t count, const double* theta, const Scales& scales,
                                Vec* gradient) {
  const Vec gamma = vec(-theta[kGamma]);
  const Vec beta = vec(-scales.beta);
  const Vec scale = vec(scales.c);
  Eight eight;
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    const std::int64_t target = lane < count ? from + lane * stride : from;
    const Sums sums = sums_of<kGradient>(terms, target, gamma, beta, scale);
    eight.log_area[lane] = terms.log_area[target];
    eight.drop[lane] = sums.drop;
    eight.by_log_c[lane] = sums.by_log_c;
    eight.by_beta[lane] = sums.by_beta;
    eight.by_gamma[lane] = sums.by_gamma;
  }
  return losses_of(theta, scales, load(eight.log_area), load(eight.drop), load(eight.by_log_c),
                   load(eight.by_beta), load(eight.by_gamma), gradient);
}

template <bool kGradient>
void predict_as(const SchedulePredict& args, std::int64_t begin, std::int64_t end) {
  const Scales scales = scales_of(args.theta);
  for (std::int64_t from = begin; from < end; from += kLanes) {
    const std::int64_t count = end - from < kLanes ? end - from : kLanes;
    Vec by[kN];
    double out[kLanes];
    store(out, eight_losses<kGradient>(args.terms, from, 1, count, args.theta, scales, by));
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

// Value, gradient and a positive matrix. Reweighted: sum min(1, delta / |r|) g g'; else only the
// targets within delta count, as in the Hessian. Over every stride-th target.
__attribute__((noinline)) void evaluate(const ScheduleFit& args, std::int64_t stride, double delta,
                                        bool reweighted, Point& at) {
  const Scales scales = scales_of(at.theta);
  const Vec limit = vec(delta);
  Vec value = vec(0.0);
  Vec g[kN];
  Vec h[kN][kN];
  for (int i = 0; i < kN; ++i) {
    g[i] = vec(0.0);
    for (int j = 0; j <= i; ++j) h[i][j] = vec(0.0);
  }
  for (std::int64_t from = 0; from < args.targets; from += kLanes * stride) {
    const std::int64_t left = (args.targets - from + stride - 1) / stride;
    const std::int64_t count = left < kLanes ? left : kLanes;
    double log_losses[kLanes];
    double weights[kLanes];
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const std::int64_t target = lane < count ? from + lane * stride : from;
      log_losses[lane] = args.log_loss[target];
      weights[lane] = lane < count ? args.weights[target] : 0.0;
    }
    const Vec w = load(weights);
    Vec by[kN];
    const Vec loss = eight_losses<true>(args.terms, from, stride, count, at.theta, scales, by);
    double losses[kLanes];
    store(losses, loss);
    for (std::int64_t lane = 0; lane < count; ++lane) {
      if (weights[lane] > 0.0 && !(losses[lane] > 1e-300 && losses[lane] < 1e300)) {
        at.value = kInf;
        return;
      }
    }
    const Vec usable = max(min(loss, vec(1e300)), vec(1e-300));  // where the weight is zero
    const Vec r = load(log_losses) - vlog_normal(usable);
    const Vec size = abs(r);
    const Vec psi = max(min(r, limit), -limit);
    const Vec over = 1.0 / usable;
    const Vec m = w * psi;
    value = fma(m, fma(psi, -0.5, r), value);
    const Vec pull = m * over;
    const Vec inside =
        reweighted ? w * select(size <= limit, 1.0, limit / size) : keep(w, size <= limit);
    const Vec weight = inside * over * over;
    for (int i = 0; i < kN; ++i) {
      g[i] = fnma(pull, by[i], g[i]);
      const Vec hg = weight * by[i];
      for (int j = 0; j <= i; ++j) h[i][j] = fma(hg, by[j], h[i][j]);
    }
  }
  at.value = sum(value);
  for (int i = 0; i < kN; ++i) {
    at.gradient[i] = sum(g[i]);
    for (int j = 0; j <= i; ++j) at.matrix[i][j] = at.matrix[j][i] = sum(h[i][j]);
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
  // The Huber width comes down in stages, then all targets count.
  constexpr double kWidths[] = {30.0, 3.0, 1.0, 1.0};
  const int stages = args.stride > 1 ? 4 : 3;
  int evaluations = 0;
  double damping = 1e-3;
  double delta = 0.0;
  std::int64_t stride = 1;
  bool reweighted = true;
  bool finite = true;
  Stop stop = Stop::kEvaluations;
  const auto run = [&](Point& p) { evaluate(args, stride, delta, reweighted, p); };
  // In each: reweighted while that goes fast, then as Newton.
  for (int stage = 0; stage < stages && finite; ++stage) {
    const bool last = stage + 1 == stages;
    delta = kWidths[stage] * args.delta;
    stride = last ? 1 : args.stride;
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
