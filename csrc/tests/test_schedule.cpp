#include <cmath>

#include "check.hpp"
#include "schedule_terms.hpp"

namespace {

using namespace planner;

struct Terms {
  std::vector<double> s, log_lr, w;
  std::vector<std::int64_t> first{0};
  std::vector<double> log_area;

  Terms(const std::vector<double>& lr, const std::vector<std::int64_t>& steps, bool blocked) {
    const ScheduleBlocks blocks(lr.data(), static_cast<std::int64_t>(lr.size()), blocked);
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
