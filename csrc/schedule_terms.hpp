// The loss-drop sum of the Multi-Power Law runs over all steps before a target. Here steps are put
// into blocks, as large as their distance from the target allows: up to three terms stand for the
// steps of a block, at the nodes of the Gauss quadrature whose weights are those of the steps.
// Rises and falls of the learning rate are kept apart, so that weights never cancel inside a block.
//
// A block is used where its error, estimated from the weights and spreads of its steps, is below a
// share of the peak learning rate; elsewhere its halves are, and in the end the steps themselves.
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
              std::vector<double>& w);
  // Sum of the learning rates up to and with `step`.
  double area(std::int64_t step) const { return area_[static_cast<std::size_t>(step) + 1]; }

 private:
  // Sums over the falls, or the rises, of a block; positions from where it begins.
  struct Moments {
    double p[6] = {};   // of w position^i
    double pl[3] = {};  // of w position^i log lr
    double ll = 0.0;    // of w (log lr)^2
    double lowest;      // log lr
    double highest;
    std::int64_t steps = 0;

    void add(double w, double position, double log_lr);
    void add_shifted(const Moments& m, double by);  // those of a block that begins `by` further on
  };
  // What stands for them.
  struct Nodes {
    static constexpr int kMost = 3;
    int count = 0;
    double at[kMost];  // position, from where the block begins
    double log_lr[kMost];
    double w[kMost];
    double weight = 0.0;  // of all; infinite where no nodes will do
    double bend = 0.0;    // half the range of log lr
    double rest = 0.0;    // spread of log lr that position does not explain
    bool exact = true;    // the steps themselves
  };
  struct Block {
    Moments side[2];     // falls, rises
    std::int64_t nodes;  // where in nodes_, below 0 until wanted
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

  static Nodes nodes_of(const Moments& moments, double span);
  static double error_of(const Nodes& nodes, double half, double distance);
  const Nodes* nodes_of(Block& block, std::int64_t begin, std::int64_t end);  // of both sides
  void visit(std::size_t level, std::size_t block, const Out& out);
  void add_steps(std::int64_t begin, std::int64_t end, const Out& out) const;

  double tolerance_ = 0.0;      // of a block
  std::vector<double> area_;    // (steps + 1,) before each step
  std::vector<double> w_;       // (steps,) the drop at each step
  std::vector<double> log_lr_;  // (steps,)
  std::vector<Level> levels_;   // smallest blocks first
  std::vector<Nodes> nodes_;    // two for each block that was looked at
};

}  // namespace planner
