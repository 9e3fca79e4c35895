// Eight runs in the lanes, step by step. What a run gets does not depend on its neighbours.
//
// No fma(): the bits are the same at every level.
#include "residual.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kWindow = 64;           // points before the one that is judged
constexpr std::int64_t kFetch = 64;            // points ahead
constexpr double kFewest = 20.0;               // usable ones among them, and in the calibration
constexpr double kLeastVariance = 1e-6;        // of a window, in units of the noise
constexpr std::int64_t kLeastCalibrated = 50;  // points, or a tenth of the run

// --- eight vectors of eight
// -----------------------------------------------------------------------

PLANNER_INLINE void transpose(Vec (&row)[kLanes]) {
#if defined(__AVX512F__)
  __m512d a[8];
  __m512d b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm512_unpacklo_pd(row[2 * i].part[0], row[2 * i + 1].part[0]);
    a[2 * i + 1] = _mm512_unpackhi_pd(row[2 * i].part[0], row[2 * i + 1].part[0]);
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 2; ++i) {
      const __m512d x = a[4 * half + i];
      const __m512d y = a[4 * half + 2 + i];
      b[4 * half + i] = _mm512_shuffle_f64x2(x, y, 0x88);
      b[4 * half + 2 + i] = _mm512_shuffle_f64x2(x, y, 0xdd);
    }
  }
  for (int i = 0; i < 2; ++i) {
    row[i].part[0] = _mm512_shuffle_f64x2(b[i], b[4 + i], 0x88);
    row[i + 4].part[0] = _mm512_shuffle_f64x2(b[i], b[4 + i], 0xdd);
    row[i + 2].part[0] = _mm512_shuffle_f64x2(b[2 + i], b[6 + i], 0x88);
    row[i + 6].part[0] = _mm512_shuffle_f64x2(b[2 + i], b[6 + i], 0xdd);
  }
#else
  double square[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    double lane[kLanes];
    store(lane, row[i]);
    for (int j = 0; j < kLanes; ++j) square[j][i] = lane[j];
  }
  for (int i = 0; i < kLanes; ++i) row[i] = load(square[i]);
#endif
}

// --- the calibration -----------------------------------------------------------------------------

PLANNER_INLINE std::int64_t calibrated(std::int64_t points) {
  const std::int64_t wanted = points / 10 > kLeastCalibrated ? points / 10 : kLeastCalibrated;
  return wanted < points ? wanted : points;
}

struct Calibration {
  double n;
  double level;
  double noise;
};

PLANNER_INLINE Vec residual_at(const double* x, const double* y, std::int64_t n) {
  return n >= kLanes ? load(x) - load(y) : load_tail(x, n, kNan) - load_tail(y, n, kNan);
}

PLANNER_INLINE Calibration calibrate(const double* x, const double* y, std::int64_t points) {
  Vec total = vec(0.0);
  Vec count = vec(0.0);
  for (std::int64_t i = 0; i < points; i += kLanes) {
    const Vec r = residual_at(x + i, y + i, points - i);
    const Bits good = usable(r);
    total += keep(r, good);
    count += keep(vec(1.0), good);
  }
  const double n = sum(count);
  const double level = sum(total) / n;
  Vec squares = vec(0.0);
  for (std::int64_t i = 0; i < points; i += kLanes) {
    const Vec r = residual_at(x + i, y + i, points - i);
    const Vec d = keep(r - level, usable(r));
    squares += d * d;
  }
  return {n, level, __builtin_sqrt(sum(squares) / (n - 1.0))};
}

// --- the pass ------------------------------------------------------------------------------------

struct Lane {
  const double* x;
  const double* y;
  double* residual;
  double* z;
  std::int64_t points;
  std::int64_t start;  // the first step after the calibration
};

struct State {
  Vec count;  // in the window: usable points, their sum and sum of squares
  Vec sum;
  Vec squares;
  Vec others;  // what follows from the count: count - 1, and so on
  Vec least_var;
  Vec limit;
  Bits enough;
  Vec up;  // CUSUM, and the last step at which it was 0
  Vec down;
  Vec up_from;
  Vec down_from;
  Vec total;  // Page-Hinkley: of all usable points
  Vec n;
  Vec walk;
  Vec lowest_walk;
  Vec su;  // the drift
  Vec siu;
  Vec si_gone;
  Vec sii_gone;
  Vec lowest;
  Vec highest;
};

// A limit becomes infinite when it has been passed: what follows is not news.
struct Limits {
  double up[kLanes];
  double down[kLanes];
  double ph[kLanes];
};

struct Found {
  std::int64_t spikes[kLanes];
  std::int64_t first_spike[kLanes];
  std::int64_t up[kLanes];
  std::int64_t down[kLanes];
  std::int64_t ph[kLanes];
  std::int64_t deviates[kLanes];
};

// Not inlined: rare. And not told of the state, which so can stay in registers.
__attribute__((noinline)) void note(Limits& limits, Found& found, const double* up_from,
                                    const double* down_from, unsigned spikes, unsigned up,
                                    unsigned down, unsigned ph, std::int64_t step) noexcept {
  for (int lane = 0; lane < kLanes; ++lane) {
    const unsigned bit = 1u << lane;
    if (spikes & bit) {
      if (found.spikes[lane]++ == 0) found.first_spike[lane] = step;
    }
    if (up & bit) {
      found.up[lane] = step;
      limits.up[lane] = kInf;
    }
    if (down & bit) {
      found.down[lane] = step;
      limits.down[lane] = kInf;
    }
    if (((up | down) & bit) && found.deviates[lane] < 0) {
      found.deviates[lane] =
          static_cast<std::int64_t>(up & bit ? up_from[lane] : down_from[lane]) + 1;
    }
    if (ph & bit) {
      found.ph[lane] = step;
      limits.ph[lane] = kInf;
    }
  }
}

struct Fixed {
  Vec level;
  Vec inverse;
  Vec start;
  Vec end;
  ResidualRules rules;
  double zz;
};

// One step. kFull: no lane misses anything; the same results, without masks.
template <bool kFull, bool kArrays>
PLANNER_INLINE Vec step_once(State& s, Limits& limits, Found& found, const Fixed& fixed,
                             const Vec& r, const Vec& t, Vec& slot, std::int64_t step) {
  const ResidualRules& rules = fixed.rules;
  const Vec zero = vec(0.0);
  const Vec one = vec(1.0);
  const Vec scaled = (r - fixed.level) * fixed.inverse;
  const Vec clipped = max(min(scaled, vec(rules.clip)), vec(-rules.clip));
  // Not usable, or not calibrated: NaN, and so no part of anything.
  const Bits good = kFull ? bits(-1) : usable(r) & (scaled == scaled);
  const Bits live = kFull ? bits(-1) : good & (t >= fixed.start);
  const Vec u = kFull ? clipped : keep(clipped, good);

  // Spikes: far from the mean of the window. With its sums, num is n times the distance and var is
  // n (n - 1) times the variance.
  const Vec num = s.count * scaled - s.sum;
  const Vec var = max(s.count * s.squares - s.sum * s.sum, s.least_var);
  const Bits far = num * num * s.others > s.limit * var;
  const Bits judged = s.enough & good;
  const Bits spike = kFull ? far & s.enough : far & judged;
  Vec z = zero;
  if constexpr (kArrays) z = select(judged, num * sqrt(s.others / (s.count * var)), kNan);
  if constexpr (kFull) {
    s.sum = (s.sum + u) - slot;
    s.squares = (s.squares + u * u) - slot * slot;
    slot = u;
  } else {
    const Bits leaving = slot == slot;
    const Vec old = keep(slot, leaving);
    slot = select(good, u, kNan);
    s.sum = (s.sum + u) - old;
    s.squares = (s.squares + u * u) - old * old;
    s.count = (s.count + keep(one, good)) - keep(one, leaving);
    s.others = s.count - 1.0;
    s.least_var = kLeastVariance * (s.count * s.others);
    s.limit = fixed.zz * s.count;
    s.enough = s.count >= kFewest;
  }

  // After the calibration.
  const Vec up = max(s.up + (u - rules.cusum_slack), zero);
  const Vec down = max(s.down - (u + rules.cusum_slack), zero);
  s.up = kFull ? up : select(live, up, s.up);
  s.down = kFull ? down : select(live, down, s.down);
  s.up_from = select(s.up > 0.0, s.up_from, t);
  s.down_from = select(s.down > 0.0, s.down_from, t);
  s.total += u;
  s.n += kFull ? one : keep(one, good);
  const Vec further = u - s.total / s.n - rules.ph_slack;
  s.walk += kFull ? further : keep(further, live);
  s.lowest_walk = min(s.lowest_walk, s.walk);

  const Vec i = t - fixed.start;
  s.su += kFull ? u : keep(u, live);
  s.siu += kFull ? i * u : keep(i * u, live);
  if constexpr (!kFull) {  // what a sum over all points has too much
    const Vec gone = keep(i, ~live & (t >= fixed.start) & (t < fixed.end));
    s.si_gone += gone;
    s.sii_gone += gone * gone;
  }
  const Vec lowest = min(s.lowest, r);
  const Vec highest = max(s.highest, r);
  s.lowest = kFull ? lowest : select(live, lowest, s.lowest);
  s.highest = kFull ? highest : select(live, highest, s.highest);

  const Bits rise = s.up > load(limits.up);
  const Bits fall = s.down > load(limits.down);
  const Bits ph = s.walk - s.lowest_walk > load(limits.ph);
  if (__builtin_expect(any(spike | rise | fall | ph), 0)) {
    double up_from[kLanes];
    double down_from[kLanes];
    store(up_from, s.up_from);
    store(down_from, s.down_from);
    note(limits, found, up_from, down_from, lanes(spike), lanes(rise), lanes(fall), lanes(ph),
         step);
  }
  return z;
}

template <bool kArrays>
void score_eight(const ResidualArgs& args, const std::int64_t* order, std::int64_t n) noexcept {
  const ResidualRules& rules = args.rules;
  Lane lane[kLanes] = {};
  Calibration calibration[kLanes] = {};
  double level_of[kLanes] = {};
  double inverse_of[kLanes] = {};
  double end_of[kLanes] = {};
  double start_of[kLanes];
  for (double& each : start_of) each = kInf;  // never, where there is no run
  std::int64_t longest = 0;
  bool any_left = false;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t run = order[i];
    const std::int64_t first = args.offsets[run];
    const std::int64_t points = args.offsets[run + 1] - first;
    lane[i] = {args.values + first,
               args.reference + first,
               args.residual == nullptr ? nullptr : args.residual + first,
               args.z == nullptr ? nullptr : args.z + first,
               points,
               calibrated(points)};
    calibration[i] = calibrate(lane[i].x, lane[i].y, lane[i].start);
    const double noise = calibration[i].noise;
    const double scale = noise > rules.least_noise ? noise : rules.least_noise;
    level_of[i] = calibration[i].level;
    // A run that cannot be calibrated scores NaN throughout, and so does not alarm.
    const bool good = calibration[i].n >= kFewest && __builtin_fabs(noise) < 1e300;
    inverse_of[i] = !good ? kNan : 1.0 / scale < 1e300 ? 1.0 / scale : 0.0;
    calibration[i].noise = good ? scale : kNan;
    start_of[i] = good ? static_cast<double>(lane[i].start) : kInf;
    end_of[i] = static_cast<double>(points);
    if (points > longest) longest = points;
    any_left = true;
  }
  if (!any_left) return;

  const Vec start = load(start_of);
  const Fixed fixed = {load(level_of), load(inverse_of),
                       start,          load(end_of),
                       rules,          rules.window_z * rules.window_z};
  Vec window[kWindow];
  for (Vec& each : window) each = vec(kNan);
  State s = {};
  s.others = vec(-1.0);
  Limits limits;
  for (std::int64_t i = 0; i < kLanes; ++i) {
    limits.up[i] = limits.down[i] = rules.cusum_limit;
    limits.ph[i] = rules.ph_limit;
  }
  s.up_from = s.down_from = start - 1.0;
  s.lowest = vec(kInf);
  s.highest = vec(-kInf);
  Found found = {};
  for (int i = 0; i < kLanes; ++i) {
    found.first_spike[i] = found.up[i] = found.down[i] = found.ph[i] = found.deviates[i] = -1;
  }

  for (std::int64_t begin = 0; begin < longest; begin += kLanes) {
    Vec block[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t left = lane[i].points - begin;
      if (left <= 0) {
        block[i] = vec(kNan);
        continue;
      }
      if (left > kFetch) {
        __builtin_prefetch(lane[i].x + begin + kFetch);
        __builtin_prefetch(lane[i].y + begin + kFetch);
      }
      block[i] = residual_at(lane[i].x + begin, lane[i].y + begin, left);
      if constexpr (kArrays) {
        if (lane[i].residual != nullptr) {
          const Vec shown = select(usable(block[i]), block[i], kNan);
          if (left >= kLanes) {
            store(lane[i].residual + begin, shown);
          } else {
            store_tail(lane[i].residual + begin, shown, left);
          }
        }
      }
    }
    transpose(block);
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const std::int64_t step = begin + j;
      const Vec t = vec(static_cast<double>(step));
      Vec& slot = window[step % kWindow];
      // Every lane has its calibration behind it, a point, and one that leaves the window.
      const Bits full = usable(block[j]) & (t >= start) & (slot == slot);
      const Vec z =
          every(full) ? step_once<true, kArrays>(s, limits, found, fixed, block[j], t, slot, step)
                      : step_once<false, kArrays>(s, limits, found, fixed, block[j], t, slot, step);
      if constexpr (kArrays) block[j] = z;
    }
    if constexpr (kArrays) {
      if (args.z == nullptr) continue;
      transpose(block);
      for (std::int64_t i = 0; i < kLanes; ++i) {
        const std::int64_t left = lane[i].points - begin;
        if (left >= kLanes) {
          store(lane[i].z + begin, block[i]);
        } else if (left > 0) {
          store_tail(lane[i].z + begin, block[i], left);
        }
      }
    }
  }

  double counts[kLanes];
  double lowest[kLanes];
  double highest[kLanes];
  store(counts, s.n);
  double si[kLanes];
  double sii[kLanes];
  double su[kLanes];
  double siu[kLanes];
  store(si, s.si_gone);
  store(sii, s.sii_gone);
  store(su, s.su);
  store(siu, s.siu);
  store(lowest, s.lowest);
  store(highest, s.highest);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t run = order[i];
    std::int64_t usable_points = static_cast<std::int64_t>(counts[i]);
    const bool good = inverse_of[i] == inverse_of[i];
    if (!good) {  // nothing was counted
      usable_points = 0;
      for (std::int64_t j = 0; j < lane[i].points; ++j) {
        const double r = lane[i].x[j] - lane[i].y[j];
        usable_points += __builtin_fabs(r) < 1e300 ? 1 : 0;
      }
    }
    const Status status = lane[i].points == 0          ? Status::kEmpty
                          : usable_points == 0         ? Status::kNonFinite
                          : good                       ? Status::kOk
                          : calibration[i].n < kFewest ? Status::kTooFewPoints
                                                       : Status::kNonFinite;
    // Sums of the steps since the calibration, less those missing.
    const auto steps = static_cast<double>(lane[i].points - lane[i].start);
    const double sum_i = 0.5 * steps * (steps - 1.0) - si[i];
    const double sum_ii = steps * (steps - 1.0) * (2.0 * steps - 1.0) / 6.0 - sii[i];
    const double after = counts[i] - calibration[i].n;
    const double slope = (after * siu[i] - sum_i * su[i]) / (after * sum_ii - sum_i * sum_i);
    const bool some = good && after > 0.0;
    args.level[run] = good ? calibration[i].level : kNan;
    args.noise[run] = calibration[i].noise;
    args.slope[run] = good && after >= 2.0 ? slope * calibration[i].noise : kNan;
    args.lowest[run] = some ? lowest[i] : kNan;
    args.highest[run] = some ? highest[i] : kNan;
    args.n_finite[run] = usable_points;
    args.spikes[run] = found.spikes[i];
    args.first_spike[run] = found.first_spike[i];
    args.cusum_up[run] = found.up[i];
    args.cusum_down[run] = found.down[i];
    args.page_hinkley[run] = found.ph[i];
    args.deviates[run] = found.deviates[i];
    args.status[run] = static_cast<std::int32_t>(status);
  }
}

void score(const ResidualArgs& args, std::int64_t begin, std::int64_t end) noexcept {
  for (std::int64_t group = begin; group < end; ++group) {
    const std::int64_t first = group * kLanes;
    const std::int64_t left = args.runs - first;
    const std::int64_t n = left < kLanes ? left : kLanes;
    if (args.residual != nullptr || args.z != nullptr) {
      score_eight<true>(args, args.order + first, n);
    } else {
      score_eight<false>(args, args.order + first, n);
    }
  }
}

}  // namespace

const ResidualKernels residual = {score};

}  // namespace planner::PLANNER_LEVEL
