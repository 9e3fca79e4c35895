#include <cmath>
#include <limits>

#include "check.hpp"

namespace {

using planner::MathKernels;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

double one(MathKernels::Unary f, double x) {
  double y = 0.0;
  f(&x, &y, 1);
  return y;
}

// The largest error over log-spaced x, in units of 2^-52 of the result; libm is right to an ulp.
double worst(MathKernels::Unary f, double (*oracle)(double), double low, double high,
             bool negative) {
  std::mt19937_64 random(3);
  std::vector<double> x(40003);
  std::vector<double> y(x.size());
  for (double& each : x) {
    const double u = planner::tests::uniform(random);
    each = std::exp((1.0 - u) * std::log(low) + u * std::log(high));
    if (negative && (random() & 1) != 0) each = -each;
  }
  f(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  double most = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = oracle(x[i]);
    if (exact == 0.0 && y[i] == 0.0) continue;
    most = std::max(most, std::abs(y[i] - exact) / (std::abs(exact) * 0x1p-52));
  }
  return most;
}

double inverse(double x) { return 1.0 / x; }
double exp_of(double x) { return std::exp(x); }
double log_of(double x) { return std::log(x); }
double log1p_of(double x) { return std::log1p(x); }

}  // namespace

TEST(math_accuracy) {
  for (const planner::Level& level : planner::available_levels()) {
    const MathKernels& m = *level.kernels.math;
    CHECK(worst(m.exp, exp_of, 1e-10, 708.0, true) <= 2.0);
    CHECK(worst(m.exp_bounded, exp_of, 1e-10, 708.0, true) <= 2.0);
    CHECK(worst(m.log, log_of, 1e-308, 1e308, false) <= 2.5);
    CHECK(worst(m.log, log_of, 0.5, 2.0, false) <= 2.5);
    CHECK(worst(m.log_normal, log_of, 1e-307, 1e308, false) <= 2.5);
    CHECK(worst(m.log1p, log1p_of, 1e-18, 0.9, true) <= 4.0);
    CHECK(worst(m.log1p, log1p_of, 1e-3, 1e300, false) <= 4.0);
    CHECK(worst(m.reciprocal, inverse, 1e-300, 1e300, true) <= 2.0);
  }
}

TEST(math_edges) {
  for (const planner::Level& level : planner::available_levels()) {
    const MathKernels& m = *level.kernels.math;
    CHECK(one(m.exp, 0.0) == 1.0);
    CHECK(one(m.exp, -0.0) == 1.0);
    CHECK(one(m.exp, kInf) == kInf);
    CHECK(one(m.exp, -kInf) == 0.0);
    CHECK(one(m.exp, 1e300) == kInf);
    CHECK(one(m.exp, -1e300) == 0.0);
    CHECK(one(m.exp, 709.782712893384) < kInf);
    CHECK(one(m.exp, 709.7827128933841) == kInf);
    CHECK(one(m.exp, -745.1332191019411) == 5e-324);
    CHECK(one(m.exp, -745.14) == 0.0);
    CHECK(std::isnan(one(m.exp, kNan)));
    CHECK(one(m.log, 1.0) == 0.0);
    CHECK(one(m.log, 0.0) == -kInf);
    CHECK(one(m.log, -0.0) == -kInf);
    CHECK(one(m.log, kInf) == kInf);
    CHECK(std::isnan(one(m.log, -1.0)));
    CHECK(std::isnan(one(m.log, -kInf)));
    CHECK(std::isnan(one(m.log, kNan)));
    CHECK(std::abs(one(m.log, 5e-324) - std::log(5e-324)) < 1e-12);
    CHECK(one(m.log1p, 0.0) == 0.0);
    CHECK(one(m.log1p, -1.0) == -kInf);
    CHECK(one(m.log1p, 1e-300) == 1e-300);
    CHECK(one(m.log1p, kInf) == kInf);
    CHECK(std::isnan(one(m.log1p, -2.0)));
    const double eight[] = {1e16, 1.0, -1e16, 1.0, 3.0, -0.0, 7.0, 1e-3};
    const double tree = (((eight[0] + eight[4]) + (eight[2] + eight[6])) +
                         ((eight[1] + eight[5]) + (eight[3] + eight[7])));
    CHECK(m.sum(eight) == tree);
  }
}

TEST(math_same_bits_with_fma) {
  std::mt19937_64 random(5);
  std::vector<double> x(20011);
  for (double& each : x) {
    const std::uint64_t pattern = random();  // any double at all
    __builtin_memcpy(&each, &pattern, sizeof each);
  }
  for (MathKernels::Unary MathKernels::* f :
       {&MathKernels::exp, &MathKernels::log, &MathKernels::log1p}) {
    std::vector<double> first;
    for (const planner::Level& level : planner::available_levels()) {
      if (!level.kernels.math->has_fma) continue;
      std::vector<double> y(x.size());
      (level.kernels.math->*f)(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
      if (first.empty()) first = y;
      bool equal = true;
      for (std::size_t i = 0; i < x.size(); ++i) equal = equal && same(first[i], y[i]);
      CHECK(equal);
    }
  }
}
