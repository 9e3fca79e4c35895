// The kernels as a table of plain functions. Each SIMD level fills one table from the same
// sources (kernels/level.cpp); dispatch.cpp picks the table at run time.
//
// This header is read by ISA-specific translation units: declarations and plain types only, and
// nothing that emits a weak symbol (no std:: templates, no inline functions with linkage).
#pragma once

#include <cstdint>

namespace planner {

struct Kernels {
  // Mean over the finite points of each of n curves; curve i is values[offsets[i] .. offsets[i+1]).
  void (*ragged_mean)(const double* values, const std::int64_t* offsets, std::int64_t n,
                      double* mean, std::int64_t* n_finite, std::int32_t* status);
};

// One per level built; CMake defines PLANNER_HAVE_X86_LEVELS when all three are there.
#if defined(PLANNER_HAVE_X86_LEVELS)
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
#if defined(__x86_64__)
namespace baseline {
extern const Kernels kernels;
}
#else
namespace scalar {
extern const Kernels kernels;
}
#endif

}  // namespace planner
