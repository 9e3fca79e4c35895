// Robust multi-start fits of ragged curves: the table of functions that each level fills.
#pragma once

#include <cstdint>

namespace planner {

// Parameters of the models, in order.
//   curve:      log_eps1, m, b, q, eps2, scale
//               scale (((1 + eps1) / (x + eps1))^m + b (eta + eps2)^q)
//   normalized: the same, divided by its value at x = 1: by 1 + b (eta_end + eps2)^q
//   power:      e, a, alpha, x0             e + a (x + x0)^-alpha
enum class FitModel : std::int32_t { kCurve = 0, kNormalized = 1, kPower = 2 };

constexpr std::int64_t kFitParameters = 6;  // the most a model has; kPower has four
constexpr std::int64_t kFitStarts = 64;     // the most starts a call may give
constexpr std::int64_t kFitCoarse = 160;    // points of the coarse stage
// A schedule of exactly 0 (the end of a linear decay) counts as this where eps2 is 0.
constexpr double kFitEtaFloor = 1e-6;

struct FitArgs {
  const double* y;              // (points,)
  const double* x;              // (points,)
  const double* eta;            // (points,), or null for kPower
  const double* weights;        // (points,), or null for 1 everywhere
  const std::int64_t* offsets;  // (curves + 1,)
  const double* eta_end;        // (curves,), for kNormalized; else may be null
  FitModel model;
  // Bounds of the parameters; a parameter whose bounds are equal is fixed.
  const double* lower;        // (parameters,) or (curves, parameters)
  const double* upper;        // likewise
  std::int64_t bound_stride;  // 0 or parameters
  const double* delta;        // (1,) or (curves,): Huber's threshold; infinity is least squares
  std::int64_t delta_stride;  // 0 or 1
  const double* starts;       // (n_starts, parameters); for kPower x0 is in units of the x span
  std::int64_t n_starts;
  std::int64_t n_thin_starts;  // enough for a thinned curve where they agree
  bool brute;                  // all starts on all points, instead of coarse to fine
  double ftol;
  std::int64_t max_iterations;
  bool covariance;
  std::int64_t block;       // bootstrap block in points; 0: chosen for each curve
  std::int64_t replicates;  // of the block bootstrap
  std::uint64_t seed;
  std::int64_t longest;  // points of the longest curve

  double* theta;                     // (curves, parameters)
  double* objective;                 // (curves,)
  double* cov;                       // (curves, parameters, parameters), or null without covariance
  double* autocorrelation;           // (curves,), or null without covariance
  double* samples;                   // (curves, replicates, parameters), or null without replicates
  std::int64_t* evaluations;         // (curves,) of all points
  std::int64_t* coarse_evaluations;  // (curves,)
  std::int64_t* iterations;          // (curves,) of the winning start, on all points
  std::int64_t* n_points;            // (curves,) usable ones
  std::int32_t* status;              // (curves,)
};

struct FitKernels {
  // float64 of scratch memory that fit() needs when no curve is longer than `longest`.
  std::int64_t (*scratch)(std::int64_t longest) noexcept;
  // Fits curves begin..end-1.
  void (*fit)(const FitArgs& args, std::int64_t begin, std::int64_t end, double* scratch) noexcept;
};

}  // namespace planner
