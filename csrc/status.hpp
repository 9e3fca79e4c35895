// Per-curve status codes, shared by all kernels. A bad curve sets its code; it never raises.
// planner/kernel/status.py mirrors them for Python (a test compares).
#pragma once

#include <cstdint>

namespace planner {

// X(name in C++, value, name in Python). Values are stable: they are stored in files.
#define PLANNER_STATUSES(X)                                                                \
  X(Ok, 0, "OK")                        /* done; for a fit: converged */                   \
  X(Empty, 1, "EMPTY")                  /* no points at all */                             \
  X(NonFinite, 2, "NON_FINITE")         /* no usable point, or the result is not finite */ \
  X(TooFewPoints, 3, "TOO_FEW_POINTS")  /* fewer usable points than the task needs */      \
  X(MaxIterations, 4, "MAX_ITERATIONS") /* stopped at the iteration limit */               \
  X(Stalled, 5, "STALLED")              /* no step goes down, yet not converged */         \
  X(BoundActive, 6, "BOUND_ACTIVE")     /* converged with a parameter at its bound */      \
  X(SingularCovariance, 7, "SINGULAR_COVARIANCE") /* converged, but no covariance */       \
  X(ScreenedOut, 8, "SCREENED_OUT")               /* a start that screening dropped */

enum class Status : std::int32_t {
#define PLANNER_STATUS(name, value, text) k##name = value,
  PLANNER_STATUSES(PLANNER_STATUS)
#undef PLANNER_STATUS
};

}  // namespace planner
