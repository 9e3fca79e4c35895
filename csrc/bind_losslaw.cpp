// Loss-law fits. What comes in is already centred and cleaned by planner/kernel/loss_law.py.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"
#include "status.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr std::int64_t kN = kLossLawParameters;
constexpr double kNanosecondsPerPoint = 3.0;  // one evaluation
constexpr double kNanosecondsPerStep = 300.0;

using Counts = py::array_t<std::uint8_t, py::array::c_style>;

// The points with zeros behind them, up to eights.
class Padded {
 public:
  Padded(const py::array& x, const py::array& y, const py::array& z, const py::array& weights,
         const std::optional<py::array>& repeats) {
    const View<double> columns[] = {float64_view(x, "x"), float64_view(y, "y"),
                                    float64_view(z, "z"), float64_view(weights, "weights"),
                                    repeats ? float64_view(*repeats, "repeats") : View<double>{}};
    points_ = columns[0].size;
    if (points_ == 0) throw py::value_error("x must hold at least one number, got none.");
    padded_ = (points_ + 7) / 8 * 8;
    memory_.assign(static_cast<std::size_t>(5 * padded_), 0.0);
    const char* const names[] = {"x", "y", "z", "weights", "repeats"};
    repeats_ = repeats.has_value();
    for (int i = 0; i < (repeats_ ? 5 : 4); ++i) {
      check_size(columns[i], points_, names[i], "per point");
      std::copy_n(columns[i].data, points_, column(i));
    }
    for (std::int64_t i = 0; i < points_; ++i) {
      if (!(std::abs(column(0)[i]) < 1e6 && std::abs(column(1)[i]) < 1e6 &&
            std::abs(column(2)[i]) < 1e6 && column(3)[i] >= 0.0 && column(3)[i] < 1e100 &&
            column(4)[i] >= 0.0 && column(4)[i] < 1e100)) {
        throw py::value_error("points must be finite, and weights and repeats not negative.");
      }
    }
  }

  LossLaw law(const py::array& lower, const py::array& upper, bool tied, double delta) {
    const View<double> low = float64_view(lower, "lower");
    const View<double> high = float64_view(upper, "upper");
    check_size(low, kN, "lower", "per parameter");
    check_size(high, kN, "upper", "per parameter");
    if (!(delta > 0.0 && delta < 1e100)) throw py::value_error("delta must be positive.");
    LossLaw out = {column(0), column(1), column(2), repeats_ ? column(4) : nullptr,
                   column(3), points_,   padded_,   0.0,
                   0.0,       {},        {},        tied,
                   delta};
    for (std::int64_t i = 0; i < kN; ++i) {
      if (!(low.data[i] <= high.data[i] && low.data[i] > -500.0 && high.data[i] < 500.0)) {
        throw py::value_error("bounds must be in order and within 500.");
      }
      out.lower[i] = low.data[i];
      out.upper[i] = high.data[i];
    }
    if (tied) {
      out.lower[4] = out.lower[3];
      out.upper[4] = out.upper[3];
    }
    for (std::int64_t i = 0; i < points_; ++i) {
      out.x_limit = std::max(out.x_limit, std::abs(out.x[i]));
      const double more = repeats_ ? std::log1p(out.repeats[i]) : 0.0;
      out.y_limit = std::max({out.y_limit, std::abs(out.y[i]), std::abs(out.y[i] + more)});
    }
    return out;
  }

 private:
  double* column(int i) { return memory_.data() + i * padded_; }

  std::int64_t points_ = 0;
  std::int64_t padded_ = 0;
  bool repeats_ = false;
  std::vector<double> memory_;
};

View<double> starts_view(const py::array& starts) {
  const View<double> view = float64_view(starts, "starts");
  if (view.size == 0 || view.size % kN != 0) {
    throw py::value_error("starts must hold six numbers per start, got " +
                          std::to_string(view.size) + " numbers.");
  }
  for (std::int64_t i = 0; i < view.size; ++i) {
    if (!std::isfinite(view.data[i])) throw py::value_error("starts must be finite.");
  }
  return view;
}

// Rows of the `keep` best starts that differ: in score, or in a parameter.
std::vector<std::int64_t> distinct_best(const std::vector<double>& theta,
                                        const std::vector<double>& score, std::int64_t keep) {
  std::vector<std::int64_t> order(score.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  const auto value = [&](std::int64_t i) {
    const double s = score[static_cast<std::size_t>(i)];
    return std::isfinite(s) ? s : std::numeric_limits<double>::infinity();
  };
  std::sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
    return value(i) < value(j) || (value(i) == value(j) && i < j);
  });
  constexpr double kNear[] = {0.1, 0.1, 0.02, 0.02, 0.02, 0.1};
  std::vector<std::int64_t> kept;
  for (const std::int64_t i : order) {
    if (static_cast<std::int64_t>(kept.size()) >= keep) break;
    const bool known = std::any_of(kept.begin(), kept.end(), [&](std::int64_t j) {
      for (std::int64_t k = 0; k < kN; ++k) {
        const double apart = theta[static_cast<std::size_t>(i * kN + k)] -
                             theta[static_cast<std::size_t>(j * kN + k)];
        if (!(std::abs(apart) <= kNear[k])) return false;
      }
      return true;
    });
    if (!known) kept.push_back(i);
  }
  return kept;
}

py::tuple losslaw_fit(const py::array& x, const py::array& y, const py::array& z,
                      const py::array& weights, const std::optional<py::array>& repeats,
                      const py::array& starts, const py::array& lower, const py::array& upper,
                      bool tied, double delta, std::int64_t keep, int max_evaluations,
                      Threads threads) {
  Padded points(x, y, z, weights, repeats);
  const LossLaw law = points.law(lower, upper, tied, delta);
  const View<double> from = starts_view(starts);
  const std::int64_t count = from.size / kN;
  if (max_evaluations < 1) throw py::value_error("max_evaluations must be at least 1.");
  const LosslawKernels& kernel = *kernels().losslaw;
  const int workers = checked_threads(threads);
  const double all_points = static_cast<double>(law.padded);

  py::array_t<double> theta({count, kN});
  py::array_t<double> objective(count);
  py::array_t<std::int32_t> evaluations(count);
  py::array_t<std::int32_t> status(count);

  std::vector<double> chosen;
  std::vector<std::int64_t> rows;
  if (keep > 0 && keep < count) {
    const std::int64_t stride = std::clamp<std::int64_t>(law.points / 40, 1, 4);
    constexpr int kSteps = 6;
    std::vector<double> screened(static_cast<std::size_t>(count * kN));
    std::vector<double> score(static_cast<std::size_t>(count));
    const LossLawScreen args = {law,           from.data,    count,           stride,      kSteps,
                                300.0 * delta, 30.0 * delta, screened.data(), score.data()};
    const double moved = static_cast<double>(law.points / stride);
    const double cost = kSteps * (12.0 * moved + 100.0) + 8.0 * all_points;
    const Batch batch = batch_of((count + 7) / 8, cost, workers);
    const Scratch scratch(threads_for(batch), losslaw_screen_scratch());
    run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
      kernel.screen(args, begin, end, scratch.of(worker));
    });
    rows = distinct_best(screened, score, keep);
    chosen.resize(rows.size() * static_cast<std::size_t>(kN));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(screened.data() + rows[i] * kN, kN, chosen.data() + i * kN);
    }
    std::copy(screened.begin(), screened.end(), theta.mutable_data());
    std::copy(score.begin(), score.end(), objective.mutable_data());
    std::fill_n(evaluations.mutable_data(), count, kSteps);
    std::fill_n(status.mutable_data(), count, static_cast<std::int32_t>(Status::kScreenedOut));
  }

  const bool screened = !rows.empty();
  const std::int64_t fits = screened ? static_cast<std::int64_t>(rows.size()) : count;
  std::vector<double> best_theta;
  std::vector<double> best_objective;
  std::vector<std::int32_t> used;
  std::vector<std::int32_t> code;
  LossLawFit args = {law,
                     from.data,
                     max_evaluations,
                     screened,
                     theta.mutable_data(),
                     objective.mutable_data(),
                     evaluations.mutable_data(),
                     status.mutable_data()};
  if (screened) {
    const auto n = static_cast<std::size_t>(fits);
    best_theta.resize(n * static_cast<std::size_t>(kN));
    best_objective.resize(n);
    used.resize(n);
    code.resize(n);
    args.starts = chosen.data();
    args.theta = best_theta.data();
    args.objective = best_objective.data();
    args.evaluations = used.data();
    args.status = code.data();
  }
  const double cost = 30.0 * (kNanosecondsPerPoint * all_points + kNanosecondsPerStep);
  const Batch batch = batch_of(fits, cost, workers);
  const Scratch scratch(threads_for(batch), losslaw_fit_scratch(law.padded));
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.fit(args, begin, end, scratch.of(worker));
  });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t row = rows[i];
    std::copy_n(best_theta.data() + i * kN, kN, theta.mutable_data() + row * kN);
    objective.mutable_data()[row] = best_objective[i];
    evaluations.mutable_data()[row] += used[i];
    status.mutable_data()[row] = code[i];
  }
  return py::make_tuple(std::move(theta), std::move(objective), std::move(evaluations),
                        std::move(status));
}

py::tuple losslaw_refit(const py::array& x, const py::array& y, const py::array& z,
                        const py::array& weights, const std::optional<py::array>& repeats,
                        const Counts& counts, const py::array& starts, const py::array& lower,
                        const py::array& upper, bool tied, double delta, int max_evaluations,
                        Threads threads) {
  Padded points(x, y, z, weights, repeats);
  const LossLaw law = points.law(lower, upper, tied, delta);
  const View<double> from = starts_view(starts);
  if (counts.ndim() != 2 || counts.shape(1) != law.points) {
    throw py::value_error("counts must have the shape (sets, points).");
  }
  if (max_evaluations < 1) throw py::value_error("max_evaluations must be at least 1.");
  const LosslawKernels& kernel = *kernels().losslaw;
  const std::int64_t sets = counts.shape(0);

  py::array_t<double> theta({sets, kN});
  py::array_t<double> objective(sets);
  py::array_t<std::int32_t> evaluations(sets);
  py::array_t<std::int32_t> status(sets);
  const LossLawRefit args = {law,
                             counts.data(),
                             from.data,
                             from.size / kN,
                             max_evaluations,
                             theta.mutable_data(),
                             objective.mutable_data(),
                             evaluations.mutable_data(),
                             status.mutable_data()};
  const double cost =
      18.0 * static_cast<double>(args.n_starts) *
      (0.65 * kNanosecondsPerPoint * static_cast<double>(law.padded) + kNanosecondsPerStep);
  const Batch batch = batch_of(sets, cost, checked_threads(threads));
  const Scratch scratch(threads_for(batch), losslaw_fit_scratch(law.padded));
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.refit(args, begin, end, scratch.of(worker));
  });
  return py::make_tuple(std::move(theta), std::move(objective), std::move(evaluations),
                        std::move(status));
}

}  // namespace

void bind_losslaw(py::module_& m) {
  m.def("losslaw_fit", &losslaw_fit, py::arg("x"), py::arg("y"), py::arg("z"), py::arg("weights"),
        py::arg("repeats").none(true), py::arg("starts"), py::arg("lower"), py::arg("upper"),
        py::kw_only(), py::arg("tied"), py::arg("delta"), py::arg("keep"),
        py::arg("max_evaluations"), py::arg("threads") = py::none(),
        "Fits the loss law from many starts, of which screening keeps some.");
  m.def("losslaw_refit", &losslaw_refit, py::arg("x"), py::arg("y"), py::arg("z"),
        py::arg("weights"), py::arg("repeats").none(true), py::arg("counts").noconvert(),
        py::arg("starts"), py::arg("lower"), py::arg("upper"), py::kw_only(), py::arg("tied"),
        py::arg("delta"), py::arg("max_evaluations"), py::arg("threads") = py::none(),
        "Refits the loss law to resampled points, given as counts.");
}

}  // namespace planner
