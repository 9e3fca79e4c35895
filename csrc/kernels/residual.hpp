// Scoring runs against their reference in one pass: the table of functions that each level fills.
#pragma once

#include <cstdint>

namespace planner {

// Everything but `least_noise` is in units of the calibrated noise.
struct ResidualRules {
  double window_z;     // a spike is farther than this from the mean of the window before it
  double cusum_slack;  // k
  double cusum_limit;  // h
  double ph_slack;     // delta
  double ph_limit;     // lambda
  double clip;         // residuals count as no farther than this from the level
  double least_noise;  // units of the values
};

struct ResidualArgs {
  const double* values;         // (points,)
  const double* reference;      // (points,)
  const std::int64_t* offsets;  // (runs + 1,)
  const std::int64_t* order;    // (runs,) which run is which lane; neighbours of like length
  std::int64_t runs;
  ResidualRules rules;

  double* residual;  // (points,) or null
  double* z;         // (points,) or null

  double* level;  // (runs,) mean and standard deviation of the residual over the calibration
  double* noise;
  double* slope;   // of the residual after the calibration, per point
  double* lowest;  // smallest and largest residual after the calibration
  double* highest;
  std::int64_t* n_finite;
  std::int64_t* spikes;
  std::int64_t* first_spike;  // steps are indices into the run; -1: never
  std::int64_t* cusum_up;
  std::int64_t* cusum_down;
  std::int64_t* page_hinkley;
  std::int64_t* deviates;  // where the rise or fall that first set off a CUSUM began
  std::int32_t* status;
};

struct ResidualKernels {
  // Groups begin..end-1 of eight runs each, in `order`; the last may be smaller.
  void (*score)(const ResidualArgs& args, std::int64_t begin, std::int64_t end) noexcept;
};

}  // namespace planner
