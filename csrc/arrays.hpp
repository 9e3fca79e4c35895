// The edge between Python arrays and kernels: what comes in is checked once and never copied.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>

namespace planner {

// A one-dimensional view of a NumPy array that the caller keeps alive.
template <class T>
struct View {
  const T* data;
  std::int64_t size;
};

// Throws type_error unless the array is of that type, value_error unless it is one-dimensional,
// C-contiguous and aligned. `name` is the argument's name in the message.
View<double> float64_view(const pybind11::array& array, const char* name);
View<std::int64_t> int64_view(const pybind11::array& array, const char* name);

// Throws value_error unless offsets describe ragged curves inside `points` values.
void check_offsets(const View<std::int64_t>& offsets, std::int64_t points);

}  // namespace planner
