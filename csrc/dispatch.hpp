// Which SIMD level runs: the best this build and this CPU share, or the one PLANNER_SIMD names.
#pragma once

#include <string>
#include <vector>

#include "kernels/levels.hpp"

namespace planner {

struct Level {
  const char* name;
  Kernels kernels;
};

// Best first; never empty.
const std::vector<Level>& available_levels();

// Chosen at the first call that succeeds, then fixed. Throws std::invalid_argument, with a
// sentence for the user, when PLANNER_SIMD names a level that is not available.
const Level& active_level();

// The tables of the active level.
inline const Kernels& kernels() { return active_level().kernels; }

// "gcc 12.2.0", "clang 14.0.6".
std::string compiler();

}  // namespace planner
