// One pass over the points: prefix sums (or the exponential average itself) into scratch memory.
// A smoothed value is then two look-ups and a division, made only where it is wanted. On a grid
// each look-up takes two neighbours in one 128-bit load: gathers take four times as long.
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
  PLANNER_EACH(r.part[p] += _mm256_blend_pd(zero, _mm256_permute4x64_pd(r.part[p], 0x55), 0xc);)
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

// For loads of single lanes. In halves, for a load from a store of 512 bits just made waits for the
// cache; and out of gcc's sight, which would take the register apart by shuffles.
PLANNER_INLINE void store_addresses(std::int64_t* to, const Bits& x) {
#if defined(__AVX512F__)
  const __m512i all = reinterpret_cast<__m512i>(x.part[0]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(all));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4), _mm512_extracti64x4_epi64(all, 1));
#else
  store_bits(to, x);
#endif
  __asm__("" : "+m"(*reinterpret_cast<std::int64_t (*)[kLanes]>(to)));
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
  double* missing;      // [i] missing points before i, where count_missing() has been
  std::int64_t* gaps;   // [k] missing points before 8 k, times 256, and which of 8 k + (0..7) are
  std::int64_t* holes;  // the k of which some are, and one more that no window reaches
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

PLANNER_INLINE std::int64_t blocks_of(std::int64_t points) {
  return (points + kLanes - 1) / kLanes;
}

// Notes the missing ones of eight points, where `all` is not `good`.
PLANNER_INLINE void note_gaps(const Curve& curve, std::int64_t block, unsigned good, unsigned all,
                              std::int64_t& missing, std::int64_t& holes) {
  curve.gaps[block] = missing;
  if (__builtin_expect(good != all, 0)) {
    curve.gaps[block] += static_cast<std::int64_t>(all & ~good);
    missing += 256 * __builtin_popcount(all & ~good);
    curve.holes[holes++] = block;
  }
}

void sum_up(Curve& curve, Ahead& ahead) noexcept {
  double high = 0.0;
  double low = 0.0;
  const Vec shift = vec(curve.shift);
  const std::int64_t points = curve.points;
  std::int64_t missing = 0;  // times 256
  std::int64_t holes = 0;
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
      note_gaps(curve, i / kLanes, lanes(mask), 0xff, missing, holes);
      const Vec s = scan(keep(x - shift, mask));
      store(curve.sums + i + 1, s + carry);
      carry = carry + spread<7>(s);
      if ((i & kLanes) == 0) fetch(ahead, 1);
    }
    if (i < end) {
      const Vec x = load_tail(curve.at + i, end - i, kNan);
      const Bits mask = usable(x);
      note_gaps(curve, i / kLanes, lanes(mask), (1u << (end - i)) - 1, missing, holes);
      store_tail(curve.sums + i + 1, scan(keep(x - shift, mask)) + carry, end - i);
    }
    two_sum(high, low, curve.sums[end]);
  }
  curve.n_finite = points - missing / 256;
  curve.gaps[blocks_of(points)] = missing;
  curve.holes[holes] = points + kLanes;
}

PLANNER_INLINE std::int64_t missing_before(const Curve& curve, std::int64_t i) {
  const std::int64_t gap = curve.gaps[i / kLanes];
  const std::int64_t here = gap & ((std::int64_t{1} << i % kLanes) - 1);
  return gap / 256 + __builtin_popcount(static_cast<unsigned>(here));
}

// Fills `missing` for points 8 begin to 8 end.
void count_missing(const Curve& curve, std::int64_t begin, std::int64_t end) noexcept {
  curve.missing[begin * kLanes] = static_cast<double>(curve.gaps[begin] / 256);
  for (std::int64_t k = begin; k < end; ++k) {
    const std::int64_t i = k * kLanes;
    const Vec carry = vec(static_cast<double>(curve.gaps[k] / 256));
    const std::int64_t left = curve.points - i;
    if (left < kLanes) {
      const Vec x = load_tail(curve.at + i, left, kNan);
      store_tail(curve.missing + i + 1, scan(keep(vec(1.0), ~usable(x))) + carry, left);
    } else if (curve.gaps[k] % 256 == 0) {
      store(curve.missing + i + 1, carry);
    } else {
      const Vec x = load(curve.at + i);
      store(curve.missing + i + 1, scan(keep(vec(1.0), ~usable(x))) + carry);
    }
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
         2 * padded(longest / kLanes + 2) + 2 * padded(grid_points);
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
  curve.missing = curve.sums + padded(curve.points + 1);
  curve.high = memory + 2 * padded(curve.points + 1);
  curve.low = curve.high + blocks;
  curve.gaps = reinterpret_cast<std::int64_t*>(curve.low + blocks);
  curve.holes = curve.gaps + padded(curve.points / kLanes + 2);
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
  if (smoothed != nullptr && curve.n_finite < curve.points) {
    count_missing(curve, 0, blocks_of(curve.points));
  }
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
  const Vec b =
      min(i + static_cast<double>(curve.right + 1), vec(static_cast<double>(curve.points)));
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

// Grid points lie at index + part; a NaN part says that the run has not come so far.

// Where eight grid points lie when point i is at (i + 1) / total.
PLANNER_INLINE Vec locate_evenly(const Vec& grid, double total, const Vec& last, const Vec& end,
                                 std::int64_t* index) {
  const Vec x = grid * total - 1.0;
  const Vec inside = min(max(vec(0.0), x), last);
#if defined(__AVX512F__)
  const __m512i whole = _mm512_cvttpd_epi64(inside.part[0]);
  store_addresses(index, Bits{{reinterpret_cast<Longs>(whole)}});
  Vec floor;
  floor.part[0] = _mm512_cvtepi64_pd(whole);
#else
  const Vec nearest = (inside + kTwo52) - kTwo52;
  const Vec floor = nearest - keep(vec(1.0), nearest > inside);
  store_addresses(index, to_integers(floor));
#endif
  return select(x <= end, inside - floor, kNan);  // false for NaN
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
__attribute__((noinline)) void average_any(const Curve& curve, const std::int64_t* index, Vec& here,
                                           Vec& next) noexcept {
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

// Windows that all of their points fill, from the first of which to the last nothing is missing and
// no block ends: those of the points up to `last`.
struct Clear {
  std::int64_t last;
  double jump;               // from the block where they start to that where they end
  const std::int64_t* hole;  // the first that they may meet
};

// From point `first` on; up to none, where it has no such window.
PLANNER_INLINE Clear clear_from(const Curve& curve, std::int64_t first, const std::int64_t* hole) {
  const std::int64_t a = first - curve.left;
  const std::int64_t b = first + curve.right + 1;
  if (a < 0) return {-1, 0.0, hole};
  while ((*hole + 1) * kLanes <= a) ++hole;
  const std::int64_t stop = *hole * kLanes < curve.points ? *hole * kLanes : curve.points;
  Clear clear = {stop - curve.right - 2, 0.0, hole};  // the window of the next point ends there
  if (curve.points >= kBlock) {
    const std::int64_t from = a / kBlock;
    const std::int64_t to = b / kBlock;
    clear.jump = (curve.high[to] - curve.high[from]) + (curve.low[to] - curve.low[from]);
    const std::int64_t leaves = (from + 1) * kBlock + curve.left - 2;
    const std::int64_t enters = (to + 1) * kBlock - curve.right - 3;
    if (leaves < clear.last) clear.last = leaves;
    if (enters < clear.last) clear.last = enters;
  }
  return clear;
}

PLANNER_INLINE Vec average_clear(const Curve& curve, double jump, double per_point,
                                 const std::int64_t* index, const Vec& part) {
  const Pairs sums = load_pairs(curve.sums + (curve.right + 1), index) -
                     load_pairs(curve.sums - curve.left, index);
  const Vec here = first_of(sums);
  const Vec sum = here + (second_of(sums) - here) * part;
  return curve.shift + (sum + jump) * per_point;
}

// Any windows. Of eight indices, those in between lie between the first and the last one if the
// grid rises. `counted`: the block up to which count_missing() has been.
__attribute__((noinline)) void average_on(const Curve& curve, bool rises, std::int64_t& counted,
                                          const std::int64_t* index, const Vec& part,
                                          Vec& average) noexcept {
  const std::int64_t first = index[0];
  const std::int64_t last = index[kLanes - 1];
  // Where the first window starts and the last one ends.
  const std::int64_t a0 = start_of(curve, first);
  const std::int64_t b1 = end_of(curve, last + 1);
  double jump = 0.0;
  bool simple = rises;
  if (curve.points >= kBlock) {
    const std::int64_t from = a0 / kBlock;
    const std::int64_t to = b1 / kBlock;
    simple &= from == start_of(curve, last + 1) / kBlock && to == end_of(curve, first) / kBlock;
    jump = (curve.high[to] - curve.high[from]) + (curve.low[to] - curve.low[from]);
  }
  if (!simple) {
    Vec here;
    Vec next;
    average_any(curve, index, here, next);
    average = between(here, next, part);
    return;
  }
  const Vec i = to_doubles(load_bits(index));
  const auto left = static_cast<double>(curve.left);
  const auto right = static_cast<double>(curve.right);
  const Vec end = vec(static_cast<double>(curve.points));
  const Vec a = max(i - left, vec(0.0));
  const Vec a_next = max(i - (left - 1.0), vec(0.0));
  const Vec b = min(i + (right + 1.0), end);
  const Vec b_next = min(i + (right + 2.0), end);
  alignas(64) std::int64_t from[kLanes];
  alignas(64) std::int64_t to[kLanes];
  store_addresses(from, to_integers(a));
  store_addresses(to, to_integers(b));
  const Pairs before = load_pairs(curve.sums, from);
  const Pairs until = load_pairs(curve.sums, to);
  const Vec here = (first_of(until) - first_of(before)) + jump;
  const Vec next = (select(b_next > b, second_of(until), first_of(until)) -
                    select(a_next > a, second_of(before), first_of(before))) +
                   jump;
  Vec n = b - a;
  Vec n_next = b_next - a_next;
  if (curve.n_finite != curve.points && missing_before(curve, a0) != missing_before(curve, b1)) {
    const std::int64_t begin = a0 / kLanes > counted ? a0 / kLanes : counted;
    if (begin < blocks_of(b1)) {
      counted = blocks_of(b1);
      count_missing(curve, begin, counted);
    }
    const Pairs gone = load_pairs(curve.missing, from);
    const Pairs passed = load_pairs(curve.missing, to);
    n = n - (first_of(passed) - first_of(gone));
    n_next = n_next - (select(b_next > b, second_of(passed), first_of(passed)) -
                       select(a_next > a, second_of(gone), first_of(gone)));
  }
  average = between(average_of(curve, here, n), average_of(curve, next, n_next), part);
}

void resample(const ResampleCurves& args, std::int64_t begin, std::int64_t end,
              double* memory) noexcept {
  const std::int64_t n = args.grid_points;
  auto* const index = reinterpret_cast<std::int64_t*>(memory);
  double* const part = memory + padded(n);
  bool rises = true;
  for (std::int64_t k = 1; k < n; ++k) rises &= args.grid[k - 1] <= args.grid[k];
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

    const double by = 1.0 / (divisor - offset);
    const std::int64_t lines = ahead.left / 64 * kLanes / (n > 0 ? n : 1) + 1;
    const auto each = [&](auto place, auto value) {
      for (std::int64_t k = 0; k < n; k += kLanes) {
        fetch(ahead, lines);
        alignas(64) std::int64_t here[kLanes];
        const Vec f = place(k, here);
        const Vec y = (value(here, f) - offset) * by;
        if (k + kLanes <= n) {
          store(to + k, y);
        } else {
          store_tail(to + k, y, n - k);
        }
      }
    };
    const double per_point = 1.0 / static_cast<double>(curve.left + curve.right + 1);
    const auto all = [&](auto place) {
      if (curve.direct) {
        each(place, [&](const std::int64_t* i, const Vec& f) { return value_at(curve, i, f); });
      } else {
        Clear clear = {-1, 0.0, curve.holes};
        std::int64_t counted = 0;
        each(place, [&](const std::int64_t* i, const Vec& f) {
          if (__builtin_expect(i[kLanes - 1] > clear.last, 0)) {
            if (rises) clear = clear_from(curve, i[0], clear.hole);
            if (i[kLanes - 1] > clear.last) {
              Vec y;
              average_on(curve, rises, counted, i, f, y);
              return y;
            }
          }
          return average_clear(curve, clear.jump, per_point, i, f);
        });
      }
    };
    if (args.positions != nullptr) {
      locate(args.grid, n, args.positions + args.in.offsets[at], curve.points, index, part);
      all([&](std::int64_t k, std::int64_t* here) {
        store_addresses(here, load_bits(index + k));
        return load(part + k);
      });
    } else {
      const double given =
          args.totals != nullptr ? args.totals[at] : static_cast<double>(curve.points);
      const double total = given > 0.0 ? given : kNan;
      const Vec last = vec(static_cast<double>(curve.points - 1));
      const Vec limit = last + 1e-9 * total;  // rounding of grid * total does not count
      all([&](std::int64_t k, std::int64_t* here) {
        const Vec g = k + kLanes <= n ? load(args.grid + k)
                                      : load_tail(args.grid + k, n - k, args.grid[n - 1]);
        return locate_evenly(g, total, last, limit, here);
      });
    }
  }
}

}  // namespace

const SmoothKernels smooth = {scratch, smooth_curves, resample};

}  // namespace planner::PLANNER_LEVEL
