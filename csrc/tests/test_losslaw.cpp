#include <cmath>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

// Runs around a known law, padded to eights.
struct Data {
  std::vector<double> x, y, z, w;
  LossLaw law;

  explicit Data(std::int64_t points, double noise) {
    const auto padded = static_cast<std::size_t>((points + 7) / 8 * 8);
    x.assign(padded, 0.0);
    y = z = w = x;
    std::mt19937_64 random(7);
    for (std::size_t i = 0; i < static_cast<std::size_t>(points); ++i) {
      x[i] = 6.0 * tests::uniform(random) - 3.0;
      y[i] = 6.0 * tests::uniform(random) - 3.0;
      const double loss =
          std::exp(-1.5 - 0.35 * x[i]) + std::exp(-1.8 - 0.4 * y[i]) + std::exp(0.5);
      z[i] = std::log(loss) + noise * (tests::uniform(random) - 0.5);
      w[i] = 1.0;
    }
    law = {
        x.data(), y.data(), z.data(), nullptr, w.data(), points, static_cast<std::int64_t>(padded),
        3.0,      3.0,      {},       {},      false,    1e-3};
    const double lower[] = {-60, -60, -30, 0, 0, 0};
    const double upper[] = {60, 60, 3, 3, 3, 0};
    std::memcpy(law.lower, lower, sizeof lower);
    std::memcpy(law.upper, upper, sizeof upper);
  }
};

struct Result {
  std::vector<double> theta, objective;
  std::vector<std::int32_t> evaluations, status;

  explicit Result(std::size_t n) : theta(6 * n), objective(n), evaluations(n), status(n) {}
  bool operator==(const Result& other) const {
    return std::memcmp(theta.data(), other.theta.data(), theta.size() * sizeof(double)) == 0 &&
           evaluations == other.evaluations && status == other.status;
  }
};

Result fit(const Kernels& kernels, const Data& data, int threads) {
  const double starts[] = {-1, -1, 0.3, 0.5, 0.5, 0, 0, -2, 0, 0.2, 1.0, 0, 5, -30, -1, 2, 0, 0};
  Result out(3);
  const LossLawFit args = {data.law,
                           starts,
                           300,
                           false,
                           out.theta.data(),
                           out.objective.data(),
                           out.evaluations.data(),
                           out.status.data()};
  const Batch batch = {3, 1, threads, nullptr};
  const Scratch scratch(threads_for(batch), losslaw_fit_scratch(data.law.padded));
  parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernels.losslaw->fit(args, begin, end, scratch.of(worker));
  });
  return out;
}

}  // namespace

TEST(losslaw_finds_a_noiseless_law) {
  for (const Level& level : available_levels()) {
    const Result out = fit(level.kernels, Data(61, 0.0), 1);
    const double truth[] = {-1.5, -1.8, 0.5, 0.35, 0.4};
    for (std::size_t i = 0; i < 5; ++i) CHECK(std::abs(out.theta[i] - truth[i]) < 1e-6);
    CHECK(out.status[0] == static_cast<std::int32_t>(Status::kOk));
  }
}

TEST(losslaw_same_bits_for_any_threads) {
  const Data data(301, 0.02);
  for (const Level& level : available_levels()) {
    const Result first = fit(level.kernels, data, 1);
    CHECK(std::abs(first.objective[0] / first.objective[1] - 1.0) < 1e-8);
    for (const int threads : {2, 7}) CHECK(fit(level.kernels, data, threads) == first);
  }
}

TEST(losslaw_refit_of_all_points_is_the_fit) {
  const Data data(45, 0.01);
  for (const Level& level : available_levels()) {
    const Result first = fit(level.kernels, data, 1);
    std::vector<std::uint8_t> counts(2 * 45, 1);
    for (std::size_t i = 45; i < 88; ++i) counts[i] = 0;  // the second set has two points
    Result out(2);
    const LossLawRefit args = {data.law,
                               counts.data(),
                               first.theta.data(),
                               1,
                               300,
                               out.theta.data(),
                               out.objective.data(),
                               out.evaluations.data(),
                               out.status.data()};
    const Scratch scratch(1, losslaw_fit_scratch(data.law.padded));
    level.kernels.losslaw->refit(args, 0, 2, scratch.of(0));
    CHECK(std::abs(out.objective[0] / first.objective[0] - 1.0) < 1e-9);
    CHECK(out.status[1] == static_cast<std::int32_t>(Status::kTooFewPoints));
    CHECK(std::isnan(out.theta[6]));
  }
}
