// The loss law L = E + A / N^alpha + B / D^beta by Huber on log residuals: what the kernels take.
//
// Six parameters, always in this order: a = log A, b = log B, e = log E, alpha, beta, and
// s = log R*, where tokens are repeated (else fixed at 0). a and b are those of centred log N and
// log D: the logs of the terms at the points' mean.
#pragma once

#include <cstdint>

namespace planner {

constexpr std::int64_t kLossLawParameters = 6;

// The points and the form of the law; (padded,) is the number of points rounded up to eights, with
// zeros behind the points.
struct LossLaw {
  const double* x;        // (padded,) log N, centred
  const double* y;        // (padded,) log D, centred; log of the unique tokens with `repeats`
  const double* z;        // (padded,) log L
  const double* repeats;  // (padded,) R = D / U - 1 >= 0, where s is a parameter; or null
  const double* weights;  // (padded,) >= 0; 0 behind the points
  std::int64_t points;
  std::int64_t padded;
  double x_limit;  // largest |x|
  double y_limit;  // largest |y| for any s
  double lower[6];
  double upper[6];  // == lower for a fixed parameter
  bool tied;        // beta = alpha
  double delta;     // of the Huber loss
};

struct LossLawScreen {
  LossLaw law;
  const double* starts;  // (starts, 6)
  std::int64_t count;    // starts
  std::int64_t stride;   // uses every so many points to move
  int steps;
  double delta;        // of these steps
  double score_delta;  // of the score
  double* theta;       // (starts, 6)
  double* score;       // (starts,) on all points
};

struct LossLawFit {
  LossLaw law;
  const double* starts;  // (starts, 6)
  int max_evaluations;
  bool screened;              // the starts are near an end already
  double* theta;              // (starts, 6)
  double* objective;          // (starts,)
  std::int32_t* evaluations;  // (starts,)
  std::int32_t* status;       // (starts,)
};

struct LossLawRefit {
  LossLaw law;
  const std::uint8_t* counts;  // (sets, points)
  const double* starts;        // (starts, 6), the same for every set; the best end wins
  std::int64_t n_starts;
  int max_evaluations;
  double* theta;              // (sets, 6)
  double* objective;          // (sets,)
  std::int32_t* evaluations;  // (sets,) of all starts
  std::int32_t* status;       // (sets,)
};

struct LosslawKernels {
  // Starts 8 begin .. 8 end - 1, eight in the lanes. Scratch: losslaw_screen_scratch().
  void (*screen)(const LossLawScreen& args, std::int64_t begin, std::int64_t end,
                 double* scratch) noexcept;
  // Scratch: losslaw_fit_scratch(padded), 64-byte aligned.
  void (*fit)(const LossLawFit& args, std::int64_t begin, std::int64_t end,
              double* scratch) noexcept;
  void (*refit)(const LossLawRefit& args, std::int64_t begin, std::int64_t end,
                double* scratch) noexcept;
};

constexpr std::int64_t kLossLawBlock = 256;  // points whose exp and log are done at a time

constexpr std::int64_t losslaw_screen_scratch() { return 5 * 8 * kLossLawBlock; }
constexpr std::int64_t losslaw_fit_scratch(std::int64_t padded) {
  return 7 * kLossLawBlock + 5 * padded;
}

}  // namespace planner
