// Reductions over ragged curves.
#include <pybind11/stl.h>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr double kNanosecondsPerPoint = 0.6;  // bound by reading memory
constexpr double kNanosecondsPerCurve = 30.0;

py::tuple ragged_mean(const py::array& values, const py::array& offsets, Threads threads) {
  const Ragged curves = ragged_view(values, offsets);
  const RaggedKernels& kernel = *kernels().ragged;
  const double cost = kNanosecondsPerCurve + kNanosecondsPerPoint * curves.points_per_curve();
  const Batch batch = batch_of(curves.curves, cost, checked_threads(threads));

  py::array_t<double> mean(curves.curves);
  py::array_t<std::int64_t> n_finite(curves.curves);
  py::array_t<std::int32_t> status(curves.curves);
  const RaggedMean args = {curves.values, curves.offsets, mean.mutable_data(),
                           n_finite.mutable_data(), status.mutable_data()};
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int) noexcept {
    kernel.mean(args, begin, end);
  });
  return py::make_tuple(std::move(mean), std::move(n_finite), std::move(status));
}

}  // namespace

void bind_ragged(py::module_& m) {
  m.def("ragged_mean", &ragged_mean, py::arg("values"), py::arg("offsets"), py::kw_only(),
        py::arg("threads") = py::none(),
        "Mean over the finite points of each curve, summed with compensation.");
}

}  // namespace planner
