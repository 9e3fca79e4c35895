// The bound families: one function each, one translation unit each.
#pragma once

#include <pybind11/pybind11.h>

namespace planner {

void bind_build(pybind11::module_& m);   // compiler, SIMD levels
void bind_ragged(pybind11::module_& m);  // reductions over ragged curves

}  // namespace planner
