#include "math.hpp"

#include "lanes.hpp"
#include "levels.hpp"
#include "vmath.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

// y[i] = f(x[i]). Two vectors at a time where registers allow: their chains of FMAs overlap.
#define PLANNER_UNARY(name, f, rest)                                       \
  void name(const double* x, double* y, std::int64_t n) noexcept {         \
    constexpr std::int64_t two = 2 * kLanes;                               \
    std::int64_t i = 0;                                                    \
    for (; kParts == 1 && i + two <= n; i += two) {                        \
      const Vec a = f(load(x + i));                                        \
      const Vec b = f(load(x + i + kLanes));                               \
      store(y + i, a);                                                     \
      store(y + i + kLanes, b);                                            \
    }                                                                      \
    for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));     \
    if (i < n) store_tail(y + i, f(load_tail(x + i, n - i, rest)), n - i); \
  }
PLANNER_UNARY(exp, vexp, 0.0)
PLANNER_UNARY(exp_bounded, vexp_bounded, 0.0)
PLANNER_UNARY(log, vlog, 1.0)
PLANNER_UNARY(log_normal, vlog_normal, 1.0)
PLANNER_UNARY(log1p, vlog1p, 0.0)
PLANNER_UNARY(reciprocal, vrecip, 1.0)

void pow(const double* a, const double* b, double* y, std::int64_t n) noexcept {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, vpow(load(a + i), load(b + i)));
  if (i < n) {
    const Vec r = vpow(load_tail(a + i, n - i, 1.0), load_tail(b + i, n - i, 1.0));
    store_tail(y + i, r, n - i);
  }
}

double sum_eight(const double* eight) noexcept { return sum(load(eight)); }

}  // namespace

const MathKernels math = {exp,        exp_bounded, log,       log_normal, log1p,
                          reciprocal, pow,         sum_eight, kHasFma};

}  // namespace planner::PLANNER_LEVEL
