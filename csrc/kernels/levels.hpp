// Which tables there are: one per workload and SIMD level. csrc/README.md says how to add one.
//
// Read by per-level sources too: declarations and plain types only, nothing that emits a symbol.
#pragma once

#include "align.hpp"
#include "fit.hpp"
#include "losslaw.hpp"
#include "math.hpp"
#include "ragged.hpp"
#include "residual.hpp"
#include "schedule.hpp"
#include "smooth.hpp"

// X(type of the table, name of the table); the name is also that of kernels/<name>.cpp.
#define PLANNER_WORKLOADS(X)   \
  X(AlignKernels, align)       \
  X(FitKernels, fit)           \
  X(LosslawKernels, losslaw)   \
  X(MathKernels, math)         \
  X(RaggedKernels, ragged)     \
  X(ResidualKernels, residual) \
  X(ScheduleKernels, schedule) \
  X(SmoothKernels, smooth)

// X(level), best first. CMake defines PLANNER_HAVE_X86_LEVELS when it builds all three.
#if defined(PLANNER_HAVE_X86_LEVELS)
#define PLANNER_LEVELS(X) X(avx512) X(avx2) X(baseline)
#elif defined(__x86_64__)
#define PLANNER_LEVELS(X) X(baseline)
#else
#define PLANNER_LEVELS(X) X(scalar)
#endif

namespace planner {

#define PLANNER_DECLARE(Type, name) extern const Type name;
#define PLANNER_DECLARE_LEVEL(level) \
  namespace level {                  \
  PLANNER_WORKLOADS(PLANNER_DECLARE) \
  }
PLANNER_LEVELS(PLANNER_DECLARE_LEVEL)
#undef PLANNER_DECLARE_LEVEL
#undef PLANNER_DECLARE

// All tables of one level: kernels().ragged->mean(...).
struct Kernels {
#define PLANNER_MEMBER(Type, name) const Type* name;
  PLANNER_WORKLOADS(PLANNER_MEMBER)
#undef PLANNER_MEMBER
};

}  // namespace planner
