// Divisors that align partial curves with candidate references: the table of functions that each
// level fills.
#pragma once

#include <cstdint>

namespace planner {

enum class Alignment : std::int32_t {
  kLeastSquares = 0,
  kHuber = 1,
  kLeastAbsolute = 2,
};

struct AlignArgs {
  const double* curves;      // (curves, grid)
  const double* candidates;  // (candidates, grid), finite
  const double* squares;     // (candidates, grid + 1) sums of squares before each grid point
  std::int64_t n_candidates;
  std::int64_t grid;
  Alignment method;
  const double* delta;  // (curves,) for Huber

  double* divisor;         // (curves, candidates)
  double* objective;       // (curves, candidates)
  double* error;           // (curves, candidates) or null
  std::int64_t* n_finite;  // (curves,)
  std::int32_t* status;    // (curves, candidates)
};

struct AlignKernels {
  std::int64_t (*scratch)(std::int64_t grid) noexcept;  // doubles
  // Sums of squares of candidates begin..end-1.
  void (*squares)(const double* candidates, std::int64_t grid, double* to, std::int64_t begin,
                  std::int64_t end) noexcept;
  // Curves begin..end-1 against all candidates.
  void (*align)(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept;
};

}  // namespace planner
