// Fuzzing of every kernel over ragged input: any bytes make curves, any doubles are in them, and at
// every level each kernel must stay inside its arrays, end, and give each curve a known status.
//
//   kernel_fuzz                               with clang: libFuzzer (its options apply)
//   kernel_fuzz [SECONDS [FIRST SEED]]        with other compilers: seeds in order, for so long
#include "fuzz.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "check.hpp"
#include "status.hpp"

namespace planner::fuzz {

namespace {

void known_status(std::int32_t status) {
  switch (static_cast<Status>(status)) {
#define PLANNER_STATUS(name, value, text) case Status::k##name:
    PLANNER_STATUSES(PLANNER_STATUS)
#undef PLANNER_STATUS
    return;
  }
  std::abort();
}

// Vectors of exactly the size of their contents, so that the sanitizer sees one element too far.
void ragged_mean(const Kernels& kernels, const Input& input) {
  const auto n = static_cast<std::size_t>(input.curves());
  std::vector<double> mean(n);
  std::vector<std::int64_t> n_finite(n);
  std::vector<std::int32_t> status(n, -1);
  kernels.ragged->mean(
      {input.values.data(), input.offsets.data(), mean.data(), n_finite.data(), status.data()}, 0,
      input.curves());
  for (const std::int32_t each : status) known_status(each);
}

void math(const Kernels& kernels, const Input& input) {
  std::vector<double> y(input.values.size());
  const auto n = static_cast<std::int64_t>(y.size());
  const MathKernels& m = *kernels.math;
  for (const MathKernels::Unary f : {m.exp, m.exp_bounded, m.log, m.log_normal, m.log1p}) {
    f(input.values.data(), y.data(), n);
  }
  m.pow(input.values.data(), input.values.data(), y.data(), n);
}

// One line per kernel.
constexpr void (*kTargets[])(const Kernels&, const Input&) = {ragged_mean, math};

}  // namespace

void run(const Input& input) {
  for (const Level& level : available_levels()) {
    for (const auto target : kTargets) target(level.kernels, input);
  }
}

}  // namespace planner::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  planner::fuzz::run(planner::fuzz::decode(data, size));
  return 0;
}

#if defined(PLANNER_OWN_FUZZ_DRIVER)
#include <chrono>

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10.0;
  std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t runs = 0;
  std::vector<std::uint8_t> bytes;
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
         seconds) {
    std::mt19937_64 random(seed);
    bytes.resize(random() % (random() % 8 == 0 ? 20000 : 600));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    ++seed;
    ++runs;
  }
  std::printf("%llu inputs, last seed %llu: no error\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(seed - 1));
  return 0;
}
#endif
