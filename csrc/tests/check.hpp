// A small test harness: TEST(name) { CHECK(...); } in any test_*.cpp registers itself.
#pragma once

#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "dispatch.hpp"

namespace planner::tests {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, void (*run)()) { all_tests().push_back({name, run}); }
};

#define TEST(name)                                                              \
  static void test_##name();                                                    \
  static const ::planner::tests::Register register_##name(#name, &test_##name); \
  static void test_##name()

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      ++::planner::tests::failures();                                              \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                              \
  } while (false)

// Ragged curves of every length up to 40 and some longer ones, with gaps, infinities, constants,
// huge and tiny values. The same for the same seed everywhere: no std:: distribution, whose
// numbers differ between libraries.
struct Curves {
  std::vector<double> values;
  std::vector<std::int64_t> offsets{0};

  std::int64_t size() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

inline double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

inline Curves random_curves(std::uint64_t seed, std::int64_t longest = 3000) {
  std::mt19937_64 random(seed);
  Curves curves;
  const double scales[] = {1.0, 1.0, 3.0, 1e-300, 1e12, 1e299, 5e-324};
  for (std::int64_t i = 0; i < 90; ++i) {
    const std::int64_t length =
        i <= 40 ? i : static_cast<std::int64_t>(uniform(random) * static_cast<double>(longest));
    const double scale = scales[random() % 7];
    const double gaps = random() % 4 == 0 ? uniform(random) : 0.02;
    const bool constant = random() % 8 == 0;
    for (std::int64_t j = 0; j < length; ++j) {
      const double u = uniform(random);
      double x = scale * (constant ? 1.0 : 2.0 + u);
      if (uniform(random) < gaps) x = __builtin_nan("");
      if (random() % 500 == 0) x = u < 0.5 ? __builtin_inf() : -__builtin_inf();
      curves.values.push_back(x);
    }
    curves.offsets.push_back(static_cast<std::int64_t>(curves.values.size()));
  }
  return curves;
}

}  // namespace planner::tests
