// The loss-drop sum of the Multi-Power Law runs over all steps before a target. Here steps are put
// into blocks, as large as their distance from the target allows: up to three terms stand for the
// steps of a block, at the nodes of the Gauss quadrature whose weights are those of the steps.
// Rises and falls of the learning rate are kept apart, so that weights never cancel inside a block.
//
// A block counts where its error, estimated from the weights and spreads of its steps, is below a
// share of the peak learning rate; elsewhere its halves do, and in the end the steps themselves.
// A rough schedule thus costs time, not accuracy.
#pragma once

#include <cstdint>
#include <vector>

namespace planner {

// One curve.
class ScheduleBlocks {
 public:
  // lr: (steps,) the learning rate of each step, finite and not negative.
  ScheduleBlocks(const double* lr, std::int64_t steps, bool blocked);

  // Appends the terms of target `step`, padded to eights; 0 <= step < steps.
  void append(std::int64_t step, std::vector<double>& s, std::vector<double>& log_lr,
              std::vector<double>& w) const;
  // Sum of the learning rates up to and with `step`.
  double area(std::int64_t step) const { return area_[static_cast<std::size_t>(step) + 1]; }

 private:
  // What stands for the falls, or the rises, of a block.
  struct Nodes {
    static constexpr int kMost = 3;
    int count = 0;
    double at[kMost];  // position, from where the block begins
    double log_lr[kMost];
    double w[kMost];
    double weight = 0.0;  // of all
    double bend = 0.0;    // half the range of log lr
    double rest = 0.0;    // spread of log lr that position does not explain
    double close = 0.0;   // variance of the positions, where the nodes miss their third moment
  };
  struct Block {
    Nodes side[2];             // falls, rises
    std::int32_t weighty = 0;  // steps that have a weight
  };
  struct Level {
    std::int64_t size;  // steps in a block
    std::vector<Block> blocks;
  };
  struct Out {
    std::vector<double>& s;
    std::vector<double>& log_lr;
    std::vector<double>& w;
    double here;       // area with the target
    std::int64_t end;  // one past the target
  };
  struct Moments;

  static Nodes nodes_of(const Moments& moments, double span);
  static double error_of(const Nodes& nodes, double half, double distance);
  void visit(std::size_t level, std::size_t block, const Out& out) const;
  void add_steps(std::int64_t begin, std::int64_t end, const Out& out) const;

  double tolerance_ = 0.0;      // of a block
  std::vector<double> area_;    // (steps + 1,) before each step
  std::vector<double> w_;       // (steps,) the drop at each step
  std::vector<double> log_lr_;  // (steps,)
  std::vector<Level> levels_;   // smallest blocks first
};

}  // namespace planner
