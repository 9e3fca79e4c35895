// kernel_tests [PART OF A NAME ...]: runs the tests, at every SIMD level that this CPU has. The
// first line of output is the level that the kernel chooses.
// kernel_tests --bench: nanoseconds per double of the elementary functions, in L1, per level.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "check.hpp"

namespace {

void bench() {
  using planner::MathKernels;
  constexpr std::int64_t n = 1024;
  std::vector<double> x(n);
  std::vector<double> y(n);
  for (std::int64_t i = 0; i < n; ++i) {
    x[static_cast<std::size_t>(i)] = 0.01 + static_cast<double>(i) * 0.0097;
  }
  const struct {
    const char* name;
    MathKernels::Unary MathKernels::* function;
  } rows[] = {{"exp", &MathKernels::exp},     {"exp_bounded", &MathKernels::exp_bounded},
              {"log", &MathKernels::log},     {"log_normal", &MathKernels::log_normal},
              {"log1p", &MathKernels::log1p}, {"reciprocal", &MathKernels::reciprocal}};
  for (const planner::Level& level : planner::available_levels()) {
    for (const auto& row : rows) {
      double best = 1e9;
      for (int round = 0; round < 30; ++round) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 200; ++i) (level.kernels.math->*row.function)(x.data(), y.data(), n);
        const std::chrono::duration<double, std::nano> took =
            std::chrono::steady_clock::now() - start;
        best = std::min(best, took.count() / (200.0 * static_cast<double>(n)));
      }
      std::printf("%-9s %-12s %.3f ns\n", level.name, row.name, best);
    }
  }
}

bool asked_for(const char* name, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strstr(name, argv[i]) != nullptr) return true;
  }
  return argc <= 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    bench();
    return 0;
  }
  std::printf("level %s\n", planner::available_levels().front().name);
  int ran = 0;
  for (const planner::tests::Test& test : planner::tests::all_tests()) {
    if (!asked_for(test.name, argc, argv)) continue;
    const int before = planner::tests::failures();
    test.run();
    ++ran;
    std::printf("%s %s\n", planner::tests::failures() == before ? "ok    " : "FAILED", test.name);
    std::fflush(stdout);
  }
  std::printf("%d tests, %d failed checks\n", ran, planner::tests::failures());
  return planner::tests::failures() != 0 || ran == 0;
}
