// planner._core: only the list of families. What each offers is in its own bind_*.cpp.
#include <pybind11/pybind11.h>

#include "bind.hpp"
#include "call.hpp"

// The module keeps no Python state and its kernels only read their inputs.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The compiled kernel: arrays in, arrays and status codes out.";
  planner::import_numpy();
  planner::bind_align(m);
  planner::bind_build(m);
  planner::bind_fit(m);
  planner::bind_losslaw(m);
  planner::bind_ragged(m);
  planner::bind_residual(m);
  planner::bind_schedule(m);
  planner::bind_smooth(m);
  planner::bind_testing(m);
}
