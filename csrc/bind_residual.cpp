// Scoring runs against their reference.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr std::int64_t kRunsPerGroup = 8;
constexpr double kNanosecondsPerPoint = 2.0;
constexpr double kNanosecondsPerGroup = 1000.0;

// Longest first: neighbours of like length share a group, and no long one is left for the end.
std::vector<std::int64_t> by_length(const Ragged& runs) {
  std::vector<std::pair<std::int64_t, std::int64_t>> keys;
  keys.reserve(static_cast<std::size_t>(runs.curves));
  for (std::int64_t i = 0; i < runs.curves; ++i) {
    keys.emplace_back(runs.offsets[i] - runs.offsets[i + 1], i);
  }
  std::sort(keys.begin(), keys.end());
  std::vector<std::int64_t> order;
  order.reserve(keys.size());
  for (const auto& key : keys) order.push_back(key.second);
  return order;
}

// An array for every value, NaN outside the runs; or None.
py::object array_over(const Ragged& runs, std::int64_t size, bool wanted, double*& data) {
  data = nullptr;
  if (!wanted) return py::none();
  py::array_t<double> array(size);
  data = array.mutable_data();
  std::fill(data, data + runs.offsets[0], std::numeric_limits<double>::quiet_NaN());
  std::fill(data + runs.offsets[runs.curves], data + size,
            std::numeric_limits<double>::quiet_NaN());
  return std::move(array);
}

py::tuple score_residuals(const py::array& values, const py::array& offsets,
                          const py::array& reference, double window_z, double cusum_slack,
                          double cusum_limit, double ph_slack, double ph_limit, double clip,
                          double least_noise, bool residual, bool z, Threads threads) {
  const Ragged runs = ragged_view(values, offsets);
  const View<double> references = float64_view(reference, "reference");
  check_size(references, values.size(), "reference", "per value");
  const ResidualKernels& kernel = *kernels().residual;
  const std::int64_t n = runs.curves;
  const std::int64_t groups = (n + kRunsPerGroup - 1) / kRunsPerGroup;
  const double cost =
      kNanosecondsPerGroup + kNanosecondsPerPoint * kRunsPerGroup * runs.points_per_curve();
  const Batch batch = batch_of(groups, cost, checked_threads(threads));
  const std::vector<std::int64_t> order = by_length(runs);

  py::array_t<double> level(n), noise(n), slope(n), lowest(n), highest(n);
  py::array_t<std::int64_t> n_finite(n), spikes(n), first_spike(n), cusum_up(n), cusum_down(n),
      page_hinkley(n), deviates(n);
  py::array_t<std::int32_t> status(n);
  ResidualArgs args = {};
  args.values = runs.values;
  args.reference = references.data;
  args.offsets = runs.offsets;
  args.order = order.data();
  args.runs = n;
  args.rules = {window_z, cusum_slack, cusum_limit, ph_slack, ph_limit, clip, least_noise};
  py::object residuals = array_over(runs, values.size(), residual, args.residual);
  py::object scores = array_over(runs, values.size(), z, args.z);
  args.level = level.mutable_data();
  args.noise = noise.mutable_data();
  args.slope = slope.mutable_data();
  args.lowest = lowest.mutable_data();
  args.highest = highest.mutable_data();
  args.n_finite = n_finite.mutable_data();
  args.spikes = spikes.mutable_data();
  args.first_spike = first_spike.mutable_data();
  args.cusum_up = cusum_up.mutable_data();
  args.cusum_down = cusum_down.mutable_data();
  args.page_hinkley = page_hinkley.mutable_data();
  args.deviates = deviates.mutable_data();
  args.status = status.mutable_data();
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int) noexcept {
    kernel.score(args, begin, end);
  });
  return py::make_tuple(level, noise, slope, lowest, highest, n_finite, spikes, first_spike,
                        cusum_up, cusum_down, page_hinkley, deviates, status, residuals, scores);
}

}  // namespace

void bind_residual(py::module_& m) {
  m.def("score_residuals", &score_residuals, py::arg("values"), py::arg("offsets"),
        py::arg("reference"), py::kw_only(), py::arg("window_z"), py::arg("cusum_slack"),
        py::arg("cusum_limit"), py::arg("ph_slack"), py::arg("ph_limit"), py::arg("clip"),
        py::arg("least_noise"), py::arg("residual") = false, py::arg("z") = false,
        py::arg("threads") = py::none(),
        "Residuals against a reference: spikes, CUSUM, Page-Hinkley, onset, drift.");
}

}  // namespace planner
