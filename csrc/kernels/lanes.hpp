// Eight virtual double lanes, held in one zmm, two ymm or four 128-bit registers. Every level
// runs the same operations on the same lanes in the same order, so every level returns the same
// bits.
//
// Included only by kernels/level.cpp, inside the level's namespace and an unnamed one: nothing
// here has linkage. Vectors are passed by reference, never by value, because their calling
// convention differs between levels.
//
// Rules for kernels: no std:: (a weak template instantiated for a newer ISA could be the copy
// the linker keeps for every CPU); no -ffast-math (with gcc it makes the whole process flush
// subnormals); no contraction, an FMA is written out where it is wanted.

#if defined(__AVX512F__)
#define PLANNER_VECTOR_BYTES 64
#elif defined(__AVX__)
#define PLANNER_VECTOR_BYTES 32
#else
#define PLANNER_VECTOR_BYTES 16
#endif

constexpr std::int64_t kLanes = 8;
constexpr std::int64_t kWidth = PLANNER_VECTOR_BYTES / 8;  // lanes a register holds
constexpr std::int64_t kParts = kLanes / kWidth;           // registers that hold the eight lanes

using Doubles = double __attribute__((vector_size(PLANNER_VECTOR_BYTES)));
using Mask = std::int64_t __attribute__((vector_size(PLANNER_VECTOR_BYTES)));  // lane: 0 or -1

#define PLANNER_INLINE static inline __attribute__((always_inline))

PLANNER_INLINE void load(Doubles& x, const double* from) {
  __builtin_memcpy(&x, from, sizeof x);  // no alignment beyond double is asked for
}

// Copies n < 8 values to lane[8]; the other lanes are NaN, which every kernel treats as missing.
PLANNER_INLINE void pad(double* lane, const double* from, std::int64_t n) {
  for (std::int64_t i = 0; i < kLanes; ++i) lane[i] = i < n ? from[i] : __builtin_nan("");
}

// Lanes that hold a usable number. False for NaN; the bound leaves head room for sums.
PLANNER_INLINE void finite(Mask& m, const Doubles& x) {
  // One comparison of |x|: gcc 12 takes "x < a & x > b" apart, lane by lane, for SSE2.
  const Mask bits = reinterpret_cast<Mask>(x) & std::int64_t{0x7fffffffffffffff};
  m = reinterpret_cast<Doubles>(bits) < 1e300;
}

// Lanes outside the mask become +0.0.
PLANNER_INLINE void keep(Doubles& x, const Mask& m) {
  x = reinterpret_cast<Doubles>(reinterpret_cast<Mask>(x) & m);
}

// Knuth's TwoSum: sum += x exactly, the rounding error goes to err. No branches.
template <class T>
PLANNER_INLINE void two_sum(T& sum, T& err, const T& x) {
  const T total = sum + x;
  const T part = total - sum;
  err += (sum - (total - part)) + (x - part);
  sum = total;
}
