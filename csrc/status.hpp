// Per-curve status codes. A bad curve sets its code; it never raises.
#pragma once

#include <cstdint>

namespace planner {

enum class Status : std::int32_t {
  kOk = 0,
  kEmpty = 1,     // no points at all
  kNoFinite = 2,  // points, but none finite
  kCount          // keep last: the bindings assert that they name every code
};

}  // namespace planner
