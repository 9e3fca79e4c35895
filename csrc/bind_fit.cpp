// Robust multi-start fits of ragged curves.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"

namespace py = pybind11;

namespace planner {

namespace {

using Optional = std::optional<py::array>;

constexpr double kNanosecondsPerPoint = 2.5;  // of one evaluation
constexpr double kNanosecondsPerStart = 8000.0;

FitModel model_named(const std::string& name) {
  if (name == "curve") return FitModel::kCurve;
  if (name == "normalized") return FitModel::kNormalized;
  if (name == "power") return FitModel::kPower;
  throw py::value_error("model must be 'curve', 'normalized' or 'power', got '" + name + "'.");
}

const double* per_point(const Optional& array, const Ragged& curves, std::int64_t size,
                        const char* name) {
  if (!array.has_value()) return nullptr;
  const View<double> view = float64_view(*array, name);
  check_size(view, size, name, "per value");
  static_cast<void>(curves);
  return view.data;
}

// The stride of what is given once, or once per curve.
std::int64_t stride_of(const View<double>& view, std::int64_t each, std::int64_t curves,
                       const char* name) {
  if (view.size == each) return 0;
  check_size(view, each * curves, name, "per parameter and curve");
  return each;
}

py::tuple fit(const py::array& y, const py::array& x, const Optional& eta, const Optional& weights,
              const py::array& offsets, const Optional& eta_end, const std::string& model,
              const py::array& lower, const py::array& upper, const py::array& delta,
              const py::array& starts, std::int64_t thin_starts, bool brute, double ftol,
              std::int64_t max_iterations, bool covariance, std::int64_t block,
              std::int64_t replicates, std::uint64_t seed, Threads threads) {
  const Ragged curves = ragged_view(y, offsets);
  const std::int64_t n = curves.curves;
  const auto size = static_cast<std::int64_t>(y.size());
  FitArgs args = {};
  args.model = model_named(model);
  const bool power = args.model == FitModel::kPower;
  const std::int64_t np = power ? 4 : 6;
  args.y = curves.values;
  args.x = per_point(x, curves, size, "x");
  args.eta = per_point(eta, curves, size, "eta");
  args.weights = per_point(weights, curves, size, "weights");
  args.offsets = curves.offsets;
  if (!power && args.eta == nullptr) throw py::value_error("eta is needed for this model.");
  if (args.model == FitModel::kNormalized) {
    if (!eta_end.has_value()) throw py::value_error("eta_end is needed for this model.");
    const View<double> ends = float64_view(*eta_end, "eta_end");
    check_size(ends, n, "eta_end", "per curve");
    args.eta_end = ends.data;
  }
  const View<double> low = float64_view(lower, "lower");
  const View<double> high = float64_view(upper, "upper");
  args.bound_stride = stride_of(low, np, n, "lower");
  check_size(high, low.size, "upper", "per number in lower");
  args.lower = low.data;
  args.upper = high.data;
  const View<double> deltas = float64_view(delta, "delta");
  args.delta_stride = stride_of(deltas, 1, n, "delta");
  args.delta = deltas.data;
  const View<double> grid = float64_view(starts, "starts");
  if (grid.size == 0 || grid.size % np != 0 || grid.size / np > kFitStarts) {
    throw py::value_error("starts must hold 1 to " + std::to_string(kFitStarts) + " rows of " +
                          std::to_string(np) + " numbers, got " + std::to_string(grid.size) +
                          " numbers.");
  }
  args.starts = grid.data;
  args.n_starts = grid.size / np;
  if (thin_starts < 1 || thin_starts > args.n_starts) {
    throw py::value_error("thin_starts must lie within 1 and the number of starts.");
  }
  args.n_thin_starts = thin_starts;
  if (max_iterations < 1) throw py::value_error("max_iterations must be at least 1.");
  if (replicates < 0 || block < 0) {
    throw py::value_error("replicates and block must not be negative.");
  }
  args.brute = brute;
  args.ftol = ftol;
  args.max_iterations = max_iterations;
  args.covariance = covariance;
  args.block = block;
  args.replicates = replicates;
  args.seed = seed;
  for (std::int64_t i = 0; i < n; ++i) {
    args.longest = std::max(args.longest, curves.offsets[i + 1] - curves.offsets[i]);
  }

  const FitKernels& kernel = *kernels().fit;
  const double passes = (brute ? 15.0 * static_cast<double>(args.n_starts) : 10.0) +
                        4.0 * static_cast<double>(replicates);
  const std::int64_t usual = brute ? args.n_starts : std::min(args.n_starts, 3 * thin_starts);
  const double cost = kNanosecondsPerStart * static_cast<double>(usual) +
                      passes * kNanosecondsPerPoint * curves.points_per_curve();
  const Batch batch = batch_of(n, cost, checked_threads(threads));
  const Scratch scratch(threads_for(batch), kernel.scratch(args.longest));

  py::array_t<double> theta({n, np});
  py::array_t<double> objective(n);
  py::array_t<std::int64_t> evaluations(n);
  py::array_t<std::int64_t> coarse(n);
  py::array_t<std::int64_t> iterations(n);
  py::array_t<std::int64_t> n_points(n);
  py::array_t<std::int32_t> status(n);
  py::object cov = py::none();
  py::object rho = py::none();
  py::object samples = py::none();
  args.theta = theta.mutable_data();
  args.objective = objective.mutable_data();
  args.evaluations = evaluations.mutable_data();
  args.coarse_evaluations = coarse.mutable_data();
  args.iterations = iterations.mutable_data();
  args.n_points = n_points.mutable_data();
  args.status = status.mutable_data();
  if (covariance) {
    py::array_t<double> matrices({n, np, np});
    py::array_t<double> correlations(n);
    args.cov = matrices.mutable_data();
    args.autocorrelation = correlations.mutable_data();
    cov = std::move(matrices);
    rho = std::move(correlations);
  }
  if (replicates > 0) {
    py::array_t<double> drawn({n, replicates, np});
    args.samples = drawn.mutable_data();
    samples = std::move(drawn);
  }
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.fit(args, begin, end, scratch.of(worker));
  });
  return py::make_tuple(std::move(theta), std::move(objective), std::move(cov), std::move(rho),
                        std::move(samples), std::move(evaluations), std::move(coarse),
                        std::move(iterations), std::move(n_points), std::move(status));
}

}  // namespace

void bind_fit(py::module_& m) {
  m.def("fit", &fit, py::arg("y"), py::arg("x"), py::arg("eta"), py::arg("weights"),
        py::arg("offsets"), py::kw_only(), py::arg("eta_end"), py::arg("model"), py::arg("lower"),
        py::arg("upper"), py::arg("delta"), py::arg("starts"), py::arg("thin_starts"),
        py::arg("brute"), py::arg("ftol"), py::arg("max_iterations"), py::arg("covariance"),
        py::arg("block"), py::arg("replicates"), py::arg("seed"), py::arg("threads") = py::none(),
        "Robust multi-start fit of each curve.");
}

}  // namespace planner
