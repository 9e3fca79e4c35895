// The Multi-Power Law: evaluation and fits over ragged schedules.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
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
  void add(const ScheduleBlocks& blocks, std::int64_t step) {
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
        while (next < end && (next == done || static_cast<std::int64_t>(terms.s.size()) +
                                                      blocks->count(in.steps.data[next]) <=
                                                  kTermsAtATime)) {
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

py::tuple schedule_fit(const py::array& lr, const py::array& lr_offsets, const py::array& steps,
                       const py::array& step_offsets, const py::array& log_loss,
                       const py::array& weights, const py::array& starts, const py::array& lower,
                       const py::array& upper, double delta, int max_evaluations, bool blocked,
                       Threads threads) {
  const Schedules in = schedules_view(lr, lr_offsets, steps, step_offsets);
  const View<double> wanted = float64_view(log_loss, "log_loss");
  const View<double> weight = float64_view(weights, "weights");
  check_size(wanted, in.targets(), "log_loss", "per step");
  check_size(weight, in.targets(), "weights", "per step");
  for (std::int64_t i = 0; i < in.targets(); ++i) {
    if (!(std::abs(wanted.data[i]) < 1e3 && weight.data[i] >= 0.0 && weight.data[i] < 1e100)) {
      throw py::value_error("log_loss must be finite, and weights not negative.");
    }
  }
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
  const std::int64_t count = from.size / kN;

  Terms terms;
  without_gil([&] {
    for (std::int64_t curve = 0; curve < in.lr.curves; ++curve) {
      const ScheduleBlocks blocks(in.lr.values + in.lr.offsets[curve],
                                  in.lr.offsets[curve + 1] - in.lr.offsets[curve], blocked);
      for (std::int64_t i = in.offsets.data[curve]; i < in.offsets.data[curve + 1]; ++i) {
        terms.add(blocks, in.steps.data[i]);
      }
    }
  });
  py::array_t<double> theta({count, kN});
  py::array_t<double> objective(count);
  py::array_t<std::int32_t> evaluations(count);
  py::array_t<std::int32_t> status(count);
  const ScheduleFit args = {terms.view(),
                            in.targets(),
                            wanted.data,
                            weight.data,
                            low.data,
                            high.data,
                            delta,
                            max_evaluations,
                            from.data,
                            theta.mutable_data(),
                            objective.mutable_data(),
                            evaluations.mutable_data(),
                            status.mutable_data()};
  const double cost = 50.0 * (kNanosecondsPerTerm * static_cast<double>(terms.s.size()) +
                              100.0 * static_cast<double>(in.targets()));
  run_without_gil(
      batch_of(count, cost, workers),
      [&](std::int64_t begin, std::int64_t end, int) noexcept { kernel.fit(args, begin, end); });
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
        py::arg("max_evaluations"), py::arg("blocked") = true, py::arg("threads") = py::none(),
        "Fits the Multi-Power Law to several curves together.");
}

}  // namespace planner
