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

// Curves that are worked on together: chunks are best multiples of it.
constexpr std::int64_t kAlignGroup = 32;

struct AlignArgs {
  const double* curves;      // (curves, grid)
  const double* candidates;  // (candidates, grid), finite
  double* tables;            // memory for what `prepare` makes of the candidates, 64-byte aligned
  std::int64_t n_curves;
  std::int64_t n_candidates;
  std::int64_t grid;
  Alignment method;
  const double* delta;  // (curves,) for Huber

  double* divisor;         // (curves, candidates)
  double* objective;       // (curves, candidates)
  double* error;           // (curves, candidates) or null
  std::int64_t* n_finite;  // (curves,)
  std::int32_t* status;    // (curves, candidates)
  // Huber's passes over the points, (curves, candidates), left as it is elsewhere; or null.
  std::int32_t* iterations;
};

struct AlignKernels {
  // Doubles of `tables`, items of `prepare`, and doubles of scratch memory, 64-byte aligned.
  std::int64_t (*tables)(std::int64_t grid, std::int64_t n_candidates) noexcept;
  std::int64_t (*panels)(std::int64_t n_candidates) noexcept;
  std::int64_t (*scratch)(std::int64_t grid, std::int64_t n_candidates) noexcept;
  // Fills its part of `tables`, for panels begin..end-1 of candidates.
  void (*prepare)(const AlignArgs& args, std::int64_t begin, std::int64_t end) noexcept;
  // Curves begin..end-1 against all candidates.
  void (*align)(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept;
};

}  // namespace planner
