// Eight virtual float64 lanes: one 512-bit, two 256-bit or four 128-bit registers. Every level
// runs the same operations on the same lanes in the same order.
//
// Only per-level sources include this (they define PLANNER_LEVEL); everything is in the level's
// unnamed namespace and always inlined, so nothing here has linkage.
//
// Same bits: +, -, *, /, sqrt, comparisons and sum() are IEEE operations and the same at every
// level. fma() is one rounding wherever the CPU has it (avx2, avx512, ARM); x86 before AVX2 has
// none, and rounds twice. So a kernel that never calls fma() has the same bits at every level, and
// one that does has the same bits at avx2 and avx512 and differs by rounding at baseline.
//
// Rules: no std:: templates or functions (a weak copy compiled for a newer CPU could be the one the
// linker keeps for all); no -ffast-math (linked by gcc, it makes the process flush subnormals); no
// contraction, an FMA is written out where it is wanted; no allocation, no exceptions.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

// The level is what the instructions are, not only what the label says.
#if defined(PLANNER_LEVEL_IS_avx512)
static_assert(__AVX512F__ && __AVX512VL__ && __AVX512DQ__ && __FMA__, "built without AVX-512");
#elif defined(PLANNER_LEVEL_IS_avx2)
static_assert(__AVX2__ && __FMA__, "built without AVX2");
#if defined(__AVX512F__)
#error "the avx2 level must not use AVX-512"
#endif
#elif defined(__AVX__)
#error "the baseline level must run on every x86-64"
#endif
#if defined(__FAST_MATH__)
#error "-ffast-math breaks the NaN tests and the compensated sums"
#endif

// PLANNER_EACH(statement) repeats a statement with p = each register, without a loop: gcc keeps an
// array in registers only when all its indices are constants from the start.
#define PLANNER_AT(index, ...)        \
  {                                   \
    constexpr std::int64_t p = index; \
    __VA_ARGS__;                      \
  }
#if defined(__AVX512F__)
#define PLANNER_VECTOR_BYTES 64
#define PLANNER_EACH(...) PLANNER_AT(0, __VA_ARGS__)
#elif defined(__AVX__)
#define PLANNER_VECTOR_BYTES 32
#define PLANNER_EACH(...) PLANNER_AT(0, __VA_ARGS__) PLANNER_AT(1, __VA_ARGS__)
#else
#define PLANNER_VECTOR_BYTES 16
#define PLANNER_EACH(...)    \
  PLANNER_AT(0, __VA_ARGS__) \
  PLANNER_AT(1, __VA_ARGS__) PLANNER_AT(2, __VA_ARGS__) PLANNER_AT(3, __VA_ARGS__)
#endif

#define PLANNER_INLINE static inline __attribute__((always_inline, unused))

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kLanes = 8;
constexpr std::int64_t kWidth = PLANNER_VECTOR_BYTES / 8;  // lanes a register holds
constexpr std::int64_t kParts = kLanes / kWidth;           // registers that hold the eight lanes

constexpr double kInf = __builtin_inf();
constexpr double kNan = __builtin_nan("");

using Doubles = double __attribute__((vector_size(PLANNER_VECTOR_BYTES)));
using Longs = std::int64_t __attribute__((vector_size(PLANNER_VECTOR_BYTES)));
using ULongs = std::uint64_t __attribute__((vector_size(PLANNER_VECTOR_BYTES)));

// Eight doubles.
struct Vec {
  Doubles part[kParts];
};

// Eight 64-bit integers. As a mask, each lane is 0 or -1.
struct Bits {
  Longs part[kParts];
};

// --- in and out --------------------------------------------------------------------------------

PLANNER_INLINE Vec vec(double x) {
  Vec r;
  PLANNER_EACH(r.part[p] = Doubles{} + x)
  return r;
}

PLANNER_INLINE Bits bits(std::int64_t x) {
  Bits r;
  PLANNER_EACH(r.part[p] = Longs{} + x)
  return r;
}

// No alignment beyond that of double is asked for.
PLANNER_INLINE Vec load(const double* from) {
  Vec r;
  // Register by register: gcc moves a whole Vec through 128-bit pieces.
  PLANNER_EACH(__builtin_memcpy(&r.part[p], from + p * kWidth, sizeof r.part[p]);)
  return r;
}

PLANNER_INLINE void store(double* to, const Vec& x) {
  PLANNER_EACH(__builtin_memcpy(to + p * kWidth, &x.part[p], sizeof x.part[p]);)
}

// Loads n < 8 values; the other lanes become `rest`.
PLANNER_INLINE Vec load_tail(const double* from, std::int64_t n, double rest) {
  double lane[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) lane[i] = i < n ? from[i] : rest;
  return load(lane);
}

// Stores the first n < 8 lanes.
PLANNER_INLINE void store_tail(double* to, const Vec& x, std::int64_t n) {
  double lane[kLanes];
  store(lane, x);
  for (std::int64_t i = 0; i < n; ++i) to[i] = lane[i];
}

PLANNER_INLINE Bits as_bits(const Vec& x) {
  Bits r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(x.part[p]))
  return r;
}

PLANNER_INLINE Vec as_vec(const Bits& x) {
  Vec r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Doubles>(x.part[p]))
  return r;
}

// --- arithmetic --------------------------------------------------------------------------------

#define PLANNER_OPERATOR(Type, Scalar, spread, op)                                      \
  PLANNER_INLINE Type operator op(const Type& a, const Type& b) {                       \
    Type r;                                                                             \
    PLANNER_EACH(r.part[p] = a.part[p] op b.part[p])                                    \
    return r;                                                                           \
  }                                                                                     \
  PLANNER_INLINE Type operator op(const Type& a, Scalar b) { return a op spread(b); }   \
  PLANNER_INLINE Type operator op(Scalar a, const Type& b) { return spread(a) op b; }   \
  PLANNER_INLINE Type& operator op## = (Type & a, const Type& b) { return a = a op b; } \
  PLANNER_INLINE Type& operator op## = (Type & a, Scalar b) { return a = a op spread(b); }
PLANNER_OPERATOR(Vec, double, vec, +)
PLANNER_OPERATOR(Vec, double, vec, -)
PLANNER_OPERATOR(Vec, double, vec, *)
PLANNER_OPERATOR(Vec, double, vec, /)
PLANNER_OPERATOR(Bits, std::int64_t, bits, &)
PLANNER_OPERATOR(Bits, std::int64_t, bits, |)
PLANNER_OPERATOR(Bits, std::int64_t, bits, ^)
#undef PLANNER_OPERATOR

// Integers wrap around.
PLANNER_INLINE Bits operator+(const Bits& a, const Bits& b) {
  Bits r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(reinterpret_cast<ULongs>(a.part[p]) +
                                                   reinterpret_cast<ULongs>(b.part[p]));)
  return r;
}
PLANNER_INLINE Bits operator-(const Bits& a, const Bits& b) {
  Bits r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(reinterpret_cast<ULongs>(a.part[p]) -
                                                   reinterpret_cast<ULongs>(b.part[p]));)
  return r;
}
PLANNER_INLINE Bits operator+(const Bits& a, std::int64_t b) { return a + bits(b); }
PLANNER_INLINE Bits operator-(const Bits& a, std::int64_t b) { return a - bits(b); }
PLANNER_INLINE Bits operator-(std::int64_t a, const Bits& b) { return bits(a) - b; }

PLANNER_INLINE Vec operator-(const Vec& a) {
  Vec r;
  PLANNER_EACH(r.part[p] = -a.part[p])
  return r;
}

PLANNER_INLINE Bits operator~(const Bits& a) {
  Bits r;
  PLANNER_EACH(r.part[p] = ~a.part[p])
  return r;
}

PLANNER_INLINE Bits shift_left(const Bits& a, int by) {
  Bits r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(reinterpret_cast<ULongs>(a.part[p]) << by))
  return r;
}

// Zeros come in from the left (AVX2 has no arithmetic shift of 64-bit lanes).
PLANNER_INLINE Bits shift_right(const Bits& a, int by) {
  Bits r;
  PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(reinterpret_cast<ULongs>(a.part[p]) >> by))
  return r;
}

// a b + c: one rounding where the CPU has the instruction (kHasFma), else two.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

// fma() of one register.
PLANNER_INLINE Doubles fused(const Doubles& a, const Doubles& b, const Doubles& c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return reinterpret_cast<Doubles>(vfmaq_f64(reinterpret_cast<float64x2_t>(c),
                                             reinterpret_cast<float64x2_t>(a),
                                             reinterpret_cast<float64x2_t>(b)));
#else
  return a * b + c;
#endif
}
PLANNER_INLINE Doubles load_register(const double* from) {
  Doubles r;
  __builtin_memcpy(&r, from, sizeof r);
  return r;
}
PLANNER_INLINE void store_register(double* to, const Doubles& x) {
  __builtin_memcpy(to, &x, sizeof x);
}

PLANNER_INLINE Vec fma(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
  PLANNER_EACH(r.part[p] = fused(a.part[p], b.part[p], c.part[p]))
  return r;
}
PLANNER_INLINE Vec fma(const Vec& a, const Vec& b, double c) { return fma(a, b, vec(c)); }
PLANNER_INLINE Vec fma(const Vec& a, double b, const Vec& c) { return fma(a, vec(b), c); }
PLANNER_INLINE Vec fma(const Vec& a, double b, double c) { return fma(a, vec(b), vec(c)); }

// c - a b: exactly fma(-a, b, c).
PLANNER_INLINE Vec fnma(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_fnmadd_pd(a.part[0], b.part[0], c.part[0]);
#elif defined(__FMA__)
  PLANNER_EACH(r.part[p] = _mm256_fnmadd_pd(a.part[p], b.part[p], c.part[p]))
#else
  r = fma(-a, b, c);
#endif
  return r;
}
PLANNER_INLINE Vec fnma(const Vec& a, double b, const Vec& c) { return fnma(a, vec(b), c); }
PLANNER_INLINE Vec fnma(const Vec& a, const Vec& b, double c) { return fnma(a, b, vec(c)); }

PLANNER_INLINE Vec sqrt(const Vec& x) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_sqrt_pd(x.part[0]);
#elif defined(__AVX__)
  PLANNER_EACH(r.part[p] = _mm256_sqrt_pd(x.part[p]))
#else
  PLANNER_EACH(for (int i = 0; i < kWidth; ++i) r.part[p][i] = __builtin_sqrt(x.part[p][i]))
#endif
  return r;
}

PLANNER_INLINE Vec abs(const Vec& x) {
  return as_vec(as_bits(x) & std::int64_t{0x7fffffffffffffff});
}

// --- masks -------------------------------------------------------------------------------------

#define PLANNER_COMPARISON(op)                                                \
  PLANNER_INLINE Bits operator op(const Vec& a, const Vec& b) {               \
    Bits r;                                                                   \
    PLANNER_EACH(r.part[p] = reinterpret_cast<Longs>(a.part[p] op b.part[p])) \
    return r;                                                                 \
  }                                                                           \
  PLANNER_INLINE Bits operator op(const Vec& a, double b) { return a op vec(b); }
PLANNER_COMPARISON(<)
PLANNER_COMPARISON(<=)
PLANNER_COMPARISON(>)
PLANNER_COMPARISON(>=)
PLANNER_COMPARISON(==)
#undef PLANNER_COMPARISON

// mask ? a : b, lane by lane.
PLANNER_INLINE Vec select(const Bits& mask, const Vec& a, const Vec& b) {
  Vec r;
  PLANNER_EACH(r.part[p] = mask.part[p] ? a.part[p] : b.part[p])
  return r;
}
PLANNER_INLINE Vec select(const Bits& mask, const Vec& a, double b) {
  return select(mask, a, vec(b));
}
PLANNER_INLINE Vec select(const Bits& mask, double a, const Vec& b) {
  return select(mask, vec(a), b);
}

// Lanes outside the mask become +0.0.
PLANNER_INLINE Vec keep(const Vec& x, const Bits& mask) { return as_vec(as_bits(x) & mask); }

// b < a ? b : a and b > a ? b : a. So `a` where they do not compare: a NaN in `a` stays.
PLANNER_INLINE Vec min(const Vec& a, const Vec& b) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_min_pd(b.part[0], a.part[0]);
#elif defined(__AVX__)
  PLANNER_EACH(r.part[p] = _mm256_min_pd(b.part[p], a.part[p]);)
#elif defined(__SSE2__)
  PLANNER_EACH(r.part[p] = _mm_min_pd(b.part[p], a.part[p]);)
#else
  r = select(b < a, b, a);
#endif
  return r;
}
PLANNER_INLINE Vec max(const Vec& a, const Vec& b) {
  Vec r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_max_pd(b.part[0], a.part[0]);
#elif defined(__AVX__)
  PLANNER_EACH(r.part[p] = _mm256_max_pd(b.part[p], a.part[p]);)
#elif defined(__SSE2__)
  PLANNER_EACH(r.part[p] = _mm_max_pd(b.part[p], a.part[p]);)
#else
  r = select(b > a, b, a);
#endif
  return r;
}

// Lanes that hold a usable number: not NaN, and below 1e300, so that sums have head room.
// (One comparison of |x|: gcc 12 takes "x < a & x > b" apart, lane by lane, for SSE2.)
PLANNER_INLINE Bits usable(const Vec& x) { return abs(x) < 1e300; }

// Bit i is lane i of the mask.
PLANNER_INLINE unsigned lanes(const Bits& mask) {
  unsigned r = 0;
#if defined(__AVX512F__)
  r = static_cast<unsigned>(_mm512_movepi64_mask(reinterpret_cast<__m512i>(mask.part[0])));
#elif defined(__AVX__)
  PLANNER_EACH(r |=
               static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask.part[p])))
               << (p * kWidth))
#elif defined(__SSE2__)
  PLANNER_EACH(r |= static_cast<unsigned>(_mm_movemask_pd(reinterpret_cast<__m128d>(mask.part[p])))
                    << (p * kWidth))
#else
  PLANNER_EACH(for (int i = 0; i < kWidth; ++i) r |= static_cast<unsigned>(mask.part[p][i] & 1)
                                                     << (p * kWidth + i))
#endif
  return r;
}
PLANNER_INLINE bool any(const Bits& mask) { return lanes(mask) != 0; }
PLANNER_INLINE bool every(const Bits& mask) { return lanes(mask) == 0xff; }
PLANNER_INLINE int count(const Bits& mask) { return __builtin_popcount(lanes(mask)); }

// --- reductions: lanes 0..3 take 4..7, then 0..1 take 2..3, then 0 takes 1
// ------------------------

PLANNER_INLINE double sum(const Vec& x) {
#if defined(__AVX512F__)
  const __m256d four = _mm512_castpd512_pd256(x.part[0]) + _mm512_extractf64x4_pd(x.part[0], 1);
  const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return two[0] + two[1];
#elif defined(__AVX__)
  const __m256d four = x.part[0] + x.part[1];
  const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return two[0] + two[1];
#else
  const Doubles two = (x.part[0] + x.part[2]) + (x.part[1] + x.part[3]);
  return two[0] + two[1];
#endif
}

// Knuth's TwoSum: sum += x exactly, the rounding error goes to err. No branches.
template <class T>
PLANNER_INLINE void two_sum(T& sum, T& err, const T& x) {
  const T total = sum + x;
  const T part = total - sum;
  err += (sum - (total - part)) + (x - part);
  sum = total;
}

}  // namespace
}  // namespace planner::PLANNER_LEVEL
