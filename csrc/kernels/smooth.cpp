// One pass over the points: prefix sums (or the exponential average itself) into scratch memory.
// A smoothed value is then two look-ups and a division, made only where it is wanted.
//
// No fma(): the bits are the same at every level.
#include "smooth.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

// Prefix sums start anew after so many points: their rounding stays below 5e-13 of the largest
// value however long the curve is.
constexpr std::int64_t kBlock = 4096;
constexpr double kTwo52 = 4503599627370496.0;

// --- lanes to the right -------------------------------------------------------------------------

// Lane 2 i in lanes 2 i and 2 i + 1.
PLANNER_INLINE Vec first_of_pair(const Vec& x) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_movedup_pd(x.part[0]);
#elif defined(__AVX2__)
  PLANNER_EACH(r.part[p] = _mm256_movedup_pd(x.part[p]);)
#elif defined(__SSE2__)
  PLANNER_EACH(r.part[p] = _mm_unpacklo_pd(x.part[p], x.part[p]);)
#else
  PLANNER_EACH(r.part[p] = Doubles{} + x.part[p][0];)
#endif
  return r;
}

// Lane 1 in lanes 0..3, lane 5 in lanes 4..7.
PLANNER_INLINE Vec second_of_four(const Vec& x) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_permutex_pd(x.part[0], 0x55);
#elif defined(__AVX2__)
  PLANNER_EACH(r.part[p] = _mm256_permute4x64_pd(x.part[p], 0x55);)
#else
  r.part[0] = r.part[1] = Doubles{} + x.part[0][1];
  r.part[2] = r.part[3] = Doubles{} + x.part[2][1];
#endif
  return r;
}

template <int kLane>
PLANNER_INLINE Vec spread(const Vec& x) {
#if defined(__AVX512F__)
  Vec r;
  r.part[0] = _mm512_permutexvar_pd(_mm512_set1_epi64(kLane), x.part[0]);
  return r;
#elif defined(__AVX2__)
  Vec r;
  constexpr int lane = kLane % 4;
  r.part[0] = _mm256_permute4x64_pd(x.part[kLane / 4], lane * 0x55);
  r.part[1] = r.part[0];
  return r;
#else
  return vec(x.part[kLane / kWidth][kLane % kWidth]);
#endif
}

// from[index] for indices that are whole numbers from 0 up, held as doubles.
PLANNER_INLINE Vec gather(const double* from, const Vec& index) {
  const Bits at = as_bits(index + kTwo52) & std::int64_t{0x000fffffffffffff};
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_i64gather_pd(reinterpret_cast<__m512i>(at.part[0]), from, 8);
#elif defined(__AVX2__)
  PLANNER_EACH(r.part[p] = _mm256_i64gather_pd(from, reinterpret_cast<__m256i>(at.part[p]), 8);)
#else
  PLANNER_EACH(for (int i = 0; i < kWidth; ++i) r.part[p][i] = from[at.part[p][i]];)
#endif
  return r;
}

constexpr double kIota[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7};

// Masks of a scan in three steps: lanes 1, 3, 5, 7 take the one before them, then 2, 3 take 1 and
// 6, 7 take 5, then 4..7 take 3.
constexpr std::int64_t kPairs[kLanes] = {0, -1, 0, -1, 0, -1, 0, -1};
constexpr std::int64_t kFours[kLanes] = {0, 0, -1, -1, 0, 0, -1, -1};
constexpr std::int64_t kHalves[kLanes] = {0, 0, 0, 0, -1, -1, -1, -1};

PLANNER_INLINE Bits load_bits(const std::int64_t* from) {
  Bits r;
  PLANNER_EACH(__builtin_memcpy(&r.part[p], from + p * kWidth, sizeof r.part[p]);)
  return r;
}

struct Scan {
  Bits pairs = load_bits(kPairs);
  Bits fours = load_bits(kFours);
  Bits halves = load_bits(kHalves);
};

// Sums of the first 1, 2, ..., 8 lanes.
PLANNER_INLINE Vec scan(const Scan& scan, Vec x) {
  x = x + keep(first_of_pair(x), scan.pairs);
  x = x + keep(second_of_four(x), scan.fours);
  return x + keep(spread<3>(x), scan.halves);
}

// --- what one pass leaves in scratch memory -----------------------------------------------------

struct Curve {
  const double* at;
  std::int64_t points;
  std::int64_t n_finite;
  // Moving average over i - left .. i + right.
  double left;
  double right;
  double shift;     // taken off the values before they are summed: it keeps the sums small
  double* sums;     // [i] of the points of the block before i, for i from 0 to points
  double* missing;  // [i] missing points before i, over all blocks; filled where there are some
  double* high;     // [block] the sum before it, in two parts
  double* low;
  // Otherwise the smoothed values themselves.
  bool direct;
  double* smoothed;
};

PLANNER_INLINE double largest_of(double a, double b) { return a > b ? a : b; }
PLANNER_INLINE double smallest_of(double a, double b) { return a < b ? a : b; }
PLANNER_INLINE bool is_usable(double x) { return __builtin_fabs(x) < 1e300; }

// The middle one of three values of the later half: a typical one, and the value itself when the
// curve is constant. NaN when no point is usable.
PLANNER_INLINE double typical(const double* at, std::int64_t points) {
  std::int64_t i = points;
  while (i > 0 && !is_usable(at[i - 1])) --i;
  if (i == 0) return kNan;
  const double a = at[i - 1];
  const double b = is_usable(at[i / 2]) ? at[i / 2] : a;
  const double c = is_usable(at[i / 4 * 3]) ? at[i / 4 * 3] : a;
  return largest_of(smallest_of(a, b), smallest_of(largest_of(a, b), c));
}

// The points of the next curve, fetched a little at a time while this one is computed: half of them
// during the pass over its points, the rest on the grid.
struct Ahead {
  const char* at;
  std::int64_t left;  // bytes
};

PLANNER_INLINE Ahead ahead_of(const double* from, std::int64_t points) {
  return {reinterpret_cast<const char*>(from), points < 65536 ? points * 8 : 65536 * 8};
}

PLANNER_INLINE void fetch(Ahead& ahead, std::int64_t lines) {
  for (; lines > 0 && ahead.left > 0; --lines) {
    __builtin_prefetch(ahead.at, 0, 2);
    ahead.at += 64;
    ahead.left -= 64;
  }
}

void sum_up(Curve& curve, Ahead& ahead) noexcept {
  const Scan steps;
  Bits counts = {};
  double high = 0.0;
  double low = 0.0;
  const Vec shift = vec(curve.shift);
  const std::int64_t points = curve.points;
  for (std::int64_t start = 0, block = 0; start <= points; start += kBlock, ++block) {
    curve.high[block] = high;
    curve.low[block] = low;
    const std::int64_t end = start + kBlock < points ? start + kBlock : points;
    Vec carry = vec(0.0);
    curve.sums[start] = 0.0;
    std::int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      const Vec x = load(curve.at + i);
      const Bits mask = usable(x);
      counts = counts - mask;
      const Vec s = scan(steps, keep(x - shift, mask));
      store(curve.sums + i + 1, s + carry);
      carry = carry + spread<7>(s);
      if ((i & kLanes) == 0) fetch(ahead, 1);
    }
    if (i < end) {
      const Vec x = load_tail(curve.at + i, end - i, kNan);
      const Bits mask = usable(x);
      counts = counts - mask;
      store_tail(curve.sums + i + 1, scan(steps, keep(x - shift, mask)) + carry, end - i);
    }
    two_sum(high, low, curve.sums[end]);
  }
  std::int64_t lane[kLanes];
  __builtin_memcpy(lane, &counts, sizeof lane);
  curve.n_finite = 0;
  for (const std::int64_t each : lane) curve.n_finite += each;
}

void count_missing(const Curve& curve) noexcept {
  const Scan steps;
  Vec carry = vec(0.0);
  curve.missing[0] = 0.0;
  std::int64_t i = 0;
  for (; i + kLanes <= curve.points; i += kLanes) {
    const Bits mask = usable(load(curve.at + i));
    if (every(mask)) {
      store(curve.missing + i + 1, carry);
      continue;
    }
    const Vec s = scan(steps, keep(vec(1.0), ~mask));
    store(curve.missing + i + 1, s + carry);
    carry = carry + spread<7>(s);
  }
  if (i < curve.points) {
    const Vec x = load_tail(curve.at + i, curve.points - i, kNan);
    store_tail(curve.missing + i + 1, scan(steps, keep(vec(1.0), ~usable(x))) + carry,
               curve.points - i);
  }
}

// e' = b e + a x over eight points at once, where all are usable.
void decay(Curve& curve, double a, Ahead& ahead) noexcept {
  const double b = 1.0 - a;
  const double b2 = b * b;
  const double b3 = b2 * b;
  const double b4 = b2 * b2;
  const double pairs[kLanes] = {0, b, 0, b, 0, b, 0, b};
  const double fours[kLanes] = {0, 0, b, b2, 0, 0, b, b2};
  const double halves[kLanes] = {0, 0, 0, 0, b, b2, b3, b4};
  const double all[kLanes] = {b, b2, b3, b4, b4 * b, b4 * b2, b4 * b3, b4 * b4};
  const Vec by_pairs = load(pairs);
  const Vec by_fours = load(fours);
  const Vec by_halves = load(halves);
  const Vec by_all = load(all);
  const Vec by_eight = vec(all[7]);

  const std::int64_t points = curve.points;
  std::int64_t first = 0;
  while (first < points && !is_usable(curve.at[first])) curve.smoothed[first++] = kNan;
  curve.n_finite = 0;
  if (first == points) return;
  const double shift = curve.at[first];

  Vec state = vec(0.0);  // of the average less the shift
  std::int64_t i = first;
  while (i < points) {
    if (i + kLanes <= points) {
      const Vec x = load(curve.at + i);
      if (every(usable(x))) {
        Vec s = a * (x - shift);
        s = s + by_pairs * first_of_pair(s);
        s = s + by_fours * second_of_four(s);
        s = s + by_halves * spread<3>(s);
        store(curve.smoothed + i, (s + by_all * state) + shift);
        state = spread<7>(s) + by_eight * state;
        curve.n_finite += kLanes;
        i += kLanes;
        if ((i & kLanes) == 0) fetch(ahead, 1);
        continue;
      }
    }
    double lane[kLanes];
    store(lane, state);
    double e = lane[0];
    const std::int64_t end = i + kLanes < points ? i + kLanes : points;
    for (; i < end; ++i) {
      if (is_usable(curve.at[i])) {
        e = a * (curve.at[i] - shift) + b * e;
        ++curve.n_finite;
      }
      curve.smoothed[i] = e + shift;
    }
    state = vec(e);
  }
}

void copy(Curve& curve) noexcept {
  Bits counts = {};
  std::int64_t i = 0;
  for (; i + kLanes <= curve.points; i += kLanes) {
    const Vec x = load(curve.at + i);
    const Bits mask = usable(x);
    counts = counts - mask;
    store(curve.smoothed + i, select(mask, x, kNan));
  }
  std::int64_t lane[kLanes];
  __builtin_memcpy(lane, &counts, sizeof lane);
  curve.n_finite = 0;
  for (const std::int64_t each : lane) curve.n_finite += each;
  for (; i < curve.points; ++i) {
    const bool good = is_usable(curve.at[i]);
    curve.smoothed[i] = good ? curve.at[i] : kNan;
    curve.n_finite += good ? 1 : 0;
  }
}

constexpr std::int64_t padded(std::int64_t n) { return (n + 16) / 8 * 8; }

std::int64_t scratch(std::int64_t longest, std::int64_t grid_points) noexcept {
  return 2 * padded(longest + 1) + 2 * padded(longest / kBlock + 1) + 2 * padded(grid_points);
}

// The pass over curve `index`. `smoothed` takes the values of a direct one.
PLANNER_INLINE Curve prepare(const SmoothInput& in, std::int64_t index, double* memory,
                             double* smoothed, Ahead& ahead) {
  Curve curve = {};
  curve.at = in.values + in.offsets[index];
  curve.points = in.offsets[index + 1] - in.offsets[index];
  const double width = in.width[index];
  const auto n = static_cast<double>(curve.points);
  const std::int64_t blocks = padded(curve.points / kBlock + 1);
  curve.sums = memory;
  curve.missing = curve.sums + padded(curve.points + 1);
  curve.high = curve.missing + padded(curve.points + 1);
  curve.low = curve.high + blocks;
  curve.smoothed = smoothed != nullptr ? smoothed : curve.sums;

  if (in.kind == Smoothing::kExponential) {
    curve.direct = true;
    decay(curve, width > 0.0 && width < 1.0 ? width : 1.0, ahead);
    return curve;
  }
  // Wider than twice the curve is all of it; less than 2, or NaN, is the point itself.
  const auto window = static_cast<std::int64_t>(width < 2.0 * n + 2.0 ? largest_of(1.0, width)
                                                : width > 0.0         ? 2.0 * n + 2.0
                                                                      : 1.0);
  if (window == 1) {
    curve.direct = true;
    copy(curve);
    return curve;
  }
  const bool centred = in.kind == Smoothing::kCentred;
  curve.left = static_cast<double>(centred ? window / 2 : window - 1);
  curve.right = static_cast<double>(centred ? (window - 1) / 2 : 0);
  curve.shift = typical(curve.at, curve.points);
  sum_up(curve, ahead);
  if (curve.n_finite < curve.points) count_missing(curve);
  return curve;
}

// --- smoothed values where they are wanted ------------------------------------------------------

PLANNER_INLINE Vec block_of(const Vec& i) {
  // Exact division by a power of two, rounded down; i is below 2^40.
  const Vec x = i * (1.0 / static_cast<double>(kBlock));
  const Vec nearest = (x + kTwo52) - kTwo52;
  return select(nearest > x, nearest - 1.0, nearest);
}

enum class Look { kPlain, kGaps, kLong };

template <Look kLook>
PLANNER_INLINE Vec average_at(const Curve& curve, const Vec& i) {
  const Vec a = max(i - curve.left, vec(0.0));
  const Vec b = min(i + (curve.right + 1.0), vec(static_cast<double>(curve.points)));
  Vec sum = gather(curve.sums, b) - gather(curve.sums, a);
  if constexpr (kLook == Look::kLong) {
    const Vec from = block_of(a);
    const Vec to = block_of(b);
    sum = sum + ((gather(curve.high, to) - gather(curve.high, from)) +
                 (gather(curve.low, to) - gather(curve.low, from)));
  }
  if (kLook == Look::kPlain || curve.n_finite == curve.points) return curve.shift + sum / (b - a);
  const Vec n = (b - a) - (gather(curve.missing, b) - gather(curve.missing, a));
  return select(n > 0.0, curve.shift + sum / n, kNan);
}

PLANNER_INLINE Look look_of(const Curve& curve) {
  if (curve.points >= kBlock) return Look::kLong;
  return curve.n_finite < curve.points ? Look::kGaps : Look::kPlain;
}

PLANNER_INLINE double last_of(const Curve& curve) {
  if (curve.direct) return curve.smoothed[curve.points - 1];
  double lane[kLanes];
  store(lane, average_at<Look::kLong>(curve, vec(static_cast<double>(curve.points - 1))));
  return lane[0];
}

template <Look kLook>
void smooth_all(const Curve& curve, double* to) noexcept {
  const auto left = static_cast<std::int64_t>(curve.left);
  const auto right = static_cast<std::int64_t>(curve.right);
  std::int64_t i = 0;
  while (i < curve.points) {
    // Inside, and in one block at either end: all comes from neighbouring places.
    const std::int64_t a = i - left;
    const std::int64_t b = i + right + 1;
    if (a >= 0 && b + kLanes - 1 <= curve.points && a / kBlock == (a + kLanes - 1) / kBlock &&
        b / kBlock == (b + kLanes - 1) / kBlock) {
      Vec sum = load(curve.sums + b) - load(curve.sums + a);
      if constexpr (kLook == Look::kLong) {
        const std::int64_t from = a / kBlock;
        const std::int64_t end = b / kBlock;
        sum = sum + ((curve.high[end] - curve.high[from]) + (curve.low[end] - curve.low[from]));
      }
      if (kLook == Look::kPlain || curve.n_finite == curve.points) {
        store(to + i, curve.shift + sum / static_cast<double>(b - a));
      } else {
        const Vec n =
            static_cast<double>(b - a) - (load(curve.missing + b) - load(curve.missing + a));
        store(to + i, select(n > 0.0, curve.shift + sum / n, kNan));
      }
      i += kLanes;
      continue;
    }
    const std::int64_t left_over = curve.points - i;
    const Vec at =
        min(load(kIota) + static_cast<double>(i), vec(static_cast<double>(curve.points - 1)));
    const Vec s = average_at<kLook>(curve, at);
    if (left_over >= kLanes) {
      store(to + i, s);
    } else {
      store_tail(to + i, s, left_over);
    }
    i += kLanes;
  }
}

PLANNER_INLINE void fill(double* to, std::int64_t n, double x) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = x;
}

PLANNER_INLINE Status status_of(const Curve& curve) {
  return curve.points == 0     ? Status::kEmpty
         : curve.n_finite == 0 ? Status::kNonFinite
                               : Status::kOk;
}

void smooth_curves(const SmoothCurves& args, std::int64_t begin, std::int64_t end,
                   double* memory) noexcept {
  for (std::int64_t index = begin; index < end; ++index) {
    double* const to = args.smoothed + args.in.offsets[index];
    Ahead ahead = {};
    const Curve curve = prepare(args.in, index, memory, to, ahead);
    const Status status = status_of(curve);
    args.n_finite[index] = curve.n_finite;
    args.status[index] = static_cast<std::int32_t>(status);
    if (status != Status::kOk) {
      fill(to, curve.points, kNan);
    } else if (!curve.direct) {
      switch (look_of(curve)) {
        case Look::kPlain:
          smooth_all<Look::kPlain>(curve, to);
          break;
        case Look::kGaps:
          smooth_all<Look::kGaps>(curve, to);
          break;
        case Look::kLong:
          smooth_all<Look::kLong>(curve, to);
          break;
      }
    }
  }
}

// --- the grid -----------------------------------------------------------------------------------

// Grid point k lies at index[k] + part[k]; a NaN part says that the run has not come so far.
PLANNER_INLINE void locate_evenly(const double* grid, std::int64_t n, std::int64_t points,
                                  double total, double* index, double* part) {
  const Vec last = vec(static_cast<double>(points - 1));
  const Vec end = last + 1e-9 * total;  // rounding of grid * total does not count
  for (std::int64_t k = 0; k < n; k += kLanes) {
    const Vec g = k + kLanes <= n ? load(grid + k) : load_tail(grid + k, n - k, grid[n - 1]);
    const Vec x = g * total - 1.0;
    const Vec inside = min(max(x, vec(0.0)), last);
    const Vec nearest = (inside + kTwo52) - kTwo52;
    const Vec floor = select(nearest > inside, nearest - 1.0, nearest);
    // The comparison is false for NaN.
    store(part + k, select(x <= end, inside - floor, kNan));
    store(index + k, select(x <= end, floor, last));
  }
}

PLANNER_INLINE void locate(const double* grid, std::int64_t n, const double* positions,
                           std::int64_t points, double* index, double* part) {
  std::int64_t i = 0;
  for (std::int64_t k = 0; k < n; ++k) {
    const double g = grid[k];
    while (i + 1 < points && positions[i + 1] <= g) ++i;
    index[k] = static_cast<double>(i);
    if (i + 1 < points) {
      const double before = g - positions[i];
      part[k] = before <= 0.0 ? 0.0 : before / (positions[i + 1] - positions[i]);
    } else {
      const double slack = 1e-12 * __builtin_fabs(positions[i]);
      part[k] = g <= positions[i] + slack ? 0.0 : kNan;
    }
  }
  for (std::int64_t k = n; k % kLanes != 0; ++k) {
    index[k] = index[n - 1];
    part[k] = 0.0;
  }
}

// Whether the windows of indices first to last + 1 are all of full width, with no point missing.
// Indices in between lie between them: a grid that decreases is sent another way.
PLANNER_INLINE bool all_full(const Curve& curve, double first, double last) {
  const auto n = static_cast<double>(curve.points);
  if (curve.direct || curve.points >= kBlock || !(first >= curve.left) ||
      !(last + (curve.right + 2.0) <= n)) {
    return false;
  }
  if (curve.n_finite == curve.points) return true;
  const auto from = static_cast<std::int64_t>(first - curve.left);
  const auto to = static_cast<std::int64_t>(last + (curve.right + 2.0));
  return curve.missing[to] == curve.missing[from];
}

template <Look kLook, class Value>
PLANNER_INLINE void look_up(const Curve& curve, std::int64_t n, const double* index,
                            const double* part, bool rises, double offset, double scale,
                            Ahead ahead, double* to, Value value) {
  const Vec last = vec(static_cast<double>(curve.points - 1));
  const double per_point = 1.0 / (curve.left + curve.right + 1.0);
  const double by = 1.0 / scale;
  const std::int64_t lines = n > 0 ? ahead.left / 64 * kLanes / n + 1 : 0;
  for (std::int64_t k = 0; k < n; k += kLanes) {
    fetch(ahead, lines);
    const Vec i = load(index + k);
    const Vec f = load(part + k);
    Vec s;
    if (kLook != Look::kLong && rises && all_full(curve, index[k], index[k + kLanes - 1])) {
      const Vec a = i - curve.left;
      const Vec b = i + (curve.right + 1.0);
      const Vec sum0 = gather(curve.sums, b) - gather(curve.sums, a);
      const Vec sum1 = gather(curve.sums + 1, b) - gather(curve.sums + 1, a);
      s = curve.shift + (sum0 + (sum1 - sum0) * f) * per_point;
    } else {
      const Vec s0 = value(i);
      const Vec s1 = value(min(i + 1.0, last));
      s = select(f == 0.0, s0, s0 + (s1 - s0) * f);
    }
    const Vec y = (s - offset) * by;
    if (k + kLanes <= n) {
      store(to + k, y);
    } else {
      store_tail(to + k, y, n - k);
    }
  }
}

void resample(const ResampleCurves& args, std::int64_t begin, std::int64_t end,
              double* memory) noexcept {
  const std::int64_t n = args.grid_points;
  double* const index = memory;
  double* const part = index + padded(n);
  bool rises = true;
  for (std::int64_t k = 1; k < n; ++k) rises &= args.grid[k - 1] <= args.grid[k];
  const double* located = nullptr;  // where index and part are those of an even curve: its totals
  std::int64_t located_points = 0;
  double located_total = 0.0;
  for (std::int64_t at = begin; at < end; ++at) {
    double* const to = args.resampled + at * n;
    const std::int64_t* const next = args.in.offsets + at + 1;
    Ahead ahead = ahead_of(args.in.values + next[0], at + 1 < end ? next[1] - next[0] : 0);
    const Curve curve = prepare(args.in, at, part + padded(n), nullptr, ahead);
    Status status = status_of(curve);
    double offset = 0.0;
    double divisor = 1.0;
    if (status == Status::kOk && args.normalize) {
      offset = args.offset;
      divisor = args.divisors != nullptr ? args.divisors[at] : last_of(curve);
      const double scale = divisor - offset;
      if (!is_usable(divisor) || !is_usable(scale) || !is_usable(1.0 / scale))
        status = Status::kNonFinite;
    }
    args.n_finite[at] = curve.n_finite;
    args.status[at] = static_cast<std::int32_t>(status);
    args.divisor[at] = status == Status::kOk ? divisor : kNan;
    if (status != Status::kOk) {
      fill(to, n, kNan);
      continue;
    }

    if (args.positions != nullptr) {
      locate(args.grid, n, args.positions + args.in.offsets[at], curve.points, index, part);
    } else {
      const double total =
          args.totals != nullptr ? args.totals[at] : static_cast<double>(curve.points);
      if (located == nullptr || located_points != curve.points || located_total != total) {
        locate_evenly(args.grid, n, curve.points, total > 0.0 ? total : kNan, index, part);
        located = index;
        located_points = curve.points;
        located_total = total;
      }
    }
    const double scale = divisor - offset;
    if (curve.direct) {
      look_up<Look::kPlain>(curve, n, index, part, rises, offset, scale, ahead, to,
                            [&](const Vec& i) { return gather(curve.smoothed, i); });
      continue;
    }
    switch (look_of(curve)) {
      case Look::kPlain:
        look_up<Look::kPlain>(curve, n, index, part, rises, offset, scale, ahead, to,
                              [&](const Vec& i) { return average_at<Look::kPlain>(curve, i); });
        break;
      case Look::kGaps:
        look_up<Look::kGaps>(curve, n, index, part, rises, offset, scale, ahead, to,
                             [&](const Vec& i) { return average_at<Look::kGaps>(curve, i); });
        break;
      case Look::kLong:
        look_up<Look::kLong>(curve, n, index, part, rises, offset, scale, ahead, to,
                             [&](const Vec& i) { return average_at<Look::kLong>(curve, i); });
        break;
    }
  }
}

}  // namespace

const SmoothKernels smooth = {scratch, smooth_curves, resample};

}  // namespace planner::PLANNER_LEVEL
