// The loss-drop sum of the Multi-Power Law runs over all steps before a target. Here steps are put
// into blocks that grow with their distance from the target: a block becomes two terms that keep
// the weight, mean and variance of its steps' positions. Rises and falls of the learning rate are
// kept apart, so that weights never cancel inside a block.
#pragma once

#include <cstdint>
#include <vector>

namespace planner {

// One curve: terms of every level, level 0 the steps themselves.
class ScheduleBlocks {
 public:
  // lr: (steps,) the learning rate of each step, finite and not negative.
  ScheduleBlocks(const double* lr, std::int64_t steps, bool blocked);

  // Terms that target `step` will have, at most.
  std::int64_t count(std::int64_t step) const;
  // Appends them, padded to eights; 0 <= step < steps.
  void append(std::int64_t step, std::vector<double>& s, std::vector<double>& log_lr,
              std::vector<double>& w) const;
  // Sum of the learning rates up to and with `step`.
  double area(std::int64_t step) const { return area_[static_cast<std::size_t>(step) + 1]; }

 private:
  struct Level {
    std::vector<double> before;  // area before the term
    std::vector<double> log_lr;
    std::vector<double> w;
    std::vector<std::int64_t> first;  // (blocks + 1,)
  };
  template <class Use>
  void for_ranges(std::int64_t step, const Use& use) const;

  std::vector<double> area_;  // (steps + 1,) before each step
  std::vector<Level> levels_;
};

}  // namespace planner
