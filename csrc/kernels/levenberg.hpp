// Levenberg-Marquardt for a handful of parameters within bounds. The caller evaluates value,
// gradient and a symmetric matrix (Hessian, or a positive majorizer of it); damping comes from
// here, and indefinite matrices are damped until their Cholesky factors exist.
//
// Plain IEEE operations only, none fused: the same bits at every level for the same evaluations.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../status.hpp"
#include "lanes.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

// A point of the search and what was evaluated there.
template <std::size_t N>
struct Local {
  double theta[N];
  double value;
  double gradient[N];
  double matrix[N][N];
};

template <std::size_t N>
struct Box {
  const double* lower;  // (N,)
  const double* upper;  // (N,); lower == upper fixes a parameter
};

// Solves (M + damping diag) s = -gradient over the free parameters; the others get no step. False
// when the matrix is not positive definite.
template <std::size_t N>
__attribute__((noinline)) bool damped_step(const Local<N>& at, const bool* free, double damping,
                                           double* step) {
  int index[N];
  int n = 0;
  double largest = 0.0;
  for (int i = 0; i < static_cast<int>(N); ++i) {
    step[i] = 0.0;
    if (!free[i]) continue;
    index[n++] = i;
    const double d = __builtin_fabs(at.matrix[i][i]);
    if (d > largest) largest = d;
  }
  double l[N][N];
  double inverse[N];
  double y[N];
  for (int i = 0; i < n; ++i) {
    const double* row = at.matrix[index[i]];
    const double diagonal = __builtin_fabs(row[index[i]]);
    for (int j = 0; j <= i; ++j) {
      double t = row[index[j]];
      if (i == j) t += damping * (diagonal > 1e-12 * largest ? diagonal : 1e-12 * largest);
      for (int k = 0; k < j; ++k) t -= l[i][k] * l[j][k];
      if (i == j) {
        // A pivot that is mostly rounding is no pivot.
        if (!(t > 1e-14 * diagonal) || !(t > 0.0)) return false;
        inverse[i] = 1.0 / __builtin_sqrt(t);
      } else {
        l[i][j] = t * inverse[j];
      }
    }
    double t = -at.gradient[index[i]];
    for (int k = 0; k < i; ++k) t -= l[i][k] * y[k];
    y[i] = t * inverse[i];
  }
  for (int i = n - 1; i >= 0; --i) {
    double t = y[i];
    for (int k = i + 1; k < n; ++k) t -= l[k][i] * step[index[k]];
    step[index[i]] = t * inverse[i];
  }
  return true;
}

struct Stage {
  double relative_drop;  // stop when the drop foreseen is below this part of the value...
  double absolute_drop;  // ...or below this
  int max_evaluations;
  // Ends with the step that was not worth an evaluation, for a next stage that evaluates anew, if
  // no parameter moves further than this: on a plateau that step may go anywhere.
  double last_step = 0.0;
};

enum class Stop { kConverged, kEvaluations, kStalled };

// Goes down from `at`, which must have been evaluated. `evaluate(Local&)` fills value, gradient and
// matrix, and gives an infinite value where there is none. `enough(before, after)` may end the
// stage after an accepted step. Adds its evaluations to *evaluations.
template <std::size_t N, class Evaluate, class Enough>
Stop descend(Local<N>& at, const Box<N>& box, const Stage& stage, double& damping, int* evaluations,
             const Evaluate& evaluate, const Enough& enough) {
  Local<N> trial = {};
  bool failed = false;  // the step before
  for (int done = 0; done < stage.max_evaluations;) {
    bool free[N];
    bool moving = false;
    for (int i = 0; i < static_cast<int>(N); ++i) {
      const double g = at.gradient[i];
      free[i] = box.lower[i] < box.upper[i] && !(at.theta[i] <= box.lower[i] && g >= 0.0) &&
                !(at.theta[i] >= box.upper[i] && g <= 0.0);
      moving = moving || (free[i] && g != 0.0);
    }
    if (!moving) return Stop::kConverged;

    double step[N];
    // By small steps, for they cost little, and on a plateau, where curvature is negative, the step
    // is the longer the less damping lies above what is needed.
    if (!damped_step<N>(at, free, damping, step)) {
      damping = damping < 1e-4 ? 1e-3 : damping * 3.0;
      if (damping > 1e12) return Stop::kStalled;
      continue;
    }
    double foreseen = 0.0;
    for (int i = 0; i < static_cast<int>(N); ++i) {
      double x = at.theta[i] + step[i];
      if (x < box.lower[i]) x = box.lower[i];
      if (x > box.upper[i]) x = box.upper[i];
      trial.theta[i] = x;
      step[i] = x - at.theta[i];
    }
    for (int i = 0; i < static_cast<int>(N); ++i) {
      double t = at.gradient[i];
      for (int j = 0; j < static_cast<int>(N); ++j) t += 0.5 * at.matrix[i][j] * step[j];
      foreseen -= step[i] * t;
    }
    const double small = stage.relative_drop * at.value + stage.absolute_drop;
    if (foreseen <= small && damping <= 1.0) {
      // A step that a bound cut short foresees little, or even a rise, without being at the end.
      if (foreseen >= -small) {
        bool near = foreseen > 0.0;
        for (const double each : step) near = near && __builtin_fabs(each) <= stage.last_step;
        for (int i = 0; near && i < static_cast<int>(N); ++i) at.theta[i] = trial.theta[i];
        return Stop::kConverged;
      }
    }
    if (!(foreseen > 0.0)) {
      damping = damping < 1e-4 ? 1e-3 : damping * 10.0;
      if (damping > 1e12) return Stop::kStalled;
      continue;
    }
    evaluate(trial);
    ++done;
    ++*evaluations;
    const double drop = at.value - trial.value;
    if (drop > 0.0) {
      const double before = at.value;
      at = trial;
      if (drop > 0.75 * foreseen) {
        damping *= failed ? 0.5 : 0.1;
      } else if (drop < 0.25 * foreseen) {
        damping *= 4.0;
      }
      if (damping < 1e-12) damping = 1e-12;
      failed = false;
      if (enough(before, at.value)) return Stop::kConverged;
    } else {
      // What is left is rounding.
      if (foreseen <= 1e-13 * at.value + stage.absolute_drop) return Stop::kConverged;
      failed = true;
      damping = damping < 1e-4 ? 1e-3 : damping * 8.0;
      if (damping > 1e12) return Stop::kStalled;
    }
  }
  return Stop::kEvaluations;
}

}  // namespace
}  // namespace planner::PLANNER_LEVEL
