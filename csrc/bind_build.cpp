// compiler(), simd_level(), simd_levels().
#include "bind.hpp"
#include "dispatch.hpp"

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
}

}  // namespace planner
