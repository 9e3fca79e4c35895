// One pass over the points: prefix sums (or the exponential average itself) into scratch memory.
// A smoothed value is then two look-ups and a division, made only where it is wanted. On a grid each
// look-up takes two neighbours in one 128-bit load: gathers take four times as long.
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

// Sums of the first 1, 2, ..., 8 lanes: lanes 1, 3, 5, 7 take the one before them, then 2, 3 take 1
// and 6, 7 take 5, then 4..7 take 3. (The sign of a zero may differ between levels; it is gone once
// something is added.)
PLANNER_INLINE Vec scan(const Vec& x) {
  Vec r = x;
#if defined(__AVX512F__)
  r.part[0] += _mm512_maskz_movedup_pd(0xaa, r.part[0]);
  r.part[0] += _mm512_maskz_permutex_pd(0xcc, r.part[0], 0x55);
  r.part[0] += _mm512_maskz_permutexvar_pd(0xf0, _mm512_set1_epi64(3), r.part[0]);
#elif defined(__AVX2__)
  const __m256d zero = _mm256_setzero_pd();
  PLANNER_EACH(r.part[p] += _mm256_unpacklo_pd(zero, r.part[p]);)
  PLANNER_EACH(r.part[p] +=
               _mm256_blend_pd(zero, _mm256_permute4x64_pd(r.part[p], 0x55), 0xc);)
  r.part[1] += _mm256_permute4x64_pd(r.part[0], 0xff);
#else
  PLANNER_EACH(r.part[p] += (Doubles{0.0, r.part[p][0]});)
  r.part[1] += Doubles{} + r.part[0][1];
  r.part[3] += Doubles{} + r.part[2][1];
  const Doubles fourth = Doubles{} + r.part[1][1];
  r.part[2] += fourth;
  r.part[3] += fourth;
#endif
  return r;
}

// from[at[k]] and from[at[k] + 1] for k = 0..7, each pair from one load: k = 0, 2, 4, 6 and
// k = 1, 3, 5, 7.
struct Pairs {
  Vec even;
  Vec odd;
};

PLANNER_INLINE Pairs load_pairs(const double* from, const std::int64_t* at) {
  Pairs r;
#if defined(__AVX512F__)
  const auto four = [&](int first) {
    const auto two = [&](int k) {
      return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from + at[k])),
                                  _mm_loadu_pd(from + at[k + 2]), 1);
    };
    return _mm512_insertf64x4(_mm512_castpd256_pd512(two(first)), two(first + 4), 1);
  };
  r.even.part[0] = four(0);
  r.odd.part[0] = four(1);
#elif defined(__AVX2__)
  const auto two = [&](std::int64_t k) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(from + at[k])),
                                _mm_loadu_pd(from + at[k + 2]), 1);
  };
  PLANNER_EACH(r.even.part[p] = two(4 * p); r.odd.part[p] = two(4 * p + 1);)
#else
  PLANNER_EACH(__builtin_memcpy(&r.even.part[p], from + at[2 * p], sizeof(Doubles));
               __builtin_memcpy(&r.odd.part[p], from + at[2 * p + 1], sizeof(Doubles));)
#endif
  return r;
}

PLANNER_INLINE Pairs operator-(const Pairs& a, const Pairs& b) {
  return {a.even - b.even, a.odd - b.odd};
}

// The first ones of the pairs in order, and the second ones.
PLANNER_INLINE Vec first_of(const Pairs& x) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_unpacklo_pd(x.even.part[0], x.odd.part[0]);
#elif defined(__AVX2__)
  PLANNER_EACH(r.part[p] = _mm256_unpacklo_pd(x.even.part[p], x.odd.part[p]);)
#else
  PLANNER_EACH(r.part[p] = (Doubles{x.even.part[p][0], x.odd.part[p][0]});)
#endif
  return r;
}
PLANNER_INLINE Vec second_of(const Pairs& x) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_unpackhi_pd(x.even.part[0], x.odd.part[0]);
#elif defined(__AVX2__)
  PLANNER_EACH(r.part[p] = _mm256_unpackhi_pd(x.even.part[p], x.odd.part[p]);)
#else
  PLANNER_EACH(r.part[p] = (Doubles{x.even.part[p][1], x.odd.part[p][1]});)
#endif
  return r;
}

PLANNER_INLINE Bits load_bits(const std::int64_t* from) {
  Bits r;
  PLANNER_EACH(__builtin_memcpy(&r.part[p], from + p * kWidth, sizeof r.part[p]);)
  return r;
}
PLANNER_INLINE void store_bits(std::int64_t* to, const Bits& x) {
  PLANNER_EACH(__builtin_memcpy(to + p * kWidth, &x.part[p], sizeof x.part[p]);)
}

// Whole numbers from 0 to 2^52 between double and integer: they are the last bits of 2^52 + x.
constexpr std::int64_t kLow52 = 0x000fffffffffffff;
PLANNER_INLINE Bits to_integers(const Vec& x) { return as_bits(x + kTwo52) & kLow52; }
PLANNER_INLINE Vec to_doubles(const Bits& x) {
  return as_vec(x | std::int64_t{0x4330000000000000}) - kTwo52;
}

// --- what one pass leaves in scratch memory -----------------------------------------------------

struct Curve {
  const double* at;
  std::int64_t points;
  std::int64_t n_finite;
  // Moving average over i - left .. i + right.
  std::int64_t left;
  std::int64_t right;
  double shift;  // taken off the values before they are summed: it keeps the sums small
  double* sums;  // [i] of the points of the block before i, for i from 0 to points
  double* high;  // [block] the sum before it, in two parts
  double* low;
  double* missing;  // [i] missing points before i; filled for all points to be smoothed
  std::int64_t* gaps;  // [k] missing points before 8 k, times 256, and which of 8 k + (0..7) are
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

// The sums of the first 1, ..., 8 of the values, less the shift; and the next one of `gaps`.
PLANNER_INLINE Vec sums_of(const Vec& x, const Vec& shift, std::int64_t& missing,
                           std::int64_t& gap) {
  const Bits mask = usable(x);
  const unsigned good = lanes(mask);
  gap = missing;
  if (__builtin_expect(good != 0xff, 0)) {
    gap += static_cast<std::int64_t>(~good & 0xff);
    missing += 256 * (kLanes - __builtin_popcount(good));
  }
  return scan(keep(x - shift, mask));
}

void sum_up(Curve& curve, Ahead& ahead) noexcept {
  double high = 0.0;
  double low = 0.0;
  const Vec shift = vec(curve.shift);
  const std::int64_t points = curve.points;
  std::int64_t missing = 0;  // times 256
  for (std::int64_t start = 0, block = 0; start <= points; start += kBlock, ++block) {
    curve.high[block] = high;
    curve.low[block] = low;
    const std::int64_t end = start + kBlock < points ? start + kBlock : points;
    Vec carry = vec(0.0);
    curve.sums[start] = 0.0;
    std::int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      const Vec s = sums_of(load(curve.at + i), shift, missing, curve.gaps[i / kLanes]);
      store(curve.sums + i + 1, s + carry);
      carry = carry + spread<7>(s);
      if ((i & kLanes) == 0) fetch(ahead, 1);
    }
    if (i < end) {
      const Vec s = sums_of(load_tail(curve.at + i, end - i, kNan), shift, missing,
                            curve.gaps[i / kLanes]);
      store_tail(curve.sums + i + 1, s + carry, end - i);
    }
    two_sum(high, low, curve.sums[end]);
  }
  const std::int64_t over = (points + kLanes - 1) / kLanes * kLanes - points;
  curve.n_finite = points + over - missing / 256;
  if (over == 0) curve.gaps[points / kLanes] = missing;
}

PLANNER_INLINE std::int64_t missing_before(const Curve& curve, std::int64_t i) {
  const std::int64_t gap = curve.gaps[i / kLanes];
  const std::int64_t here = gap & ((std::int64_t{1} << i % kLanes) - 1);
  return gap / 256 + __builtin_popcount(static_cast<unsigned>(here));
}

void count_missing(const Curve& curve) noexcept {
  Vec carry = vec(0.0);
  curve.missing[0] = 0.0;
  std::int64_t i = 0;
  for (; i + kLanes <= curve.points; i += kLanes) {
    const Bits mask = usable(load(curve.at + i));
    if (every(mask)) {
      store(curve.missing + i + 1, carry);
      continue;
    }
    const Vec s = scan(keep(vec(1.0), ~mask));
    store(curve.missing + i + 1, s + carry);
    carry = carry + spread<7>(s);
  }
  if (i < curve.points) {
    const Vec x = load_tail(curve.at + i, curve.points - i, kNan);
    store_tail(curve.missing + i + 1, scan(keep(vec(1.0), ~usable(x))) + carry,
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
  return 2 * padded(longest + 1) + 2 * padded(longest / kBlock + 1) +
         padded(longest / kLanes + 1) + 2 * padded(grid_points);
}

// The pass over curve `index`. `smoothed` takes the values of a direct one; null: scratch memory
// does, for a grid.
PLANNER_INLINE Curve prepare(const SmoothInput& in, std::int64_t index, double* memory,
                             double* smoothed, Ahead& ahead) {
  Curve curve = {};
  curve.at = in.values + in.offsets[index];
  curve.points = in.offsets[index + 1] - in.offsets[index];
  const double width = in.width[index];
  const auto n = static_cast<double>(curve.points);
  const std::int64_t blocks = padded(curve.points / kBlock + 1);
  curve.sums = memory + (kLanes - 1);  // [1], where the first eight go, is at a cache line
  curve.missing = memory + padded(curve.points + 1);
  curve.high = curve.missing + padded(curve.points + 1);
  curve.low = curve.high + blocks;
  curve.gaps = reinterpret_cast<std::int64_t*>(curve.low + blocks);
  curve.smoothed = smoothed != nullptr ? smoothed : memory;

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
  curve.left = centred ? window / 2 : window - 1;
  curve.right = centred ? (window - 1) / 2 : 0;
  curve.shift = typical(curve.at, curve.points);
  sum_up(curve, ahead);
  if (smoothed != nullptr && curve.n_finite < curve.points) count_missing(curve);
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
  const Vec a = max(i - static_cast<double>(curve.left), vec(0.0));
  const Vec b = min(i + static_cast<double>(curve.right + 1),
                    vec(static_cast<double>(curve.points)));
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

template <Look kLook>
void smooth_all(const Curve& curve, double* to) noexcept {
  const std::int64_t left = curve.left;
  const std::int64_t right = curve.right;
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
                                  double total, std::int64_t* index, double* part) {
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
    store_bits(index + k, to_integers(select(x <= end, floor, last)));
  }
}

PLANNER_INLINE void locate(const double* grid, std::int64_t n, const double* positions,
                           std::int64_t points, std::int64_t* index, double* part) {
  std::int64_t i = 0;
  for (std::int64_t k = 0; k < n; ++k) {
    const double g = grid[k];
    while (i + 1 < points && positions[i + 1] <= g) ++i;
    index[k] = i;
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

// What lies between two points: the first where the part is 0, though the second be NaN.
PLANNER_INLINE Vec between(const Vec& first, const Vec& second, const Vec& part) {
  return select(part == 0.0, first, first + (second - first) * part);
}

PLANNER_INLINE Vec value_at(const Curve& curve, const std::int64_t* index, const Vec& part) {
  const Pairs s = load_pairs(curve.smoothed, index);
  return between(first_of(s), second_of(s), part);
}

// The sum of points a..b-1, less as many shifts, and how many of them are usable.
PLANNER_INLINE double sum_between(const Curve& curve, std::int64_t a, std::int64_t b) {
  const double sum = curve.sums[b] - curve.sums[a];
  if (curve.points < kBlock) return sum;
  const std::int64_t from = a / kBlock;
  const std::int64_t to = b / kBlock;
  return sum + ((curve.high[to] - curve.high[from]) + (curve.low[to] - curve.low[from]));
}
PLANNER_INLINE double usable_between(const Curve& curve, std::int64_t a, std::int64_t b) {
  return static_cast<double>((b - a) - (missing_before(curve, b) - missing_before(curve, a)));
}

PLANNER_INLINE std::int64_t start_of(const Curve& curve, std::int64_t i) {
  return i > curve.left ? i - curve.left : 0;
}
PLANNER_INLINE std::int64_t end_of(const Curve& curve, std::int64_t i) {
  return i < curve.points - curve.right ? i + curve.right + 1 : curve.points;
}

PLANNER_INLINE Vec average_of(const Curve& curve, const Vec& sum, const Vec& n) {
  return select(n > 0.0, curve.shift + sum / n, kNan);
}

PLANNER_INLINE double last_of(const Curve& curve) {
  if (curve.direct) return curve.smoothed[curve.points - 1];
  const std::int64_t a = start_of(curve, curve.points - 1);
  const double n = usable_between(curve, a, curve.points);
  return n > 0.0 ? curve.shift + sum_between(curve, a, curve.points) / n : kNan;
}

// The averages of eight points and of the next ones, whatever their windows: those shrink at the
// ends, miss points, or lie in several blocks.
__attribute__((noinline)) void average_any(const Curve& curve, const std::int64_t* index,
                                           Vec& here, Vec& next) noexcept {
  double sum[2][kLanes];
  double n[2][kLanes];
  for (std::int64_t k = 0; k < kLanes; ++k) {
    const std::int64_t after = index[k] + 1 < curve.points ? index[k] + 1 : index[k];
    const std::int64_t a[2] = {start_of(curve, index[k]), start_of(curve, after)};
    const std::int64_t b[2] = {end_of(curve, index[k]), end_of(curve, after)};
    for (int each = 0; each < 2; ++each) {
      sum[each][k] = sum_between(curve, a[each], b[each]);
      n[each][k] = usable_between(curve, a[each], b[each]);
    }
  }
  here = average_of(curve, load(sum[0]), load(n[0]));
  next = average_of(curve, load(sum[1]), load(n[1]));
}

// Points missing before eight points, and before the next ones.
PLANNER_INLINE void missing_before(const Curve& curve, const std::int64_t* index, Vec& here,
                                   Vec& next) {
  std::int64_t before[kLanes];
  std::int64_t then[kLanes];
  for (std::int64_t k = 0; k < kLanes; ++k) {
    const std::int64_t gap = curve.gaps[index[k] / kLanes];
    const std::int64_t at = index[k] % kLanes;
    const std::int64_t passed = gap & ((std::int64_t{1} << at) - 1);
    before[k] = gap / 256 + __builtin_popcount(static_cast<unsigned>(passed));
    then[k] = before[k] + (gap >> at & 1);
  }
  here = to_doubles(load_bits(before));
  next = to_doubles(load_bits(then));
}

// Smoothed values at index + part. Of eight indices, those in between lie between the first and the
// last one if the grid rises.
PLANNER_INLINE Vec average_on(const Curve& curve, bool rises, double per_point,
                              const std::int64_t* index, const Vec& part) {
  const std::int64_t first = index[0];
  const std::int64_t last = index[kLanes - 1];
  // Where the first window starts and the last one ends, and the same one point later.
  const std::int64_t a0 = start_of(curve, first);
  const std::int64_t b1 = end_of(curve, last + 1);
  double jump = 0.0;  // between the blocks
  bool simple = rises;
  if (curve.points >= kBlock) {
    const std::int64_t from = a0 / kBlock;
    const std::int64_t to = b1 / kBlock;
    simple &= from == start_of(curve, last + 1) / kBlock && to == end_of(curve, first) / kBlock;
    jump = (curve.high[to] - curve.high[from]) + (curve.low[to] - curve.low[from]);
  }
  if (!__builtin_expect(simple, 1)) {
    Vec here;
    Vec next;
    average_any(curve, index, here, next);
    return between(here, next, part);
  }
  const bool gaps =
      curve.n_finite != curve.points && missing_before(curve, a0) != missing_before(curve, b1);
  if (!gaps && first >= curve.left && last + curve.right + 2 <= curve.points) {
    const Pairs sums = load_pairs(curve.sums + (curve.right + 1), index) -
                       load_pairs(curve.sums - curve.left, index);
    const Vec here = first_of(sums) + jump;
    const Vec next = second_of(sums) + jump;
    return curve.shift + (here + (next - here) * part) * per_point;
  }

  const Vec i = to_doubles(load_bits(index));
  const auto left = static_cast<double>(curve.left);
  const auto right = static_cast<double>(curve.right);
  const Vec end = vec(static_cast<double>(curve.points));
  const Vec a = max(i - left, vec(0.0));
  const Vec a_next = max(i - (left - 1.0), vec(0.0));
  const Vec b = min(i + (right + 1.0), end);
  const Vec b_next = min(i + (right + 2.0), end);
  std::int64_t from[kLanes];
  std::int64_t to[kLanes];
  store_bits(from, to_integers(a));
  store_bits(to, to_integers(b));
  const Pairs before = load_pairs(curve.sums, from);
  const Pairs until = load_pairs(curve.sums, to);
  const Vec here = (first_of(until) - first_of(before)) + jump;
  const Vec next = (select(b_next > b, second_of(until), first_of(until)) -
                    select(a_next > a, second_of(before), first_of(before))) +
                   jump;
  Vec n = b - a;
  Vec n_next = b_next - a_next;
  if (gaps) {
    Vec missing;
    Vec missing_next;
    missing_before(curve, from, missing, missing_next);
    n += missing;
    n_next += select(a_next > a, missing_next, missing);
    missing_before(curve, to, missing, missing_next);
    n = n - missing;
    n_next = n_next - select(b_next > b, missing_next, missing);
  }
  return between(average_of(curve, here, n), average_of(curve, next, n_next), part);
}

void resample(const ResampleCurves& args, std::int64_t begin, std::int64_t end,
              double* memory) noexcept {
  const std::int64_t n = args.grid_points;
  auto* const index = reinterpret_cast<std::int64_t*>(memory);
  double* const part = memory + padded(n);
  bool rises = true;
  for (std::int64_t k = 1; k < n; ++k) rises &= args.grid[k - 1] <= args.grid[k];
  bool located = false;  // whether index and part are those of an even curve of such a total
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
      if (!located || located_points != curve.points || located_total != total) {
        locate_evenly(args.grid, n, curve.points, total > 0.0 ? total : kNan, index, part);
        located = true;
        located_points = curve.points;
        located_total = total;
      }
    }
    const double by = 1.0 / (divisor - offset);
    const std::int64_t lines = ahead.left / 64 * kLanes / (n > 0 ? n : 1) + 1;
    const auto each = [&](auto value) {
      for (std::int64_t k = 0; k < n; k += kLanes) {
        fetch(ahead, lines);
        const Vec y = (value(index + k, load(part + k)) - offset) * by;
        if (k + kLanes <= n) {
          store(to + k, y);
        } else {
          store_tail(to + k, y, n - k);
        }
      }
    };
    if (curve.direct) {
      each([&](const std::int64_t* i, const Vec& f) { return value_at(curve, i, f); });
    } else {
      const double per_point = 1.0 / static_cast<double>(curve.left + curve.right + 1);
      each([&](const std::int64_t* i, const Vec& f) {
        return average_on(curve, rises, per_point, i, f);
      });
    }
  }
}

}  // namespace

const SmoothKernels smooth = {scratch, smooth_curves, resample};

}  // namespace planner::PLANNER_LEVEL
