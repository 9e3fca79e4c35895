// Reductions over ragged curves.
#include "arrays.hpp"
#include "bind.hpp"
#include "dispatch.hpp"
#include "status.hpp"

namespace py = pybind11;

namespace planner {

namespace {

py::tuple ragged_mean(const py::array& values, const py::array& offsets) {
  const View<double> points = float64_view(values, "values");
  const View<std::int64_t> ends = int64_view(offsets, "offsets");
  check_offsets(ends, points.size);
  const Kernels& kernels = *active_level().kernels;

  const std::int64_t curves = ends.size - 1;
  py::array_t<double> mean(curves);
  py::array_t<std::int64_t> n_finite(curves);
  py::array_t<std::int32_t> status(curves);
  double* const mean_out = mean.mutable_data();
  std::int64_t* const n_finite_out = n_finite.mutable_data();
  std::int32_t* const status_out = status.mutable_data();
  {
    const py::gil_scoped_release release;
    kernels.ragged_mean(points.data, ends.data, curves, mean_out, n_finite_out, status_out);
  }
  return py::make_tuple(std::move(mean), std::move(n_finite), std::move(status));
}

void name_status(py::module_& m, const char* name, Status code) {
  m.attr(name) = static_cast<std::int32_t>(code);
}

}  // namespace

void bind_ragged(py::module_& m) {
  static_assert(static_cast<int>(Status::kCount) == 3, "name the new status code below");
  name_status(m, "STATUS_OK", Status::kOk);
  name_status(m, "STATUS_EMPTY", Status::kEmpty);
  name_status(m, "STATUS_NO_FINITE", Status::kNoFinite);
  m.def("ragged_mean", &ragged_mean, py::arg("values"), py::arg("offsets"),
        "Mean over the finite points of each curve, summed with compensation.");
}

}  // namespace planner
