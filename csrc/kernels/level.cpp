// Compiled once per SIMD level, with PLANNER_LEVEL naming the level's namespace and the compiler
// told to use that level's instructions. The only symbol with linkage is the table.
#include <cstdint>

#include "../kernels.hpp"
#include "../status.hpp"

// The level is what the instructions are, not only what the label says.
#if defined(PLANNER_LEVEL_IS_avx512)
static_assert(__AVX512F__ && __AVX512VL__ && __AVX512DQ__ && __FMA__, "built without AVX-512");
#elif defined(PLANNER_LEVEL_IS_avx2)
static_assert(__AVX2__ && __FMA__, "built without AVX2");
#if defined(__AVX512F__)
#error "the avx2 level must not use AVX-512"
#endif
#elif defined(__AVX__)
#error "the baseline level must run on every x86-64"
#endif
#if defined(__FAST_MATH__)
#error "-ffast-math breaks the NaN tests and the compensated sums"
#endif

namespace planner::PLANNER_LEVEL {
namespace {

#include "lanes.hpp"
// One kernel per header, after lanes.hpp.
#include "ragged_mean.hpp"

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {ragged_mean};

}  // namespace planner::PLANNER_LEVEL
