// Which SIMD level runs: the best this build and this CPU share, or the one PLANNER_SIMD names.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace planner {

struct Level {
  const char* name;
  const Kernels* kernels;
};

// Best first; never empty.
const std::vector<Level>& available_levels();

// Chosen at the first call that succeeds, then fixed. Throws std::invalid_argument, with a
// sentence for the user, when PLANNER_SIMD names a level that is not available.
const Level& active_level();

// "gcc 12.2.0", "clang 14.0.6".
std::string compiler();

}  // namespace planner
