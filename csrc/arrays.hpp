// The edge between Python arrays and kernels: what comes in is checked once and never copied.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>

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

// The curves of a ragged input, checked: curve i is values[offsets[i] .. offsets[i + 1]).
struct Ragged {
  const double* values;
  const std::int64_t* offsets;
  std::int64_t curves;
  std::int64_t points;  // in all curves together

  double points_per_curve() const {
    return curves == 0 ? 0.0 : static_cast<double>(points) / static_cast<double>(curves);
  }
};
Ragged ragged_view(const pybind11::array& values, const pybind11::array& offsets);

// Points of the longest curve; 0 without curves.
std::int64_t longest_curve(const Ragged& curves);

// Throws value_error unless the array holds `size` numbers: one "per curve", "per point".
template <class T>
void check_size(const View<T>& view, std::int64_t size, const char* name, const char* per) {
  if (view.size == size) return;
  throw pybind11::value_error(std::string(name) + " must hold one number " + per + " (" +
                              std::to_string(size) + "), got " + std::to_string(view.size) + ".");
}

}  // namespace planner
