// exp, log, log1p, pow and reciprocal on eight lanes. The polynomials are our own (Remez, in 50
// digits). Largest error in units in the last place, with FMA | without (tests/core/test_math.py
// holds these lines against mpmath):
//
//   vexp, vexp_bounded   1.0 | 1.5        vrecip    1.0 | 2.0
//   vlog, vlog_normal    2.0 | 2.5        vlog1p    2.5 | 3.0       (relative 3e-16 | 4e-16)
//   vpow(x, y)           relative (1 + |y log x|) 3e-16, as of exp(y log x)
//
// The same bits at avx2, avx512 and ARM; at baseline (no FMA) they may differ in the last bits.
// No table, no gather, no estimate instruction: rcp14 and rcpps differ between vendors.
#pragma once

#include "lanes.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

namespace detail {

// 3 * 2^51: adding it leaves the integer nearest to a small double in the low bits.
constexpr double kRound = 6755399441055744.0;
// ln 2 in two parts; the upper has 33 bits, so that n * kLn2High is exact for every exponent n.
constexpr double kLn2High = 0x1.62e42fefp-1;
constexpr double kLn2Low = 0x1.473de6af278edp-34;
constexpr double kLog2E = 1.4426950408889634;

// Templates: a kernel may have a type of several Vec, whose chains of FMAs then overlap.

// exp(r) for |r| <= ln(2)/2: 1 + r + r^2 P(r), truncation 4e-18.
template <class V>
PLANNER_INLINE V exp_reduced(const V& r) {
  V t = fma(r, 0x1.ad7efffdb4577p-26, 0x1.28ad5860886b8p-22);
  t = fma(t, r, 0x1.71df25799584bp-19);
  t = fma(t, r, 0x1.a0199a2ce13d0p-16);
  t = fma(t, r, 0x1.a01a012a58797p-13);
  t = fma(t, r, 0x1.6c16c1841c139p-10);
  t = fma(t, r, 0x1.1111111127b97p-7);
  t = fma(t, r, 0x1.55555555508cbp-5);
  t = fma(t, r, 0x1.55555555554fap-3);
  t = fma(t, r, 0x1.000000000000ap-1);
  return fma(r * r, t, r) + 1.0;
}

// x = m 2^k with m in [0.75, 1.5), for x positive, finite and, off AVX-512, normal. The exponent
// comes as a double.
PLANNER_INLINE void split(const Vec& x, Vec& m, Vec& k) {
#if defined(__AVX512F__)
  m.part[0] = _mm512_getmant_pd(x.part[0], _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  k.part[0] = _mm512_getexp_pd(x.part[0]) - _mm512_getexp_pd(m.part[0]);
#else
  constexpr std::int64_t low = 0x3fe8000000000000;    // 0.75
  constexpr std::int64_t ones = 0x3ff0000000000000;   // 1.0
  constexpr std::int64_t magic = 0x4330000000000000;  // 2^52
  const Bits shifted = as_bits(x) + (ones - low);
  k = as_vec(shift_right(shifted, 52) | magic) - (4503599627370496.0 + 1023.0);
  m = as_vec((shifted & std::int64_t{0x000fffffffffffff}) + low);
#endif
}

// log(m) + k ln 2 for m in [0.75, 1.5): log(m) = 2 s + s z Q(z) with s = (m - 1) / (m + 1) and
// z = s^2, truncation 2e-17.
template <class V>
PLANNER_INLINE V log_reduced(const V& m, const V& k) {
  const V f = m - 1.0;  // exact
  const V d = m + 1.0;
  // 1/d on [1.75, 2.5]: a quadratic within 1.4e-3, then one cubic step to 3e-9.
  V y = fma(fma(d, 0.10670556973896733, -0.6802480070859167), d, 1.4342729119991664);
  const V e = fnma(d, y, 1.0);
  y = fma(y, fma(e, e, e), y);
  V s = f * y;
  s = fma(fnma(d, s, f), y, s);  // the quotient to within an ulp
  const V z = s * s;
  V q = fma(z, 0.15368329008276999, 0.15250172277806728);
  q = fma(q, z, 0.1818635679074652);
  q = fma(q, z, 0.22222138487034387);
  q = fma(q, z, 0.28571429395413206);
  q = fma(q, z, 0.39999999996161467);
  q = fma(q, z, 0.6666666666667271);
  const V tail = fma(s * z, q, k * kLn2Low);
  return fma(k, kLn2High, fma(s, 2.0, tail));
}

}  // namespace detail

// exp(x) where the caller knows |x| <= 708: the same bits as vexp, fewer instructions.
PLANNER_INLINE Vec vexp_bounded(const Vec& x) {
  using namespace detail;
  const Vec shifted = fma(x, kLog2E, kRound);
  const Vec n = shifted - kRound;
  const Vec r = fnma(n, kLn2Low, fnma(n, kLn2High, x));
  return as_vec(as_bits(exp_reduced(r)) + shift_left(as_bits(shifted), 52));
}

#if !defined(__AVX512F__)
namespace detail {

// Out of line: what few arguments need.
__attribute__((noinline, unused)) static void exp_beyond(const Vec& in, Vec& out) noexcept {
  const Vec x = min(max(in, vec(-746.0)), vec(710.0));
  const Vec n = fma(x, kLog2E, kRound) - kRound;
  const Vec r = fnma(n, kLn2Low, fnma(n, kLn2High, x));
  // 2^n in two factors: only the second product rounds, as scalef does.
  const Vec first = fma(n, 0.5, kRound);
  const Vec second = (n - (first - kRound)) + kRound;
  constexpr std::int64_t ones = 0x3ff0000000000000;
  out = exp_reduced(r) * as_vec(shift_left(as_bits(first), 52) + ones) *
        as_vec(shift_left(as_bits(second), 52) + ones);
}

}  // namespace detail
#endif

// exp(x), all x: overflows to inf, underflows gradually to 0, NaN stays NaN.
PLANNER_INLINE Vec vexp(const Vec& any_x) {
#if defined(__AVX512F__)
  using namespace detail;
  const Vec x = min(max(any_x, vec(-746.0)), vec(710.0));
  const Vec n = fma(x, kLog2E, kRound) - kRound;
  const Vec r = fnma(n, kLn2Low, fnma(n, kLn2High, x));
  Vec out;
  out.part[0] = _mm512_scalef_pd(exp_reduced(r).part[0], n.part[0]);
  return out;
#else
  if (__builtin_expect(every(abs(any_x) <= 708.0), 1)) return vexp_bounded(any_x);
  Vec out;
  detail::exp_beyond(any_x, out);
  return out;
#endif
}

// log(x) where the caller knows that x is positive, finite and normal: the same bits as vlog.
PLANNER_INLINE Vec vlog_normal(const Vec& x) {
  Vec m;
  Vec k;
  detail::split(x, m, k);
  return detail::log_reduced(m, k);
}

#if !defined(__AVX512F__)
namespace detail {

__attribute__((noinline, unused)) static void log_beyond(const Vec& x, Vec& out) noexcept {
  Vec m;
  Vec k;
  const Bits tiny = x < 0x1p-1022;
  split(select(tiny, x * 0x1p54, x), m, k);
  const Vec r = log_reduced(m, k - keep(vec(54.0), tiny));
  const Vec special = select(x == 0.0, -kInf, select(x < 0.0, kNan, x));  // inf and NaN stay
  out = select((x > 0.0) & (x < kInf), r, special);
}

}  // namespace detail
#endif

// log(x), all x: log(0) = -inf, log(x < 0) = NaN, log(inf) = inf, subnormals count in full.
PLANNER_INLINE Vec vlog(const Vec& x) {
#if defined(__AVX512F__)
  const Vec special = select(x == 0.0, -kInf, select(x < 0.0, kNan, x));  // inf and NaN stay
  return select((x > 0.0) & (x < kInf), vlog_normal(x), special);
#else
  if (__builtin_expect(every((x >= 0x1p-1022) & (x < kInf)), 1)) return vlog_normal(x);
  Vec out;
  detail::log_beyond(x, out);
  return out;
#endif
}

// 1/x for 1e-300 <= |x| <= 1e300; elsewhere whatever comes. Cheaper than a division.
PLANNER_INLINE Vec vrecip(const Vec& x) {
  Vec y = as_vec(std::int64_t{0x7fde623822fc16e6} - as_bits(x));  // within 5 %
  Vec e = fnma(x, y, 1.0);
  y = fma(y, fma(e, e, e), y);  // 1.3e-4
  e = fnma(x, y, 1.0);
  y = fma(y, fma(e, e, e), y);  // 2e-12
  return fma(y, fnma(x, y, 1.0), y);
}

// 1/x within 3e-12, for derivatives; the same domain.
PLANNER_INLINE Vec vrecip_rough(const Vec& x) {
  Vec y = as_vec(std::int64_t{0x7fde623822fc16e6} - as_bits(x));
  Vec e = fnma(x, y, 1.0);
  y = fma(y, fma(e, e, e), y);
  e = fnma(x, y, 1.0);
  return fma(y, fma(e, e, e), y);
}

// log(1 + x), all x > -1; -inf at -1, NaN below.
PLANNER_INLINE Vec vlog1p(const Vec& x) {
  const Vec u = x + 1.0;
  Vec rounded = x;
  Vec lost = vec(0.0);
  two_sum(rounded, lost, vec(1.0));
  const Vec correction = lost * vrecip(u);  // log(u + lost) = log(u) + lost/u
  return vlog(u) + keep(correction, (u > 1e-300) & (u < 1e300));
}

// x^y = exp(y log x) for x >= 0. pow(0, y) is 0 for y > 0, inf for y < 0; NaN for 0^0 and x < 0.
PLANNER_INLINE Vec vpow(const Vec& x, const Vec& y) { return vexp(y * vlog(x)); }

}  // namespace
}  // namespace planner::PLANNER_LEVEL
