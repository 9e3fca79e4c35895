#include "schedule_terms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace planner {

namespace {

constexpr std::int64_t kGrowth = 4;  // each level's blocks hold so many of the one below
constexpr std::int64_t kNear = 2;    // and begin at least so many of the next level's away
constexpr double kSpread = 0.5;      // of log lr in a block; beyond it stays in its parts
constexpr double kRough = 1e-4;      // of its variance that position does not explain
constexpr double kLowest = 1e-12;    // of the peak: what a learning rate of zero counts as

// Weight, mean and variance of the positions in a block, and the slope of log lr along them.
struct Moments {
  double w = 0.0;
  double p = 0.0;
  double pp = 0.0;
  double l = 0.0;
  double pl = 0.0;
  double ll = 0.0;

  void add(double weight, double position, double log_lr) {
    w += weight;
    p += weight * position;
    pp += weight * position * position;
    l += weight * log_lr;
    pl += weight * position * log_lr;
    ll += weight * log_lr * log_lr;
  }
  // Moments about a position `by` further on.
  void add_shifted(const Moments& m, double by) {
    w += m.w;
    p += m.p + by * m.w;
    pp += m.pp + by * (2.0 * m.p + by * m.w);
    l += m.l;
    pl += m.pl + by * m.l;
    ll += m.ll;
  }
};

// Two points of half the weight each, at mean -+ spread: they have the block's moments.
struct Pair {
  double w = 0.0;
  double mean = 0.0;
  double spread = 0.0;
  double log_lr = 0.0;
  double tilt = 0.0;  // of log lr, per spread
  bool rough = false;
};

Pair pair_of(const Moments& m) {
  Pair out;
  if (!(m.w > 0.0)) return out;
  out.w = m.w;
  out.mean = m.p / m.w;
  out.log_lr = m.l / m.w;
  const double variance = m.pp / m.w - out.mean * out.mean;
  if (variance > 1e-14 * out.mean * out.mean) {
    out.spread = std::sqrt(variance);
    out.tilt = (m.pl / m.w - out.mean * out.log_lr) / out.spread;
  }
  out.rough = m.ll / m.w - out.log_lr * out.log_lr - out.tilt * out.tilt > kRough;
  return out;
}

// What a block's steps come to, positions from where it begins: falls, then rises.
struct Cell {
  Moments side[2];
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -std::numeric_limits<double>::infinity();
};

}  // namespace

ScheduleBlocks::ScheduleBlocks(const double* lr, std::int64_t steps, bool blocked) {
  const auto n = static_cast<std::size_t>(steps);
  area_.resize(n + 1);
  double total = 0.0;
  double peak = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    area_[i] = total;
    total += lr[i];
    peak = std::max(peak, lr[i]);
  }
  area_[n] = total;

  Level steps_level;
  steps_level.first.reserve(n + 1);
  std::size_t drops = 0;
  for (std::size_t i = 1; i < n; ++i) drops += lr[i] != lr[i - 1];
  steps_level.before.reserve(drops);
  steps_level.log_lr.reserve(drops);
  steps_level.w.reserve(drops);
  double last_lr = -1.0;
  double last_log = 0.0;
  const double lowest = std::max(kLowest * peak, 1e-100);
  for (std::size_t i = 0; i < n; ++i) {
    steps_level.first.push_back(static_cast<std::int64_t>(steps_level.w.size()));
    const double w = i == 0 ? 0.0 : lr[i - 1] - lr[i];
    if (w == 0.0) continue;
    if (lr[i] != last_lr) {
      last_lr = lr[i];
      last_log = std::log(std::max(last_lr, lowest));
    }
    steps_level.before.push_back(area_[i]);
    steps_level.log_lr.push_back(last_log);
    steps_level.w.push_back(w);
  }
  steps_level.first.push_back(static_cast<std::int64_t>(steps_level.w.size()));
  levels_.push_back(std::move(steps_level));
  if (!blocked) return;

  std::vector<Cell> cells;  // of the level below
  for (std::int64_t size = kGrowth; size * kNear < steps; size *= kGrowth) {
    Level level;
    std::vector<Cell> merged;
    merged.reserve(static_cast<std::size_t>(steps / size) + 1);
    const Level& fine = levels_.front();
    const std::int64_t part_size = size / kGrowth;
    for (std::int64_t begin = 0; begin < steps; begin += size) {
      level.first.push_back(static_cast<std::int64_t>(level.w.size()));
      const double origin = area_[static_cast<std::size_t>(begin)];
      Cell cell;
      for (std::int64_t part = begin; part < std::min(begin + size, steps); part += part_size) {
        const auto at = static_cast<std::size_t>(part);
        const double by = area_[at] - origin;
        if (part_size == 1) {
          if (fine.first[at] == fine.first[at + 1]) continue;
          const auto k = static_cast<std::size_t>(fine.first[at]);
          cell.side[fine.w[k] < 0.0].add(std::abs(fine.w[k]), by, fine.log_lr[k]);
          cell.lowest = std::min(cell.lowest, fine.log_lr[k]);
          cell.highest = std::max(cell.highest, fine.log_lr[k]);
        } else {
          const Cell& below = cells[static_cast<std::size_t>(part / part_size)];
          for (int i = 0; i < 2; ++i) cell.side[i].add_shifted(below.side[i], by);
          cell.lowest = std::min(cell.lowest, below.lowest);
          cell.highest = std::max(cell.highest, below.highest);
        }
      }
      merged.push_back(cell);
      bool rough = cell.highest - cell.lowest > kSpread;
      Pair pairs[2];
      for (int i = 0; i < 2; ++i) {
        pairs[i] = pair_of(cell.side[i]);
        rough = rough || pairs[i].rough;
      }
      if (rough) {
        const Level& parts = levels_.back();
        const std::int64_t part = begin / (size / kGrowth);
        const auto last = static_cast<std::int64_t>(parts.first.size()) - 1;
        const std::int64_t a = parts.first[static_cast<std::size_t>(part)];
        const std::int64_t b =
            parts.first[static_cast<std::size_t>(std::min(part + kGrowth, last))];
        level.before.insert(level.before.end(), parts.before.begin() + a, parts.before.begin() + b);
        level.log_lr.insert(level.log_lr.end(), parts.log_lr.begin() + a, parts.log_lr.begin() + b);
        level.w.insert(level.w.end(), parts.w.begin() + a, parts.w.begin() + b);
        continue;
      }
      for (int i = 0; i < 2; ++i) {
        const Pair& pair = pairs[i];
        const double w = i == 0 ? pair.w : -pair.w;
        if (pair.w > 0.0 && !(pair.spread > 0.0)) {
          level.before.push_back(origin + pair.mean);
          level.log_lr.push_back(pair.log_lr);
          level.w.push_back(w);
        } else if (pair.w > 0.0) {
          for (const double side : {-1.0, 1.0}) {
            level.before.push_back(origin + std::max(pair.mean + side * pair.spread, 0.0));
            level.log_lr.push_back(pair.log_lr + side * pair.tilt);
            level.w.push_back(0.5 * w);
          }
        }
      }
    }
    level.first.push_back(static_cast<std::int64_t>(level.w.size()));
    levels_.push_back(std::move(level));
    cells = std::move(merged);
  }
}

// use(level, begin, end): the terms of a level that belong to a target.
template <class Use>
void ScheduleBlocks::for_ranges(std::int64_t step, const Use& use) const {
  std::int64_t end = step + 1;  // steps below are still to be covered
  std::int64_t size = 1;
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const bool top = i + 1 == levels_.size();
    const std::int64_t next = size * kGrowth;
    const std::int64_t begin = top ? 0 : std::max<std::int64_t>(end / next - kNear, 0) * next;
    const auto& first = levels_[i].first;
    use(levels_[i], first[static_cast<std::size_t>(begin / size)],
        first[static_cast<std::size_t>(end / size)]);
    end = begin;
    size = next;
  }
}

std::int64_t ScheduleBlocks::count(std::int64_t step) const {
  std::int64_t n = 0;
  for_ranges(step, [&](const Level&, std::int64_t from, std::int64_t to) { n += to - from; });
  return (n + 7) / 8 * 8;
}

void ScheduleBlocks::append(std::int64_t step, std::vector<double>& s, std::vector<double>& log_lr,
                            std::vector<double>& w) const {
  const double here = area(step);
  for_ranges(step, [&](const Level& level, std::int64_t from, std::int64_t to) {
    for (std::int64_t k = from; k < to; ++k) {
      const auto i = static_cast<std::size_t>(k);
      s.push_back(std::max(here - level.before[i], 0.0));
      log_lr.push_back(level.log_lr[i]);
      w.push_back(level.w[i]);
    }
  });
  while (s.size() % 8 != 0) {
    s.push_back(0.0);
    log_lr.push_back(0.0);
    w.push_back(0.0);
  }
}

}  // namespace planner
