// Reductions over ragged curves: the table of functions that each level fills.
#pragma once

#include <cstdint>

namespace planner {

struct RaggedMean {
  const double* values;         // (points,)
  const std::int64_t* offsets;  // (curves + 1,)
  double* mean;                 // (curves,)
  std::int64_t* n_finite;       // (curves,)
  std::int32_t* status;         // (curves,)
};

struct RaggedKernels {
  // Mean over the usable points of curves begin..end-1.
  void (*mean)(const RaggedMean& args, std::int64_t begin, std::int64_t end) noexcept;
};

}  // namespace planner
