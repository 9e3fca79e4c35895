#include "schedule_terms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace planner {

namespace {

constexpr std::int64_t kSmallest = 8;  // steps in the smallest blocks
constexpr double kLowest = 1e-12;      // of the peak: what a learning rate of zero counts as
constexpr double kTolerance = 4e-8;    // error of a block, of the peak
constexpr double kBend = 0.5;
constexpr double kPi = 3.14159265358979323846;

}  // namespace

void ScheduleBlocks::Moments::add(double weight, double position, double log) {
  double power = weight;
  for (int i = 0; i < 6; ++i) {
    p[i] += power;
    if (i < 3) pl[i] += power * log;
    power *= position;
  }
  ll += weight * log * log;
  lowest = steps == 0 ? log : std::min(lowest, log);
  highest = steps == 0 ? log : std::max(highest, log);
  ++steps;
}

void ScheduleBlocks::Moments::add_shifted(const Moments& m, double by) {
  if (m.steps == 0) return;
  constexpr double kChoose[6][6] = {{1},          {1, 1},          {1, 2, 1},
                                    {1, 3, 3, 1}, {1, 4, 6, 4, 1}, {1, 5, 10, 10, 5, 1}};
  for (int i = 0; i < 6; ++i) {
    double sum = 0.0;
    double sum_l = 0.0;
    for (int j = 0; j <= i; ++j) {
      sum = sum * by + kChoose[i][j] * m.p[j];
      if (i < 3) sum_l = sum_l * by + kChoose[i][j] * m.pl[j];
    }
    p[i] += sum;
    if (i < 3) pl[i] += sum_l;
  }
  ll += m.ll;
  lowest = steps == 0 ? m.lowest : std::min(lowest, m.lowest);
  highest = steps == 0 ? m.highest : std::max(highest, m.highest);
  steps += m.steps;
}

// Gauss quadrature from the moments of the weights; log lr at the nodes is that of its projection
// on polynomials of position.
ScheduleBlocks::Nodes ScheduleBlocks::nodes_of(const Moments& m, double span) {
  Nodes out;
  out.exact = false;
  out.weight = std::numeric_limits<double>::infinity();
  double r[6];
  for (int i = 0; i < 6; ++i) r[i] = m.p[i] / m.p[0];
  const double mean = r[1];
  const double variance = r[2] - mean * mean;
  // Where most of the weight lies in one place, moments are rounding.
  if (!(variance > 1e-8 * span * span)) return out;
  const double spread = std::sqrt(variance);
  const double level = m.pl[0] / m.p[0];
  const double slope = (m.pl[1] / m.p[0] - mean * level) / spread;
  const double skew = (r[3] - mean * (3.0 * r[2] - 2.0 * mean * mean)) / (variance * spread);
  const double fourth = (r[4] - mean * (4.0 * r[3] - mean * (6.0 * r[2] - 3.0 * mean * mean))) /
                        (variance * variance);
  const double norm = fourth - 1.0 - skew * skew;  // of x^2 - skew x - 1
  double rest = m.ll / m.p[0] - level * level - slope * slope;

  double x[3];  // nodes in units of the spread, from the mean
  double share[3];
  double log_lr[3];
  if (variance < 1e-4 * span * span || !(norm > 1e-6 * fourth)) {
    out.count = 2;
    const double root = std::sqrt(skew * skew + 4.0);
    x[0] = skew < 0.0 ? 0.5 * (skew - root) : -2.0 / (skew + root);
    x[1] = -1.0 / x[0];
    for (int i = 0; i < 2; ++i) {
      share[i] = 1.0 / (1.0 + x[i] * x[i]);
      log_lr[i] = level + slope * x[i];
    }
  } else {
    out.count = 3;
    const double fifth =
        (r[5] -
         mean * (5.0 * r[4] - mean * (10.0 * r[3] - mean * (10.0 * r[2] - 4.0 * mean * mean)))) /
        (variance * variance * spread);
    const double bow =
        (m.pl[2] / m.p[0] - mean * (2.0 * m.pl[1] / m.p[0] - mean * level)) / variance -
        skew * slope - level;
    rest -= bow * bow / norm;
    // The next polynomial, (x - a) (x^2 - skew x - 1) - norm x, has its roots at the nodes.
    const double a = (fifth - 2.0 * skew * fourth + skew * skew * skew) / norm;
    const double third = (skew + a) / 3.0;
    const double linear = a * skew - 1.0 - norm;
    const double p = linear - 3.0 * third * third;
    const double q = a + third * (linear - 2.0 * third * third);
    const double size = std::sqrt(std::max(-p / 3.0, 0.0));
    const double turn = std::acos(std::clamp(-0.5 * q / (size * size * size), -1.0, 1.0)) / 3.0;
    for (int i = 0; i < 3; ++i) {
      double t = third + 2.0 * size * std::cos(turn - 2.0 * kPi * i / 3.0);
      const double value = ((t - 3.0 * third) * t + linear) * t + a;
      const double derivative = (3.0 * t - 6.0 * third) * t + linear;
      if (std::abs(derivative) > 1e-3) t -= value / derivative;
      const double second = t * t - skew * t - 1.0;
      x[i] = t;
      share[i] = 1.0 / (1.0 + t * t + second * second / norm);
      log_lr[i] = level + slope * t + bow * second / norm;
    }
  }
  double lowest = m.lowest;
  double highest = m.highest;
  double total = 0.0;
  for (int i = 0; i < out.count; ++i) {
    out.at[i] = mean + spread * x[i];
    // Between the first step and the last, but for rounding.
    if (!(out.at[i] > -1e-6 * span && out.at[i] < (1.0 + 1e-6) * span)) return out;
    out.at[i] = std::clamp(out.at[i], 0.0, span);
    out.log_lr[i] = log_lr[i];
    out.w[i] = m.p[0] * share[i];
    total += share[i];
    lowest = std::min(lowest, log_lr[i]);
    highest = std::max(highest, log_lr[i]);
  }
  const double bend = m.highest - m.lowest;
  if (!(std::abs(total - 1.0) < 1e-6 && highest - lowest <= 3.0 * bend + 1e-6)) return out;
  out.weight = m.p[0];
  out.bend = 0.5 * (highest - lowest);
  out.rest = std::sqrt(std::max(rest, 0.0));
  return out;
}

// Of the terms in place of the steps of a block whose positions lie within `half` of `distance`
// before the target; about right for beta and gamma up to one. The law is smooth in
// log S - gamma log lr, so what counts is half / distance and the range of log lr.
double ScheduleBlocks::error_of(const Nodes& nodes, double half, double distance) {
  if (nodes.exact) return 0.0;
  const double near = half / distance;
  const double reach = near + kBend * nodes.bend;
  const double square = reach * reach;
  double error = 0.06 * nodes.rest * nodes.rest;
  if (nodes.count == 2) {
    error += 1.6e-2 * square * square + 0.076 * square * nodes.rest;
  } else {
    error += 2.7e-3 * square * square * square + 0.042 * square * reach * nodes.rest;
  }
  return nodes.weight * error;
}

ScheduleBlocks::ScheduleBlocks(const double* lr, std::int64_t steps, bool blocked) {
  const auto n = static_cast<std::size_t>(steps);
  area_.resize(n + 1);
  w_.resize(n);
  log_lr_.resize(n);
  double total = 0.0;
  double peak = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    area_[i] = total;
    total += lr[i];
    peak = std::max(peak, lr[i]);
  }
  area_[n] = total;
  tolerance_ = kTolerance * peak;
  double last_lr = -1.0;
  double last_log = 0.0;
  const double lowest = std::max(kLowest * peak, 1e-100);
  for (std::size_t i = 0; i < n; ++i) {
    w_[i] = i == 0 ? 0.0 : lr[i - 1] - lr[i];
    if (w_[i] != 0.0 && lr[i] != last_lr) {
      last_lr = lr[i];
      last_log = std::log(std::max(last_lr, lowest));
    }
    log_lr_[i] = last_log;
  }
  if (!blocked) return;

  for (std::int64_t size = kSmallest; size < steps; size *= 2) {
    const std::int64_t count = (steps + size - 1) / size;
    Level level = {size, std::vector<Block>(static_cast<std::size_t>(count))};
    for (std::int64_t block = 0; block < count; ++block) {
      Block& out = level.blocks[static_cast<std::size_t>(block)];
      out.nodes = -1;
      const auto begin = static_cast<std::size_t>(block * size);
      const auto end = static_cast<std::size_t>(std::min((block + 1) * size, steps));
      const double origin = area_[begin];
      if (levels_.empty()) {
        for (std::size_t i = begin; i < end; ++i) {
          if (w_[i] == 0.0) continue;
          out.side[w_[i] < 0.0].add(std::abs(w_[i]), area_[i] - origin, log_lr_[i]);
        }
        continue;
      }
      const std::vector<Block>& below = levels_.back().blocks;
      const auto first = static_cast<std::size_t>(2 * block);
      for (std::size_t half = first; half < std::min(first + 2, below.size()); ++half) {
        const double by = area_[half * static_cast<std::size_t>(size / 2)] - origin;
        for (int i = 0; i < 2; ++i) out.side[i].add_shifted(below[half].side[i], by);
      }
    }
    levels_.push_back(std::move(level));
  }
}

const ScheduleBlocks::Nodes* ScheduleBlocks::nodes_of(Block& block, std::int64_t begin,
                                                      std::int64_t end) {
  if (block.nodes < 0) {
    block.nodes = static_cast<std::int64_t>(nodes_.size());
    const double origin = area_[static_cast<std::size_t>(begin)];
    for (int side = 0; side < 2; ++side) {
      const Moments& moments = block.side[side];
      if (moments.steps > Nodes::kMost) {
        nodes_.push_back(nodes_of(moments, area_[static_cast<std::size_t>(end)] - origin));
        continue;
      }
      Nodes nodes;
      for (auto i = static_cast<std::size_t>(begin); nodes.count < moments.steps; ++i) {
        if (w_[i] == 0.0 || (w_[i] < 0.0) != (side == 1)) continue;
        nodes.at[nodes.count] = area_[i] - origin;
        nodes.log_lr[nodes.count] = log_lr_[i];
        nodes.w[nodes.count++] = std::abs(w_[i]);
      }
      nodes_.push_back(nodes);
    }
  }
  return nodes_.data() + block.nodes;
}

void ScheduleBlocks::add_steps(std::int64_t begin, std::int64_t end, const Out& out) const {
  for (std::int64_t step = begin; step < end; ++step) {
    const auto i = static_cast<std::size_t>(step);
    if (w_[i] == 0.0) continue;
    out.s.push_back(std::max(out.here - area_[i], 0.0));
    out.log_lr.push_back(log_lr_[i]);
    out.w.push_back(w_[i]);
  }
}

void ScheduleBlocks::visit(std::size_t level, std::size_t block, const Out& out) {
  Level& at = levels_[level];
  Block& here = at.blocks[block];
  const std::int64_t begin = static_cast<std::int64_t>(block) * at.size;
  const std::int64_t weighty = here.side[0].steps + here.side[1].steps;
  if (weighty == 0 || begin >= out.end) return;
  const std::int64_t end = std::min(begin + at.size, static_cast<std::int64_t>(w_.size()));
  const double origin = area_[static_cast<std::size_t>(begin)];
  const double half = 0.5 * (area_[static_cast<std::size_t>(end)] - origin);
  const double distance = out.here - (origin + half);
  if (end <= out.end && distance > half) {
    const Nodes* const nodes = nodes_of(here, begin, end);
    if (nodes[0].count + nodes[1].count <= weighty &&
        error_of(nodes[0], half, distance) + error_of(nodes[1], half, distance) <= tolerance_) {
      for (int i = 0; i < 2; ++i) {
        for (int k = 0; k < nodes[i].count; ++k) {
          out.s.push_back(std::max(out.here - (origin + nodes[i].at[k]), 0.0));
          out.log_lr.push_back(nodes[i].log_lr[k]);
          out.w.push_back(i == 0 ? nodes[i].w[k] : -nodes[i].w[k]);
        }
      }
      return;
    }
  }
  if (level == 0) {
    add_steps(begin, std::min(end, out.end), out);
  } else {
    visit(level - 1, 2 * block, out);
    if (2 * block + 1 < levels_[level - 1].blocks.size()) visit(level - 1, 2 * block + 1, out);
  }
}

void ScheduleBlocks::append(std::int64_t step, std::vector<double>& s, std::vector<double>& log_lr,
                            std::vector<double>& w) {
  const Out out = {s, log_lr, w, area(step), step + 1};
  if (levels_.empty()) {
    add_steps(0, step + 1, out);
  } else {
    for (std::size_t block = 0; block < levels_.back().blocks.size(); ++block) {
      visit(levels_.size() - 1, block, out);
    }
  }
  while (s.size() % 8 != 0) {
    s.push_back(0.0);
    log_lr.push_back(0.0);
    w.push_back(0.0);
  }
}

}  // namespace planner
