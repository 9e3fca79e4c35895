// Smoothing, resampling, normalizing.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr double kNanosecondsPerPoint = 1.0;
constexpr double kNanosecondsPerGridPoint = 3.0;
constexpr double kNanosecondsPerCurve = 100.0;

Smoothing checked_kind(int kind) {
  if (kind < 0 || kind > 2) {
    throw py::value_error("kind must be 0, 1 or 2, got " + std::to_string(kind) + ".");
  }
  return static_cast<Smoothing>(kind);
}

SmoothInput input_of(const Ragged& curves, const py::array& width, int kind) {
  const View<double> widths = float64_view(width, "width");
  check_size(widths, curves.curves, "width", "per curve");
  return {curves.values, curves.offsets, widths.data, checked_kind(kind)};
}

// Null for None, else one number per curve or per value.
const double* optional_view(const std::optional<py::array>& array, std::int64_t size,
                            const char* name, const char* per) {
  if (!array.has_value()) return nullptr;
  const View<double> view = float64_view(*array, name);
  check_size(view, size, name, per);
  return view.data;
}

py::tuple smooth_curves(const py::array& values, const py::array& offsets, const py::array& width,
                        int kind, Threads threads) {
  const Ragged curves = ragged_view(values, offsets);
  const SmoothInput in = input_of(curves, width, kind);
  const SmoothKernels& kernel = *kernels().smooth;
  const double cost = kNanosecondsPerCurve + 2 * kNanosecondsPerPoint * curves.points_per_curve();
  const Batch batch = batch_of(curves.curves, cost, checked_threads(threads));

  py::array_t<double> smoothed(values.size());
  py::array_t<std::int64_t> n_finite(curves.curves);
  py::array_t<std::int32_t> status(curves.curves);
  double* const to = smoothed.mutable_data();
  std::fill(to, to + curves.offsets[0], std::numeric_limits<double>::quiet_NaN());
  std::fill(to + curves.offsets[curves.curves], to + values.size(),
            std::numeric_limits<double>::quiet_NaN());
  const SmoothCurves args = {in, to, n_finite.mutable_data(), status.mutable_data()};
  const Scratch scratch(threads_for(batch), kernel.scratch(longest_curve(curves), 0));
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.smooth(args, begin, end, scratch.of(worker));
  });
  return py::make_tuple(std::move(smoothed), std::move(n_finite), std::move(status));
}

py::tuple resample_curves(const py::array& values, const py::array& offsets, const py::array& width,
                          int kind, const py::array& grid,
                          const std::optional<py::array>& positions,
                          const std::optional<py::array>& totals,
                          const std::optional<py::array>& divisors, bool normalize, double offset,
                          Threads threads) {
  const Ragged curves = ragged_view(values, offsets);
  const SmoothInput in = input_of(curves, width, kind);
  const View<double> points = float64_view(grid, "grid");
  const double* const at = optional_view(positions, values.size(), "positions", "per value");
  const double* const total = optional_view(totals, curves.curves, "totals", "per curve");
  const double* const divide = optional_view(divisors, curves.curves, "divisors", "per curve");
  const SmoothKernels& kernel = *kernels().smooth;
  const double cost = kNanosecondsPerCurve + kNanosecondsPerPoint * curves.points_per_curve() +
                      kNanosecondsPerGridPoint * static_cast<double>(points.size);
  const Batch batch = batch_of(curves.curves, cost, checked_threads(threads));

  py::array_t<double> resampled({curves.curves, points.size});
  py::array_t<double> divisor(curves.curves);
  py::array_t<std::int64_t> n_finite(curves.curves);
  py::array_t<std::int32_t> status(curves.curves);
  const ResampleCurves args = {in,
                               points.data,
                               points.size,
                               at,
                               total,
                               divide,
                               normalize,
                               offset,
                               resampled.mutable_data(),
                               divisor.mutable_data(),
                               n_finite.mutable_data(),
                               status.mutable_data()};
  const Scratch scratch(threads_for(batch), kernel.scratch(longest_curve(curves), points.size));
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.resample(args, begin, end, scratch.of(worker));
  });
  return py::make_tuple(std::move(resampled), std::move(divisor), std::move(n_finite),
                        std::move(status));
}

}  // namespace

void bind_smooth(py::module_& m) {
  m.def("smooth", &smooth_curves, py::arg("values"), py::arg("offsets"), py::arg("width"),
        py::arg("kind"), py::kw_only(), py::arg("threads") = py::none(),
        "Moving or exponential average at every point.");
  m.def("resample", &resample_curves, py::arg("values"), py::arg("offsets"), py::arg("width"),
        py::arg("kind"), py::arg("grid"), py::kw_only(), py::arg("positions") = py::none(),
        py::arg("totals") = py::none(), py::arg("divisors") = py::none(),
        py::arg("normalize") = false, py::arg("offset") = 0.0, py::arg("threads") = py::none(),
        "Smooth, resample to a grid of t/T, normalize.");
}

}  // namespace planner
