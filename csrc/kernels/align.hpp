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
  double* packed;   // (candidates, stride), 64-byte aligned: the candidates, zeros after them
  double* squares;  // (grid + 1, columns) sums of squares before each grid point
  std::int64_t n_candidates;
  std::int64_t grid;
  std::int64_t stride;   // grid, rounded up to 8
  std::int64_t columns;  // n_candidates, rounded up to 8
  Alignment method;
  const double* delta;  // (curves,) for Huber

  double* divisor;         // (curves, candidates)
  double* objective;       // (curves, candidates)
  double* error;           // (curves, candidates) or null
  std::int64_t* n_finite;  // (curves,)
  std::int32_t* status;    // (curves, candidates)
};

struct AlignKernels {
  // Doubles, 64-byte aligned.
  std::int64_t (*scratch)(std::int64_t grid, std::int64_t n_candidates) noexcept;
  // Fills packed and squares for candidates begin..end-1.
  void (*prepare)(const AlignArgs& args, std::int64_t begin, std::int64_t end) noexcept;
  // Curves begin..end-1 against all candidates.
  void (*align)(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept;
};

}  // namespace planner
