#include <cmath>
#include <string>

#include "check.hpp"
#include "schedule_terms.hpp"
#include "status.hpp"

namespace {

using namespace planner;

struct Terms {
  std::vector<double> s, log_lr, w;
  std::vector<std::int64_t> first{0};
  std::vector<double> log_area;

  Terms(const std::vector<double>& lr, const std::vector<std::int64_t>& steps, bool blocked) {
    ScheduleBlocks blocks(lr.data(), static_cast<std::int64_t>(lr.size()), blocked);
    for (const std::int64_t step : steps) {
      blocks.append(step, s, log_lr, w);
      first.push_back(static_cast<std::int64_t>(s.size()));
      log_area.push_back(std::log(blocks.area(step)));
    }
  }
  ScheduleTerms view() const {
    return {s.data(), log_lr.data(), w.data(), first.data(), log_area.data()};
  }
};

std::vector<double> schedule(std::size_t n) {
  std::vector<double> lr(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(n);
    lr[i] = t < 0.1 ? 10.0 * t : t < 0.5 ? 1.0 : t < 0.7 ? 0.4 : std::cos(1.5 * (t - 0.7)) * 0.4;
  }
  return lr;
}

}  // namespace

TEST(schedule_terms_sum_like_steps) {
  const double theta[] = {2.0, 0.5, 0.4, -1.5, -2.0, -0.7, 0.8};
  for (const std::size_t n : {1u, 2u, 7u, 8u, 9u, 65u, 3000u}) {
    const std::vector<double> lr = schedule(n);
    std::vector<std::int64_t> steps;
    for (std::size_t i = n > 1 ? 1 : 0; i < n; i += n / 50 + 1) {
      steps.push_back(static_cast<std::int64_t>(i));
    }
    const Terms fine(lr, steps, false);
    const Terms coarse(lr, steps, true);
    CHECK(coarse.s.size() <= fine.s.size() || n < 100);
    for (const Level& level : available_levels()) {
      std::vector<double> exact(steps.size()), blocked(steps.size()), gradient(7 * steps.size());
      const auto count = static_cast<std::int64_t>(steps.size());
      level.kernels.schedule->predict({fine.view(), theta, exact.data(), nullptr}, 0, count);
      level.kernels.schedule->predict({coarse.view(), theta, blocked.data(), gradient.data()}, 0,
                                      count);
      for (std::size_t i = 0; i < steps.size(); ++i) {
        if (n == 1) continue;  // a learning rate of zero has no area
        CHECK(std::abs(exact[i] - blocked[i]) < 1e-6 * std::abs(exact[i]));
        CHECK(gradient[7 * i] == 1.0);
      }
    }
  }
}

TEST(schedule_fit_finds_the_constants) {
  const double theta[] = {2.0, 0.5, 0.4, -1.5, -2.0, -0.7, 0.8};
  const double lower[] = {0, -40, 0, -60, -30, -6, -1};
  const double upper[] = {1e5, 60, 2, 60, 30, 2, 2};
  const double start[] = {1.5, 0.0, 0.5, -1.0, -1.0, -1.0, 0.6};
  const std::vector<double> lr = schedule(3000);
  std::vector<std::int64_t> steps;
  for (std::int64_t i = 300; i < 3000; i += 13) steps.push_back(i);
  const Terms terms(lr, steps, true);
  const auto count = static_cast<std::int64_t>(steps.size());
  const std::vector<double> weights(steps.size(), 1.0);
  std::vector<double> scratch(static_cast<std::size_t>(schedule_fit_scratch(count)));
  std::vector<double> fused;
  for (const Level& level : available_levels()) {
    std::vector<double> loss(steps.size());
    level.kernels.schedule->predict({terms.view(), theta, loss.data(), nullptr}, 0, count);
    for (double& x : loss) x = std::log(x);
    for (const std::int64_t stride : {1, 3}) {
      std::vector<double> end(8);
      std::int32_t evaluations = 0, status = -1;
      level.kernels.schedule->fit(
          {terms.view(), count, stride, loss.data(), weights.data(), lower, upper, 1e-3, 300, start,
           end.data(), end.data() + 7, &evaluations, &status},
          0, 1, scratch.data());
      CHECK(status == static_cast<std::int32_t>(Status::kOk));
      CHECK(end[7] < 1e-12);
      for (std::size_t i = 0; i < 7; ++i) CHECK(std::abs(end[i] - theta[i]) < 0.05);
      if (std::string(level.name) == "baseline") continue;  // rounds fma() twice
      fused.insert(fused.end(), end.begin(), end.end());
    }
  }
  for (std::size_t i = 16; i < fused.size(); ++i) CHECK(fused[i] == fused[i - 16]);
}
