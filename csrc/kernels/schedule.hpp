// The Multi-Power Law, the loss of a whole run under any learning-rate schedule: what the kernels
// take.
//
// L(t) = L0 + A area(t)^-alpha - B sum_k w_k G(lr_k^-gamma S_k(t)),  G(x) = 1 - (C x + 1)^-beta,
// with w_k = lr_{k-1} - lr_k, area(t) the sum of the learning rates up to t and S_k(t) that from k
// to t. Seven parameters, always in the order L0, log A, alpha, log B, log C,
// log beta, gamma. (With log beta the valley of C and beta is nearly straight.)
#pragma once

#include <cstdint>

namespace planner {

constexpr std::int64_t kScheduleParameters = 7;

// The terms of each target (a step of a curve whose loss is wanted): steps, or blocks of steps,
// before it (csrc/schedule_terms.hpp).
struct ScheduleTerms {
  const double* s;            // (terms,) S_k(t) >= 0
  const double* log_lr;       // (terms,)
  const double* w;            // (terms,); 0 in padding
  const std::int64_t* first;  // (targets + 1,) multiples of 8
  const double* log_area;     // (targets,)
};

struct SchedulePredict {
  ScheduleTerms terms;
  const double* theta;  // (7,)
  double* loss;         // (targets,)
  double* gradient;     // (targets, 7) or null
};

struct ScheduleFit {
  ScheduleTerms terms;
  std::int64_t targets;
  std::int64_t stride;     // a fit begins on every so many targets
  const double* log_loss;  // (targets,)
  const double* weights;   // (targets,)
  const double* lower;     // (7,)
  const double* upper;     // (7,)
  double delta;
  int max_evaluations;
  const double* starts;       // (starts, 7)
  double* theta;              // (starts, 7)
  double* objective;          // (starts,)
  std::int32_t* evaluations;  // (starts,)
  std::int32_t* status;       // (starts,)
};

struct ScheduleKernels {
  // Targets begin .. end - 1.
  void (*predict)(const SchedulePredict& args, std::int64_t begin, std::int64_t end) noexcept;
  // Starts begin .. end - 1. Scratch: schedule_fit_scratch(targets).
  void (*fit)(const ScheduleFit& args, std::int64_t begin, std::int64_t end,
              double* scratch) noexcept;
};

constexpr std::int64_t schedule_fit_scratch(std::int64_t targets) { return 8 * (targets + 7); }

}  // namespace planner
