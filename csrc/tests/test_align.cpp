#include <cmath>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

struct Result {
  std::vector<double> divisor;
  std::vector<double> objective;
  std::vector<double> error;
  std::vector<std::int32_t> status;
  std::vector<std::int32_t> iterations;

  bool operator==(const Result& other) const {
    const std::size_t bytes = divisor.size() * sizeof(double);
    return std::memcmp(divisor.data(), other.divisor.data(), bytes) == 0 &&
           std::memcmp(objective.data(), other.objective.data(), bytes) == 0 &&
           std::memcmp(error.data(), other.error.data(), bytes) == 0 && status == other.status &&
           iterations == other.iterations;
  }
};

constexpr std::int64_t kGrid = 133;
constexpr std::int64_t kCurves = 40;
constexpr std::int64_t kCandidates = 11;

// Curves 0 and 1 are without points; the others lie around 3 times candidate i % kCandidates.
Result run(const Kernels& kernels, Alignment method, int threads) {
  std::mt19937_64 random(5);
  std::vector<double> candidates;
  for (std::int64_t c = 0; c < kCandidates; ++c) {
    for (std::int64_t i = 0; i < kGrid; ++i) {
      const double t = static_cast<double>(i + 1) / kGrid;
      candidates.push_back(1.0 + 0.05 * static_cast<double>(c) * (1.0 - t) * (1.0 - t));
    }
  }
  std::vector<double> curves;
  for (std::int64_t c = 0; c < kCurves; ++c) {
    for (std::int64_t i = 0; i < kGrid; ++i) {
      const double u = candidates[static_cast<std::size_t>(c % kCandidates * kGrid + i)];
      const double noise = 0.02 * (tests::uniform(random) - 0.5);
      const bool missing = c < 2 || i < 20 || (c % 3 == 0 && random() % 10 == 0);
      curves.push_back(missing ? __builtin_nan("") : 3.0 * u + noise);
    }
  }
  const Scratch tables(1, kernels.align->tables(kGrid, kCandidates));
  const std::vector<double> delta(kCurves, 0.004);
  const std::size_t n = kCurves * kCandidates;
  Result r = {std::vector<double>(n), std::vector<double>(n), std::vector<double>(n),
              std::vector<std::int32_t>(n), std::vector<std::int32_t>(n)};
  std::vector<std::int64_t> n_finite(kCurves);
  const AlignArgs args = {curves.data(),    candidates.data(),
                          tables.of(0),     kCurves,
                          kCandidates,      kGrid,
                          method,           delta.data(),
                          r.divisor.data(), r.objective.data(),
                          r.error.data(),   n_finite.data(),
                          r.status.data(),  r.iterations.data()};
  kernels.align->prepare(args, 0, kernels.align->panels(kCandidates));
  const Batch batch = {kCurves, 3, threads, nullptr};
  const Scratch scratch(threads_for(batch), kernels.align->scratch(kGrid, kCandidates));
  parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernels.align->align(args, begin, end, scratch.of(worker));
  });
  return r;
}

}  // namespace

TEST(align_levels_and_threads) {
  for (const Alignment method :
       {Alignment::kLeastSquares, Alignment::kHuber, Alignment::kLeastAbsolute}) {
    const Result first = run(available_levels().front().kernels, method, 1);
    for (const Level& level : available_levels()) {
      const Result one = run(level.kernels, method, 1);
      for (const int threads : {2, 7}) CHECK(run(level.kernels, method, threads) == one);
      const bool fused =
          std::strcmp(level.name, "avx512") == 0 || std::strcmp(level.name, "avx2") == 0;
      if (fused) CHECK(one == first);
      for (std::size_t i = 0; i < one.divisor.size(); ++i) {
        const bool empty = i < 2 * kCandidates;
        CHECK(one.status[i] == static_cast<std::int32_t>(empty ? Status::kNonFinite : Status::kOk));
        if (!empty) CHECK(std::abs(one.divisor[i] / first.divisor[i] - 1.0) < 1e-9);
        const auto curve = static_cast<std::int64_t>(i) / kCandidates;
        if (!empty && static_cast<std::int64_t>(i) % kCandidates == curve % kCandidates) {
          CHECK(std::abs(one.divisor[i] - 3.0) < 0.01);
        }
      }
    }
  }
}
