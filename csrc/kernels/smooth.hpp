// Smoothing, resampling and normalizing ragged curves: the table of functions that each level
// fills.
#pragma once

#include <cstdint>

namespace planner {

enum class Smoothing : std::int32_t {
  kCentred = 0,      // moving average; an even window has its extra point before
  kTrailing = 1,     // moving average over the point and those before it
  kExponential = 2,  // e += a (x - e), from the first usable point on
};

struct SmoothInput {
  const double* values;         // (points,)
  const std::int64_t* offsets;  // (curves + 1,)
  const double* width;          // (curves,) points in a window, or the weight a of a new point
  Smoothing kind;
};

// Windows shrink at the ends of a curve. Missing points are left out of a window; a window without
// any usable point gives NaN. An exponential average stays as it is over missing points.
struct SmoothCurves {
  SmoothInput in;
  double* smoothed;        // (points,), where the values are
  std::int64_t* n_finite;  // (curves,)
  std::int32_t* status;    // (curves,)
};

struct ResampleCurves {
  SmoothInput in;
  const double* grid;  // (grid_points,) of t/T, not decreasing
  std::int64_t grid_points;
  const double* positions;  // (points,) t/T of each point, increasing; or null: (i + 1) / total
  const double* totals;     // (curves,) points in a whole run; or null: as many as there are
  const double* divisors;   // (curves,) or null: the last smoothed value
  bool normalize;           // (s - offset) / (divisor - offset); else the smoothed values
  double offset;
  double* resampled;       // (curves, grid_points)
  double* divisor;         // (curves,)
  std::int64_t* n_finite;  // (curves,)
  std::int32_t* status;    // (curves,)
};

struct SmoothKernels {
  // Doubles of scratch for curves of up to `longest` points and a grid of so many.
  std::int64_t (*scratch)(std::int64_t longest, std::int64_t grid_points) noexcept;
  void (*smooth)(const SmoothCurves& args, std::int64_t begin, std::int64_t end,
                 double* scratch) noexcept;
  void (*resample)(const ResampleCurves& args, std::int64_t begin, std::int64_t end,
                   double* scratch) noexcept;
};

}  // namespace planner
