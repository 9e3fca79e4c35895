// The Multi-Power Law: evaluation and fits over ragged schedules.
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
#include "schedule_terms.hpp"

namespace py = pybind11;

namespace planner {

namespace {

constexpr std::int64_t kN = kScheduleParameters;
constexpr std::int64_t kTermsAtATime = std::int64_t{1} << 18;  // 6 MB
constexpr double kNanosecondsPerTerm = 3.0;
constexpr std::int64_t kCoarseTargets = 100;  // on so many at least a fit begins

struct Schedules {
  Ragged lr;
  View<std::int64_t> steps;
  View<std::int64_t> offsets;  // of the steps
  std::int64_t targets() const { return steps.size; }
};

Schedules schedules_view(const py::array& lr, const py::array& lr_offsets, const py::array& steps,
                         const py::array& step_offsets) {
  const Schedules in = {ragged_view(lr, lr_offsets), int64_view(steps, "steps"),
                        int64_view(step_offsets, "step_offsets")};
  check_offsets(in.offsets, in.steps.size);
  if (in.offsets.size != in.lr.curves + 1) {
    throw py::value_error("lr and steps must hold the same number of curves.");
  }
  if (in.offsets.data[0] != 0 || in.offsets.data[in.lr.curves] != in.steps.size) {
    throw py::value_error("step_offsets must cover all steps.");
  }
  for (std::int64_t curve = 0; curve < in.lr.curves; ++curve) {
    const std::int64_t length = in.lr.offsets[curve + 1] - in.lr.offsets[curve];
    for (std::int64_t i = in.lr.offsets[curve]; i < in.lr.offsets[curve + 1]; ++i) {
      if (!(in.lr.values[i] >= 0.0 && in.lr.values[i] < 1e100)) {
        throw py::value_error("learning rates must be finite and not negative.");
      }
    }
    for (std::int64_t i = in.offsets.data[curve]; i < in.offsets.data[curve + 1]; ++i) {
      if (in.steps.data[i] < 0 || in.steps.data[i] >= length) {
        throw py::value_error("step " + std::to_string(in.steps.data[i]) + " of curve " +
                              std::to_string(curve) + " lies outside its " +
                              std::to_string(length) + " learning rates.");
      }
    }
  }
  return in;
}

// Terms of some targets in one go.
struct Terms {
  std::vector<double> s, log_lr, w, log_area;
  std::vector<std::int64_t> first{0};

  void clear() {
    s.clear();
    log_lr.clear();
    w.clear();
    log_area.clear();
    first.assign(1, 0);
  }
  void add(ScheduleBlocks& blocks, std::int64_t step) {
    blocks.append(step, s, log_lr, w);
    first.push_back(static_cast<std::int64_t>(s.size()));
    log_area.push_back(std::log(std::max(blocks.area(step), 1e-100)));
  }
  ScheduleTerms view() const {
    return {s.data(), log_lr.data(), w.data(), first.data(), log_area.data()};
  }
};

View<double> parameters_view(const py::array& array, const char* name, bool many) {
  const View<double> view = float64_view(array, name);
  if (view.size == 0 || view.size % kN != 0 || (!many && view.size != kN)) {
    throw py::value_error(std::string(name) + " must hold seven numbers" +
                          (many ? " per start, got " : ", got ") + std::to_string(view.size) + ".");
  }
  // Keeps every exponential that the kernel takes in range.
  for (std::int64_t i = 0; i < view.size; ++i) {
    const std::int64_t which = i % kN;
    constexpr double kLowest[] = {-1e6, -200.0, -2.0, -200.0, -200.0, -20.0, -2.0};
    constexpr double kHighest[] = {1e6, 200.0, 2.0, 200.0, 200.0, 3.0, 2.0};
    if (!(view.data[i] >= kLowest[which] && view.data[i] <= kHighest[which])) {
      throw py::value_error(std::string(name) + " is out of range.");
    }
  }
  return view;
}

py::tuple schedule_predict(const py::array& lr, const py::array& lr_offsets, const py::array& steps,
                           const py::array& step_offsets, const py::array& theta, bool blocked,
                           bool gradient, Threads threads) {
  const Schedules in = schedules_view(lr, lr_offsets, steps, step_offsets);
  const View<double> at = parameters_view(theta, "theta", true);
  const std::int64_t rows = at.size / kN;
  const ScheduleKernels& kernel = *kernels().schedule;
  const int workers = checked_threads(threads);
  py::array_t<double> loss({rows, in.targets()});
  py::array_t<double> jacobian({rows, gradient ? in.targets() : 0, kN});
  double* const losses = loss.mutable_data();
  double* const gradients = gradient ? jacobian.mutable_data() : nullptr;

  Terms terms;
  for (std::int64_t curve = 0; curve < in.lr.curves; ++curve) {
    const std::int64_t begin = in.offsets.data[curve];
    const std::int64_t end = in.offsets.data[curve + 1];
    if (begin == end) continue;
    std::optional<ScheduleBlocks> blocks;
    without_gil([&] {
      blocks.emplace(in.lr.values + in.lr.offsets[curve],
                     in.lr.offsets[curve + 1] - in.lr.offsets[curve], blocked);
    });
    for (std::int64_t done = begin; done < end;) {
      std::int64_t next = done;
      without_gil([&] {
        terms.clear();
        while (next < end && static_cast<std::int64_t>(terms.s.size()) < kTermsAtATime) {
          terms.add(*blocks, in.steps.data[next]);
          ++next;
        }
      });
      const double cost = 30.0 + kNanosecondsPerTerm * static_cast<double>(terms.s.size()) /
                                     static_cast<double>(next - done);
      const std::int64_t targets = next - done;
      run_without_gil(batch_of(rows * targets, cost, workers),
                      [&](std::int64_t from, std::int64_t to, int) noexcept {
                        while (from < to) {
                          const std::int64_t row = from / targets;
                          const std::int64_t skip = row * in.targets() + done;
                          const std::int64_t stop = std::min(to, (row + 1) * targets);
                          kernel.predict({terms.view(), at.data + row * kN, losses + skip,
                                          gradients == nullptr ? nullptr : gradients + skip * kN},
                                         from - row * targets, stop - row * targets);
                          from = stop;
                        }
                      });
      done = next;
    }
  }
  return py::make_tuple(std::move(loss), std::move(jacobian));
}

// Weighted least squares for L0, A and B of every start, on every stride-th target; the rows of the
// `keep` starts that then come closest, best first. `rows` (starts, 7) is changed.
std::vector<double> solved_starts(const ScheduleKernels& kernel, const Terms& terms,
                                  const View<double>& log_loss, const View<double>& weights,
                                  std::vector<double> rows, const double* lower,
                                  const double* upper, std::int64_t stride, std::int64_t keep) {
  const std::int64_t targets = log_loss.size;
  constexpr int kColumns[] = {0, 1, 3};
  double least = std::numeric_limits<double>::infinity();
  double most = -least;
  for (std::int64_t i = 0; i < targets; ++i) {
    if (!(weights.data[i] > 0.0)) continue;
    least = std::min(least, log_loss.data[i]);
    most = std::max(most, log_loss.data[i]);
  }
  const auto counts = [&](std::int64_t i) { return weights.data[i] > 0.0; };
  std::vector<double> loss(static_cast<std::size_t>(targets));
  std::vector<double> jacobian(static_cast<std::size_t>(targets * kN));
  const std::size_t starts = rows.size() / kN;
  std::vector<double> off(starts);
  for (std::size_t start = 0; start < starts; ++start) {
    double* const theta = rows.data() + start * kN;
    theta[0] = theta[1] = theta[3] = 0.0;
    for (std::int64_t i = 0; i < targets; i += stride) {
      if (counts(i)) {
        kernel.predict({terms.view(), theta, loss.data(), jacobian.data()}, i, i + 1);
      }
    }
    double h[3][3] = {};
    double g[3] = {};
    for (std::int64_t i = 0; i < targets; i += stride) {
      if (!counts(i)) continue;
      const double w = weights.data[i];
      const double* const row = jacobian.data() + i * kN;
      for (int j = 0; j < 3; ++j) {
        g[j] += w * row[kColumns[j]] * std::exp(log_loss.data[i] - most);
        for (int k = 0; k <= j; ++k) h[j][k] += w * row[kColumns[j]] * row[kColumns[k]];
      }
    }
    double inverse[3];
    for (int j = 0; j < 3; ++j) {  // L D L', damped so that columns may be alike or zero
      const double floor = 1e-12 * h[j][j] + 1e-300;
      h[j][j] += floor;
      for (int k = 0; k <= j; ++k) {
        for (int m = 0; m < k; ++m) h[j][k] -= h[j][m] * h[k][m] * inverse[m];
      }
      h[j][j] = std::max(h[j][j], floor);
      inverse[j] = 1.0 / h[j][j];
      for (int k = 0; k < j; ++k) g[j] -= h[j][k] * inverse[k] * g[k];
    }
    for (int j = 2; j >= 0; --j) {
      g[j] *= inverse[j];
      for (int k = j + 1; k < 3; ++k) g[j] -= h[k][j] * inverse[j] * g[k];
    }
    // Where the drop or the decay comes out negative, nearly none.
    const double unit = std::exp(most);
    theta[0] = std::clamp(g[0] * unit, 0.1 * std::exp(least), unit);
    theta[1] = std::log(std::max(g[1] * unit, 1e-3));
    theta[3] = std::log(std::max(g[2] * unit, 1e-4));
    for (std::int64_t j = 0; j < kN; ++j) theta[j] = std::clamp(theta[j], lower[j], upper[j]);
    for (std::int64_t i = 0; i < targets; i += stride) {
      if (!counts(i)) continue;
      const double* const row = jacobian.data() + i * kN;
      const double predicted = theta[0] + std::exp(theta[1]) * row[1] + std::exp(theta[3]) * row[3];
      off[start] += weights.data[i] * std::abs(std::log(predicted) - log_loss.data[i]);
    }
    if (!std::isfinite(off[start])) off[start] = std::numeric_limits<double>::infinity();
  }
  std::vector<std::size_t> order(starts);
  for (std::size_t i = 0; i < starts; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return off[i] < off[j]; });
  std::vector<double> out;
  for (std::size_t i = 0; i < std::min(starts, static_cast<std::size_t>(keep)); ++i) {
    out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(order[i] * kN),
               rows.begin() + static_cast<std::ptrdiff_t>((order[i] + 1) * kN));
  }
  return out;
}

py::tuple schedule_fit(const py::array& lr, const py::array& lr_offsets, const py::array& steps,
                       const py::array& step_offsets, const py::array& log_loss,
                       const py::array& weights, const py::array& starts, const py::array& lower,
                       const py::array& upper, double delta, int max_evaluations,
                       std::int64_t solve, bool blocked, Threads threads) {
  const Schedules in = schedules_view(lr, lr_offsets, steps, step_offsets);
  const View<double> wanted = float64_view(log_loss, "log_loss");
  const View<double> weight = float64_view(weights, "weights");
  check_size(wanted, in.targets(), "log_loss", "per step");
  check_size(weight, in.targets(), "weights", "per step");
  bool weighs = false;
  for (std::int64_t i = 0; i < in.targets(); ++i) {
    if (!(std::abs(wanted.data[i]) < 1e3 && weight.data[i] >= 0.0 && weight.data[i] < 1e100)) {
      throw py::value_error("log_loss must be finite, and weights not negative.");
    }
    weighs = weighs || weight.data[i] > 0.0;
  }
  if (!weighs) throw py::value_error("a weight must be positive.");
  const View<double> from = parameters_view(starts, "starts", true);
  const View<double> low = parameters_view(lower, "lower", false);
  const View<double> high = parameters_view(upper, "upper", false);
  for (std::int64_t i = 0; i < kN; ++i) {
    if (!(low.data[i] <= high.data[i])) throw py::value_error("bounds must be in order.");
  }
  if (!(delta > 0.0 && delta < 1e100)) throw py::value_error("delta must be positive.");
  if (max_evaluations < 1) throw py::value_error("max_evaluations must be at least 1.");
  const ScheduleKernels& kernel = *kernels().schedule;
  const int workers = checked_threads(threads);
  const std::int64_t stride = std::clamp<std::int64_t>(in.targets() / kCoarseTargets, 1, 8);

  Terms terms;
  std::vector<double> rows(from.data, from.data + from.size);
  without_gil([&] {
    for (std::int64_t curve = 0; curve < in.lr.curves; ++curve) {
      ScheduleBlocks blocks(in.lr.values + in.lr.offsets[curve],
                            in.lr.offsets[curve + 1] - in.lr.offsets[curve], blocked);
      for (std::int64_t i = in.offsets.data[curve]; i < in.offsets.data[curve + 1]; ++i) {
        terms.add(blocks, in.steps.data[i]);
      }
    }
    if (solve > 0) {
      rows = solved_starts(kernel, terms, wanted, weight, std::move(rows), low.data, high.data,
                           stride, solve);
    }
  });
  const auto count = static_cast<std::int64_t>(rows.size()) / kN;
  py::array_t<double> theta({count, kN});
  py::array_t<double> objective(count);
  py::array_t<std::int32_t> evaluations(count);
  py::array_t<std::int32_t> status(count);
  const ScheduleFit args = {terms.view(),
                            in.targets(),
                            stride,
                            wanted.data,
                            weight.data,
                            low.data,
                            high.data,
                            delta,
                            max_evaluations,
                            rows.data(),
                            theta.mutable_data(),
                            objective.mutable_data(),
                            evaluations.mutable_data(),
                            status.mutable_data()};
  const double cost = 50.0 * (kNanosecondsPerTerm * static_cast<double>(terms.s.size()) +
                              100.0 * static_cast<double>(in.targets()));
  const Batch batch = batch_of(count, cost, workers);
  const Scratch scratch(threads_for(batch), schedule_fit_scratch(in.targets()));
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernel.fit(args, begin, end, scratch.of(worker));
  });
  // Loss and derivatives where the best start ended, while the terms are here.
  py::array_t<double> loss(in.targets());
  py::array_t<double> gradient({in.targets(), kN});
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < count; ++i) {
    if (objective.data()[i] < objective.data()[best] || std::isnan(objective.data()[best])) {
      best = i;
    }
  }
  const SchedulePredict end_args = {terms.view(), theta.data() + best * kN, loss.mutable_data(),
                                    gradient.mutable_data()};
  run_without_gil(batch_of(in.targets(), 500.0, workers),
                  [&](std::int64_t begin, std::int64_t end, int) noexcept {
                    kernel.predict(end_args, begin, end);
                  });
  return py::make_tuple(std::move(theta), std::move(objective), std::move(evaluations),
                        std::move(status), std::move(loss), std::move(gradient));
}

}  // namespace

void bind_schedule(py::module_& m) {
  m.def("schedule_predict", &schedule_predict, py::arg("lr"), py::arg("lr_offsets"),
        py::arg("steps"), py::arg("step_offsets"), py::arg("theta"), py::kw_only(),
        py::arg("blocked") = true, py::arg("gradient") = false, py::arg("threads") = py::none(),
        "The Multi-Power Law at given steps of given schedules.");
  m.def("schedule_fit", &schedule_fit, py::arg("lr"), py::arg("lr_offsets"), py::arg("steps"),
        py::arg("step_offsets"), py::arg("log_loss"), py::arg("weights"), py::arg("starts"),
        py::arg("lower"), py::arg("upper"), py::kw_only(), py::arg("delta"),
        py::arg("max_evaluations"), py::arg("solve") = 0, py::arg("blocked") = true,
        py::arg("threads") = py::none(), "Fits the Multi-Power Law to several curves together.");
}

}  // namespace planner
