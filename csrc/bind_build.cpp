// What the module is and runs on: compiler, SIMD levels, threads, status codes.
#include <iterator>

#include "bind.hpp"
#include "dispatch.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace py = pybind11;

namespace planner {

void bind_build(py::module_& m) {
  m.def("compiler", &compiler, "Compiler the extension was built with.");
  m.def(
      "simd_level", [] { return active_level().name; },
      "SIMD level in use; PLANNER_SIMD forces a lower one.");
  m.def(
      "simd_levels",
      [] {
        py::list names;
        for (const Level& level : available_levels()) names.append(level.name);
        return names;
      },
      "Levels this build offers and this CPU runs, best first.");
  m.def("hardware_threads", &hardware_threads,
        "CPUs this process may use: what threads=None means.");
#define PLANNER_STATUS(name, value, text) \
  m.attr("STATUS_" text) = static_cast<std::int32_t>(Status::k##name);
  PLANNER_STATUSES(PLANNER_STATUS)
#undef PLANNER_STATUS
}

}  // namespace planner
