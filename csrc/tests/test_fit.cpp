#include <cmath>
#include <cstring>
#include <limits>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Result {
  std::vector<double> theta, objective, cov, rho, samples;
  std::vector<std::int64_t> evaluations, coarse, iterations, n_points;
  std::vector<std::int32_t> status;

  bool operator==(const Result& o) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0);
    };
    return same(theta, o.theta) && same(objective, o.objective) && same(cov, o.cov) &&
           same(rho, o.rho) && same(samples, o.samples) && evaluations == o.evaluations &&
           coarse == o.coarse && iterations == o.iterations && n_points == o.n_points &&
           status == o.status;
  }
};

Result run(const Kernels& kernels, const tests::Curves& curves, FitModel model, int threads,
           bool brute) {
  const std::int64_t np = model == FitModel::kPower ? 4 : 6;
  constexpr std::int64_t replicates = 2;
  const double lower[2][6] = {{-13.8, 0.0, -2.0, 0.02, 0.0, 1.0}, {-kInf, -kInf, 0.0, 0.0}};
  const double upper[2][6] = {{2.3, 5.0, 5.0, 20.0, 0.0, 1.0}, {kInf, kInf, 5.0, 10.0}};
  const double grid[2][12] = {{-5.8, 0.1, 0.1, 0.5, 0.1, 1.0, -3.0, 0.1, 0.1, 2.0, 0.1, 1.0},
                              {kInf - kInf, kInf - kInf, 0.3, 0.1, kInf - kInf, 1.0, 1.0, 1.0}};
  std::vector<double> x(curves.values.size());
  std::vector<double> eta(curves.values.size());
  std::int64_t longest = 0;
  for (std::size_t c = 0; c + 1 < curves.offsets.size(); ++c) {
    const std::int64_t n = curves.offsets[c + 1] - curves.offsets[c];
    longest = n > longest ? n : longest;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(curves.offsets[c] + i);
      x[at] = static_cast<double>(i + 1) / static_cast<double>(n);
      eta[at] = 1.0 - x[at];
    }
  }
  const auto n = static_cast<std::size_t>(curves.size());
  const auto p = static_cast<std::size_t>(np);
  const double delta = 0.01;
  const std::vector<double> ends(n, 0.0);
  Result r;
  r.theta.resize(n * p);
  r.objective.resize(n);
  r.cov.resize(n * p * p);
  r.rho.resize(n);
  r.samples.resize(n * p * replicates);
  r.evaluations.resize(n);
  r.coarse.resize(n);
  r.iterations.resize(n);
  r.n_points.resize(n);
  r.status.assign(n, -1);
  const int which = np == 4 ? 1 : 0;
  FitArgs args = {};
  args.y = curves.values.data();
  args.x = x.data();
  args.eta = eta.data();
  args.offsets = curves.offsets.data();
  args.eta_end = ends.data();
  args.model = model;
  args.lower = lower[which];
  args.upper = upper[which];
  args.delta = &delta;
  args.starts = grid[which];
  args.n_starts = args.n_thin_starts = 2;
  args.brute = brute;
  args.ftol = 1e-10;
  args.max_iterations = 50;
  args.covariance = true;
  args.replicates = replicates;
  args.longest = longest;
  args.theta = r.theta.data();
  args.objective = r.objective.data();
  args.cov = r.cov.data();
  args.autocorrelation = r.rho.data();
  args.samples = r.samples.data();
  args.evaluations = r.evaluations.data();
  args.coarse_evaluations = r.coarse.data();
  args.iterations = r.iterations.data();
  args.n_points = r.n_points.data();
  args.status = r.status.data();
  const Batch batch = {curves.size(), 3, threads, nullptr};
  const Scratch scratch(threads_for(batch), kernels.fit->scratch(longest));
  parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
    kernels.fit->fit(args, begin, end, scratch.of(worker));
  });
  return r;
}

constexpr FitModel kModels[] = {FitModel::kCurve, FitModel::kNormalized, FitModel::kPower};

}  // namespace

TEST(fit_same_bits) {
  const tests::Curves curves = tests::random_curves(6, 900);
  for (const FitModel model : kModels) {
    for (const bool brute : {false, true}) {
      Result fused;
      for (const Level& level : available_levels()) {
        const Result first = run(level.kernels, curves, model, 1, brute);
        for (const int threads : {2, 7}) {
          CHECK(run(level.kernels, curves, model, threads, brute) == first);
        }
        if (!level.kernels.math->has_fma) continue;
        if (fused.status.empty()) fused = first;
        CHECK(first == fused);
      }
    }
  }
}

TEST(fit_finds_a_power_law) {
  tests::Curves curves;
  for (int i = 0; i < 400; ++i) {
    const double x = (i + 1) / 400.0;
    curves.values.push_back(1.5 + 0.7 * std::pow(x + 0.2, -0.6));
  }
  curves.offsets.push_back(400);
  for (const Level& level : available_levels()) {
    const Result r = run(level.kernels, curves, FitModel::kPower, 1, false);
    const double want[] = {1.5, 0.7, 0.6, 0.2};
    for (std::size_t p = 0; p < 4; ++p) CHECK(std::abs(r.theta[p] - want[p]) < 1e-6);
    CHECK(r.objective[0] < 1e-18);
  }
}

TEST(fit_statuses) {
  tests::Curves curves;
  curves.offsets.push_back(0);
  curves.values.push_back(2.0);
  curves.offsets.push_back(1);
  for (int i = 0; i < 20; ++i) curves.values.push_back(__builtin_nan(""));
  curves.offsets.push_back(21);
  for (const Level& level : available_levels()) {
    for (const FitModel model : kModels) {
      const Result r = run(level.kernels, curves, model, 1, false);
      CHECK(r.status[0] == static_cast<std::int32_t>(Status::kEmpty));
      CHECK(r.status[1] == static_cast<std::int32_t>(Status::kTooFewPoints));
      CHECK(r.status[2] == static_cast<std::int32_t>(Status::kNonFinite));
    }
  }
}
