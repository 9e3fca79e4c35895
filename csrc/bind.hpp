// The bound families: one function each, one translation unit each.
#pragma once

#include <pybind11/pybind11.h>

namespace planner {

void bind_align(pybind11::module_& m);     // divisors of partial curves
void bind_build(pybind11::module_& m);     // compiler, SIMD levels, threads, status codes
void bind_fit(pybind11::module_& m);       // robust multi-start fits
void bind_losslaw(pybind11::module_& m);   // loss-law fits
void bind_ragged(pybind11::module_& m);    // reductions over ragged curves
void bind_residual(pybind11::module_& m);  // scoring runs against their reference
void bind_schedule(pybind11::module_& m);  // losses under learning-rate schedules
void bind_smooth(pybind11::module_& m);    // smoothing, resampling, normalizing
void bind_testing(pybind11::module_& m);   // _testing: hooks for the tests

}  // namespace planner
