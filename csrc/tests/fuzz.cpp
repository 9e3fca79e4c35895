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

// Options: kind, window, grid, and what is given. Grid, positions and totals are any doubles.
void smooth(const Kernels& kernels, const Input& input) {
  const auto n = static_cast<std::size_t>(input.curves());
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    longest = std::max(longest, input.offsets[i + 1] - input.offsets[i]);
  }
  const std::uint8_t* const options = input.options.data();
  const auto kind = static_cast<Smoothing>(options[0] % 3);
  const double width = kind == Smoothing::kExponential ? (options[1] + 1) / 256.0 : options[1];
  std::vector<double> widths(n, width);
  if (options[2] % 4 == 0) std::fill(widths.begin(), widths.end(), width * 1e17);
  for (std::size_t i = 0; options[2] % 4 == 1 && i < n; ++i)
    widths[i] = input.values.empty() ? 0.0 : input.values[i % input.values.size()];
  std::vector<double> grid(options[3] % 100);
  for (std::size_t k = 0; k < grid.size(); ++k) {
    grid[k] = options[4] % 4 == 0 && k < input.values.size() ? input.values[k]
                                                             : static_cast<double>(k) * 0.0125;
  }
  std::vector<double> given(n, options[5] * 8.0);
  for (std::size_t i = 0; options[5] % 4 == 0 && i < n; ++i)
    given[i] = input.values.empty() ? 0.0 : input.values[i % input.values.size()];
  std::vector<double> smoothed(input.values.size());
  std::vector<double> resampled(n * grid.size());
  std::vector<double> divisor(n);
  std::vector<std::int64_t> n_finite(n);
  std::vector<std::int32_t> status(n, -1);
  const SmoothInput in = {input.values.data(), input.offsets.data(), widths.data(), kind};
  const auto points = static_cast<std::int64_t>(grid.size());
  std::vector<double> scratch(static_cast<std::size_t>(kernels.smooth->scratch(longest, points)));
  kernels.smooth->smooth({in, smoothed.data(), n_finite.data(), status.data()}, 0, input.curves(),
                         scratch.data());
  for (const std::int32_t each : status) known_status(each);
  const bool placed = options[6] % 3 == 0;
  kernels.smooth->resample(
      {in, grid.data(), points, placed ? input.values.data() : nullptr,
       !placed && options[6] % 2 == 0 ? given.data() : nullptr,
       options[7] % 3 == 0 ? given.data() : nullptr, options[7] % 2 == 0, options[7] * 0.25,
       resampled.data(), divisor.data(), n_finite.data(), status.data()},
      0, input.curves(), scratch.data());
  for (const std::int32_t each : status) known_status(each);
}

// The reference is the values, from the other end.
void residual(const Kernels& kernels, const Input& input) {
  const auto n = static_cast<std::size_t>(input.curves());
  const std::vector<double> reference(input.values.rbegin(), input.values.rend());
  std::vector<std::int64_t> order(n);
  for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::int64_t>(n - 1 - i);
  const std::uint8_t* const options = input.options.data();
  std::vector<double> numbers[5];
  std::vector<std::int64_t> counts[7];
  for (auto& each : numbers) each.resize(n);
  for (auto& each : counts) each.resize(n);
  std::vector<double> residuals(input.values.size());
  std::vector<double> z(input.values.size());
  std::vector<std::int32_t> status(n, -1);
  ResidualArgs args = {};
  args.values = input.values.data();
  args.reference = reference.data();
  args.offsets = input.offsets.data();
  args.order = order.data();
  args.runs = input.curves();
  args.rules = {options[0] / 32.0, options[1] / 128.0, options[2] / 8.0, options[3] / 256.0,
                options[4] / 8.0,  options[5] * 8.0,   options[6] / 64.0};
  if (options[7] % 2 == 0) args.residual = residuals.data();
  if (options[7] % 4 == 0) args.z = z.data();
  args.level = numbers[0].data();
  args.noise = numbers[1].data();
  args.slope = numbers[2].data();
  args.lowest = numbers[3].data();
  args.highest = numbers[4].data();
  args.n_finite = counts[0].data();
  args.spikes = counts[1].data();
  args.first_spike = counts[2].data();
  args.cusum_up = counts[3].data();
  args.cusum_down = counts[4].data();
  args.page_hinkley = counts[5].data();
  args.deviates = counts[6].data();
  args.status = status.data();
  kernels.residual->score(args, 0, (input.curves() + 7) / 8);
  for (const std::int32_t each : status) known_status(each);
}

// The values in rows of up to 64 points: the first are candidates, the others curves.
void align(const Kernels& kernels, const Input& input) {
  const std::int64_t grid = input.options[0] % 64 + 1;
  const auto rows = static_cast<std::int64_t>(input.values.size()) / grid;
  const std::int64_t m = rows < 1 ? 0 : input.options[1] % std::min<std::int64_t>(rows, 9);
  const std::int64_t n = rows - m;
  const auto size = [](std::int64_t k) { return static_cast<std::size_t>(k); };
  const std::vector<double> candidates(input.values.begin(), input.values.begin() + m * grid);
  const std::vector<double> curves(input.values.begin() + m * grid,
                                   input.values.begin() + rows * grid);
  std::vector<double> squares(size(m * (grid + 1)));
  std::vector<double> delta(size(n), input.options[2] * 0.125);
  std::vector<double> divisor(size(n * m));
  std::vector<double> objective(size(n * m));
  std::vector<double> error(size(n * m));
  std::vector<std::int64_t> n_finite(size(n));
  std::vector<std::int32_t> status(size(n * m), -1);
  std::vector<double> scratch(size(kernels.align->scratch(grid)));
  kernels.align->squares(candidates.data(), grid, squares.data(), 0, m);
  kernels.align->align(
      {curves.data(), candidates.data(), squares.data(), m, grid,
       static_cast<Alignment>(input.options[3] % 3), delta.data(), divisor.data(), objective.data(),
       input.options[4] % 2 == 0 ? error.data() : nullptr, n_finite.data(), status.data()},
      0, n, scratch.data());
  for (const std::int32_t each : status) known_status(each);
}

// One line per kernel.
constexpr void (*kTargets[])(const Kernels&, const Input&) = {
    ragged_mean, math, smooth, residual, align,
};

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
