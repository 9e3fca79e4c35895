// planner._core._testing: what only the tests and benchmarks call. Not part of any interface.
#include <pybind11/stl.h>

#include <chrono>
#include <thread>
#include <type_traits>
#include <vector>

#include "arrays.hpp"
#include "bind.hpp"
#include "call.hpp"
#include "dispatch.hpp"
#include "schedule_terms.hpp"

namespace py = pybind11;

namespace planner {

namespace {

const Kernels& level_named(const std::string& name) {
  for (const Level& level : available_levels()) {
    if (name == level.name) return level.kernels;
  }
  throw py::value_error("no level " + name);
}

py::array_t<double> unary(const std::string& level, MathKernels::Unary MathKernels::* function,
                          const py::array& x) {
  const View<double> in = float64_view(x, "x");
  const MathKernels::Unary f = level_named(level).math->*function;
  py::array_t<double> y(in.size);
  double* const out = y.mutable_data();
  without_gil([&] { f(in.data, out, in.size); });
  return y;
}

template <MathKernels::Unary MathKernels::* function>
void def_unary(py::module_& m, const char* name) {
  m.def(
      name, [](const py::array& x, const std::string& level) { return unary(level, function, x); },
      py::arg("x"), py::arg("level"));
}

// For each item, the worker that ran it, after spinning for `microseconds`.
py::array_t<std::int32_t> workers(std::int64_t items, std::int64_t chunk, double microseconds,
                                  Threads threads) {
  py::array_t<std::int32_t> out(items);
  std::int32_t* const worker_of = out.mutable_data();
  Batch batch = batch_of(items, 1.0, checked_threads(threads));
  batch.chunk = chunk;
  const auto pause = std::chrono::duration<double, std::micro>(microseconds);
  run_without_gil(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    for (std::int64_t i = begin; i < end; ++i) {
      worker_of[i] = worker;
      const auto start = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - start < pause) {
      }
    }
  });
  return out;
}

// The terms of some steps of one schedule, as the kernel sums them: s, log lr, w, and where each
// step's begin.
py::tuple schedule_terms(const py::array& lr, const py::array& steps, bool blocked) {
  const View<double> rates = float64_view(lr, "lr");
  const View<std::int64_t> at = int64_view(steps, "steps");
  ScheduleBlocks blocks(rates.data, rates.size, blocked);
  std::vector<double> s, log_lr, w;
  std::vector<std::int64_t> first{0};
  for (std::int64_t i = 0; i < at.size; ++i) {
    if (at.data[i] < 0 || at.data[i] >= rates.size) throw py::value_error("no such step");
    blocks.append(at.data[i], s, log_lr, w);
    first.push_back(static_cast<std::int64_t>(s.size()));
  }
  const auto array = [](const auto& from) {
    return py::array_t<typename std::decay_t<decltype(from)>::value_type>(
        static_cast<py::ssize_t>(from.size()), from.data());
  };
  return py::make_tuple(array(s), array(log_lr), array(w), array(first));
}

}  // namespace

void bind_testing(py::module_& parent) {
  py::module_ m = parent.def_submodule("_testing", "For the tests only.");
  def_unary<&MathKernels::exp>(m, "exp");
  def_unary<&MathKernels::exp_bounded>(m, "exp_bounded");
  def_unary<&MathKernels::log>(m, "log");
  def_unary<&MathKernels::log_normal>(m, "log_normal");
  def_unary<&MathKernels::log1p>(m, "log1p");
  def_unary<&MathKernels::reciprocal>(m, "reciprocal");
  m.def(
      "pow",
      [](const py::array& x, const py::array& y, const std::string& level) {
        const View<double> a = float64_view(x, "x");
        const View<double> b = float64_view(y, "y");
        check_size(b, a.size, "y", "per x");
        py::array_t<double> out(a.size);
        level_named(level).math->pow(a.data, b.data, out.mutable_data(), a.size);
        return out;
      },
      py::arg("x"), py::arg("y"), py::arg("level"));
  m.def(
      "has_fma", [](const std::string& level) { return level_named(level).math->has_fma; },
      py::arg("level"));
  m.def("workers", &workers, py::arg("items"), py::arg("chunk"), py::arg("microseconds"),
        py::arg("threads"));
  m.def("pool_threads", &pool_threads);
  m.def("schedule_terms", &schedule_terms, py::arg("lr"), py::arg("steps"),
        py::arg("blocked") = true);
}

}  // namespace planner
