// Divisors that align partial curves with candidate references.
#include <pybind11/stl.h>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr double kNanosecondsPerPoint[] = {0.01, 0.3, 10.0};  // of a pair, by method

py::tuple align_curves(const py::array& curves, const py::array& candidates, std::int64_t grid,
                       int method, const py::array& delta, bool errors, Threads threads) {
  const View<double> rows = float64_view(curves, "curves");
  const View<double> others = float64_view(candidates, "candidates");
  const View<double> deltas = float64_view(delta, "delta");
  if (grid < 1 || rows.size % grid != 0 || others.size % grid != 0) {
    throw py::value_error("curves and candidates must be whole rows of grid points.");
  }
  if (method < 0 || method > 2) throw py::value_error("method must be 0, 1 or 2.");
  const std::int64_t n = rows.size / grid;
  const std::int64_t m = others.size / grid;
  check_size(deltas, n, "delta", "per curve");
  const AlignKernels& kernel = *kernels().align;
  const double pair =
      (kNanosecondsPerPoint[method] + (errors ? 10.0 : 0.0)) * static_cast<double>(grid);
  Batch batch = batch_of(n, 500.0 + pair * static_cast<double>(m), checked_threads(threads));
  if (batch.chunk > kAlignGroup) {
    batch.chunk = (batch.chunk + kAlignGroup - 1) / kAlignGroup * kAlignGroup;
  }

  const Scratch tables(1, kernel.tables(grid, m));
  py::array_t<double> divisor({n, m}), objective({n, m});
  py::object error = py::none();
  py::array_t<std::int64_t> n_finite(n);
  py::array_t<std::int32_t> status({n, m});
  // Zero is what there is without steps; pages that nobody writes to cost nothing.
  const py::array iterations = py::module_::import("numpy").attr("zeros")(
      py::make_tuple(n, m), py::dtype::of<std::int32_t>());
  AlignArgs args = {rows.data,
                    others.data,
                    tables.of(0),
                    n,
                    m,
                    grid,
                    static_cast<Alignment>(method),
                    deltas.data,
                    divisor.mutable_data(),
                    objective.mutable_data(),
                    nullptr,
                    n_finite.mutable_data(),
                    status.mutable_data(),
                    nullptr};
  if (args.method == Alignment::kHuber) {
    args.iterations = static_cast<std::int32_t*>(py::array(iterations).mutable_data());
  }
  if (errors) {
    py::array_t<double> array({n, m});
    args.error = array.mutable_data();
    error = std::move(array);
  }
  const Scratch scratch(threads_for(batch), kernel.scratch(grid, m));
  const std::int64_t panels = kernel.panels(m);
  run_without_gil({panels, panels > 0 ? panels : 1, 1, nullptr},
                  [&](std::int64_t begin, std::int64_t end, int) noexcept {
                    kernel.prepare(args, begin, end);
                  });
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.align(args, begin, end, scratch.of(worker));
  });
  return py::make_tuple(divisor, objective, error, n_finite, status, iterations);
}

}  // namespace

void bind_align(py::module_& m) {
  m.def("align", &align_curves, py::arg("curves"), py::arg("candidates"), py::arg("grid"),
        py::arg("method"), py::arg("delta"), py::kw_only(), py::arg("errors") = false,
        py::arg("threads") = py::none(), "Divisors of partial curves, for every candidate.");
}

}  // namespace planner
