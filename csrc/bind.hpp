// The bound families: one function each, one translation unit each.
#pragma once

#include <pybind11/pybind11.h>

namespace planner {

void bind_build(pybind11::module_& m);    // compiler, SIMD levels, threads, status codes
void bind_fit(pybind11::module_& m);      // robust multi-start fits
void bind_ragged(pybind11::module_& m);   // reductions over ragged curves
void bind_testing(pybind11::module_& m);  // _testing: hooks for the tests
void bind_losslaw(pybind11::module_& m);   // loss-law fits
void bind_schedule(pybind11::module_& m);  // losses under learning-rate schedules

}  // namespace planner
