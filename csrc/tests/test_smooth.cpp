#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

struct Result {
  std::vector<double> smoothed;
  std::vector<double> resampled;
  std::vector<double> divisor;
  std::vector<std::int64_t> n_finite;
  std::vector<std::int32_t> status;

  static bool same(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
  }
  bool operator==(const Result& other) const {
    return same(smoothed, other.smoothed) && same(resampled, other.resampled) &&
           same(divisor, other.divisor) && n_finite == other.n_finite && status == other.status;
  }
};

Result run(const Kernels& kernels, const tests::Curves& curves, Smoothing kind, double width,
           bool normalize, int threads) {
  const auto n = static_cast<std::size_t>(curves.size());
  std::vector<double> grid;
  for (int k = 0; k <= 60; ++k) grid.push_back(k / 60.0);
  std::vector<double> totals;
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t points = curves.offsets[i + 1] - curves.offsets[i];
    totals.push_back(static_cast<double>(points) * (i % 3 == 0 ? 1.5 : 1.0));
    longest = std::max(longest, points);
  }
  const std::vector<double> widths(n, width);
  Result r = {std::vector<double>(curves.values.size()), std::vector<double>(n * grid.size()),
              std::vector<double>(n), std::vector<std::int64_t>(n), std::vector<std::int32_t>(n)};
  const SmoothInput in = {curves.values.data(), curves.offsets.data(), widths.data(), kind};
  const auto points = static_cast<std::int64_t>(grid.size());
  const SmoothCurves smooth = {in, r.smoothed.data(), r.n_finite.data(), r.status.data()};
  const ResampleCurves resample = {in,
                                   grid.data(),
                                   points,
                                   nullptr,
                                   totals.data(),
                                   nullptr,
                                   normalize,
                                   0.5,
                                   r.resampled.data(),
                                   r.divisor.data(),
                                   r.n_finite.data(),
                                   r.status.data()};
  const Batch batch = {curves.size(), 3, threads, nullptr};
  const Scratch scratch(threads_for(batch), kernels.smooth->scratch(longest, points));
  parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernels.smooth->smooth(smooth, begin, end, scratch.of(worker));
  });
  parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernels.smooth->resample(resample, begin, end, scratch.of(worker));
  });
  return r;
}

struct Way {
  Smoothing kind;
  double width;
};
constexpr Way kWays[] = {
    {Smoothing::kCentred, 7.0},     {Smoothing::kCentred, 100.0},
    {Smoothing::kTrailing, 1.0},    {Smoothing::kTrailing, 2.0},
    {Smoothing::kTrailing, 4099.0}, {Smoothing::kTrailing, 1e300},
    {Smoothing::kExponential, 0.1}, {Smoothing::kExponential, 1e-12},
    {Smoothing::kExponential, 1.0},
};

}  // namespace

TEST(smooth_same_bits) {
  for (const std::uint64_t seed : {1u, 2u}) {
    const tests::Curves curves = tests::random_curves(seed, 9000);
    for (const Way& way : kWays) {
      for (const bool normalize : {false, true}) {
        const Result first =
            run(available_levels().front().kernels, curves, way.kind, way.width, normalize, 1);
        for (const Level& level : available_levels()) {
          for (const int threads : {1, 2, 7}) {
            CHECK(run(level.kernels, curves, way.kind, way.width, normalize, threads) == first);
          }
        }
      }
    }
  }
}

TEST(smooth_against_long_double) {
  const tests::Curves curves = tests::random_curves(3, 9000);
  for (const Way& way : kWays) {
    if (way.kind == Smoothing::kExponential) continue;
    const Result r = run(available_levels().front().kernels, curves, way.kind, way.width, false, 1);
    const auto window = static_cast<std::int64_t>(std::min(way.width, 1e9));
    const bool centred = way.kind == Smoothing::kCentred;
    const std::int64_t left = centred ? window / 2 : window - 1;
    const std::int64_t right = centred ? (window - 1) / 2 : 0;
    for (std::size_t c = 0; c + 1 < curves.offsets.size(); ++c) {
      const std::int64_t first = curves.offsets[c];
      const std::int64_t n = curves.offsets[c + 1] - first;
      double scale = 0.0;
      for (std::int64_t i = first; i < first + n; ++i) {
        const double x = std::abs(curves.values[static_cast<std::size_t>(i)]);
        if (x < 1e300) scale = std::max(scale, x);
      }
      for (std::int64_t i = 0; i < n; i += 1 + i / 50) {
        long double sum = 0.0L;
        std::int64_t usable = 0;
        for (std::int64_t j = std::max<std::int64_t>(i - left, 0); j <= std::min(i + right, n - 1);
             ++j) {
          const double x = curves.values[static_cast<std::size_t>(first + j)];
          if (!(std::abs(x) < 1e300)) continue;
          sum += x;
          ++usable;
        }
        const double got = r.smoothed[static_cast<std::size_t>(first + i)];
        if (usable == 0) {
          CHECK(std::isnan(got));
        } else {
          CHECK(std::abs(got - static_cast<double>(sum / usable)) <= 1e-12 * scale + 5e-324);
        }
      }
    }
  }
}
