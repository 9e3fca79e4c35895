#include <cmath>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

struct Result {
  std::vector<double> mean;
  std::vector<std::int64_t> n_finite;
  std::vector<std::int32_t> status;

  bool operator==(const Result& other) const {
    return n_finite == other.n_finite && status == other.status &&
           std::memcmp(mean.data(), other.mean.data(), mean.size() * sizeof(double)) == 0;
  }
};

Result run(const Kernels& kernels, const tests::Curves& curves, int threads) {
  const auto n = static_cast<std::size_t>(curves.size());
  Result result = {std::vector<double>(n), std::vector<std::int64_t>(n),
                   std::vector<std::int32_t>(n)};
  const RaggedMean args = {curves.values.data(), curves.offsets.data(), result.mean.data(),
                           result.n_finite.data(), result.status.data()};
  parallel_for({curves.size(), 3, threads, nullptr},
               [&](std::int64_t begin, std::int64_t end, int) noexcept {
                 kernels.ragged->mean(args, begin, end);
               });
  return result;
}

}  // namespace

TEST(ragged_mean_same_bits) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const tests::Curves curves = tests::random_curves(seed);
    const Result first = run(available_levels().front().kernels, curves, 1);
    for (const Level& level : available_levels()) {
      for (const int threads : {1, 2, 7}) CHECK(run(level.kernels, curves, threads) == first);
    }
  }
}

TEST(ragged_mean_against_long_double) {
  const tests::Curves curves = tests::random_curves(4);
  const Result result = run(available_levels().front().kernels, curves, 1);
  for (std::int64_t i = 0; i < curves.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    long double sum = 0.0L;
    std::int64_t n = 0;
    for (std::int64_t j = curves.offsets[at]; j < curves.offsets[at + 1]; ++j) {
      const double x = curves.values[static_cast<std::size_t>(j)];
      if (!(std::abs(x) < 1e300)) continue;
      sum += x;
      ++n;
    }
    CHECK(result.n_finite[at] == n);
    const Status want = curves.offsets[at + 1] == curves.offsets[at] ? Status::kEmpty
                        : n == 0                                     ? Status::kNonFinite
                                                                     : Status::kOk;
    CHECK(result.status[at] == static_cast<std::int32_t>(want));
    if (n == 0) {
      CHECK(std::isnan(result.mean[at]));
    } else {
      const auto mean = static_cast<double>(sum / n);
      CHECK(std::abs(result.mean[at] - mean) <= 4e-16 * std::abs(mean) + 5e-324);
    }
  }
}
