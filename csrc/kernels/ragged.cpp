#include "ragged.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

struct Sums {
  Vec sum;
  Vec err;
  Bits count;
};

// Adds the usable ones of eight values to the eight lanes.
PLANNER_INLINE void add_lanes(Sums& t, const Vec& x) {
  const Bits mask = usable(x);
  PLANNER_EACH(Doubles kept = keep(x, mask).part[p]; two_sum(t.sum.part[p], t.err.part[p], kept))
  t.count = t.count - mask;
}

void mean(const RaggedMean& args, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t curve = begin; curve < end; ++curve) {
    const double* at = args.values + args.offsets[curve];
    const std::int64_t points = args.offsets[curve + 1] - args.offsets[curve];

    Sums t = {};
    std::int64_t i = 0;
    for (; i + kLanes <= points; i += kLanes) add_lanes(t, load(at + i));
    if (i < points) add_lanes(t, load_tail(at + i, points - i, kNan));

    // The fixed tree of sum(), with compensation.
    double s[kLanes];
    double e[kLanes];
    std::int64_t counts[kLanes];
    store(s, t.sum);
    store(e, t.err);
    __builtin_memcpy(counts, &t.count, sizeof counts);
    std::int64_t c = 0;
    for (const std::int64_t each : counts) c += each;
    for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::int64_t lane = 0; lane < half; ++lane) {
        two_sum(s[lane], e[lane], s[lane + half]);
        e[lane] += e[lane + half];
      }
    }

    const Status code = points == 0 ? Status::kEmpty : c == 0 ? Status::kNonFinite : Status::kOk;
    args.mean[curve] = c == 0 ? kNan : (s[0] + e[0]) / static_cast<double>(c);
    args.n_finite[curve] = c;
    args.status[curve] = static_cast<std::int32_t>(code);
  }
}

}  // namespace

const RaggedKernels ragged = {mean};

}  // namespace planner::PLANNER_LEVEL
