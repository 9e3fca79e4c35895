#include "arrays.hpp"

#include <algorithm>
#include <string>

namespace py = pybind11;

namespace planner {

namespace {

template <class T>
View<T> view(const py::array& array, const char* name, const char* type_name) {
  const std::string wanted =
      std::string(name) + " must be a one-dimensional C-contiguous " + type_name + " array, got ";
  if (!py::isinstance<py::array_t<T>>(array)) {
    throw py::type_error(wanted + py::str(array.dtype()).cast<std::string>() + ".");
  }
  if (array.ndim() != 1) {
    throw py::value_error(wanted + std::to_string(array.ndim()) + " dimensions.");
  }
  const bool contiguous = (array.flags() & py::array::c_style) != 0;
  const bool aligned = reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0;
  if (!contiguous || !aligned) {
    throw py::value_error(wanted + (contiguous ? "unaligned memory." : "a strided view."));
  }
  return {static_cast<const T*>(array.data()), static_cast<std::int64_t>(array.size())};
}

}  // namespace

View<double> float64_view(const py::array& array, const char* name) {
  return view<double>(array, name, "float64");
}

View<std::int64_t> int64_view(const py::array& array, const char* name) {
  return view<std::int64_t>(array, name, "int64");
}

void check_offsets(const View<std::int64_t>& offsets, std::int64_t points) {
  if (offsets.size == 0) throw py::value_error("offsets must hold at least one number, got none.");
  if (offsets.data[0] < 0) {
    throw py::value_error("offsets[0] must not be negative, got " +
                          std::to_string(offsets.data[0]) + ".");
  }
  for (std::int64_t i = 1; i < offsets.size; ++i) {
    if (offsets.data[i] < offsets.data[i - 1]) {
      throw py::value_error(
          "offsets must not decrease, got " + std::to_string(offsets.data[i - 1]) + " then " +
          std::to_string(offsets.data[i]) + " at index " + std::to_string(i) + ".");
    }
  }
  const std::int64_t last = offsets.data[offsets.size - 1];
  if (last > points) {
    throw py::value_error("offsets end at " + std::to_string(last) + ", past the " +
                          std::to_string(points) + " values.");
  }
}

Ragged ragged_view(const py::array& values, const py::array& offsets) {
  const View<double> points = float64_view(values, "values");
  const View<std::int64_t> ends = int64_view(offsets, "offsets");
  check_offsets(ends, points.size);
  const std::int64_t curves = ends.size - 1;
  return {points.data, ends.data, curves, ends.data[curves] - ends.data[0]};
}

std::int64_t longest_curve(const Ragged& curves) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < curves.curves; ++i) {
    longest = std::max(longest, curves.offsets[i + 1] - curves.offsets[i]);
  }
  return longest;
}

}  // namespace planner
