// The elementary functions of vmath.hpp over arrays, for tests and benchmarks.
#pragma once

#include <cstdint>

namespace planner {

struct MathKernels {
  using Unary = void (*)(const double* x, double* y, std::int64_t n) noexcept;
  using Binary = void (*)(const double* a, const double* b, double* y, std::int64_t n) noexcept;

  Unary exp;
  Unary exp_bounded;
  Unary log;
  Unary log_normal;
  Unary log1p;
  Unary reciprocal;
  Binary pow;
  double (*sum)(const double* eight) noexcept;
  bool has_fma;
};

}  // namespace planner
