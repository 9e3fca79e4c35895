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

// Any doubles as x, eta and weights too; options pick the model, what is free, and the extras.
void fit(const Kernels& kernels, const Input& input) {
  const std::vector<std::uint8_t>& o = input.options;
  const auto n = static_cast<std::size_t>(input.curves());
  FitArgs args = {};
  args.model = static_cast<FitModel>(o[0] % 3);
  const std::size_t np = args.model == FitModel::kPower ? 4 : 6;
  std::vector<double> x(input.values.rbegin(), input.values.rend());
  if (o[1] % 4 != 0) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i % 977) / 500.0;
  }
  const std::vector<double> eta = o[2] % 2 == 0 ? input.values : std::vector<double>(x.size(), 0.3);
  const std::vector<double> ends(n, 0.1);
  const double infinity = __builtin_inf();
  const double nan = __builtin_nan("");
  std::vector<double> lower = {-13.8, 0.0, -2.0, 0.02, 0.0, 0.5};
  std::vector<double> upper = {2.3, 5.0, 5.0, 20.0, 1.0, 2.0};
  std::vector<double> starts = {-5.0, 0.1, 0.1, 0.5, 0.1, nan, -3.0, 0.1, 0.1, 2.0, 0.1, nan};
  if (np == 4) {
    lower = {-infinity, -infinity, -3.0, -1.0};
    upper = {infinity, infinity, 5.0, 10.0};
    starts = {nan, nan, 0.3, 0.1, nan, nan, 1.0, 1.0};
  }
  for (std::size_t p = 0; p < np; ++p) {
    if ((o[3] >> p & 1) != 0) lower[p] = upper[p] = 0.1;
  }
  const double delta = o[4] % 3 == 0 ? infinity : 0.01;
  const std::size_t replicates = o[5] % 4 == 0 ? 2 : 0;
  std::vector<double> theta(n * np);
  std::vector<double> objective(n);
  std::vector<double> cov(n * np * np);
  std::vector<double> rho(n);
  std::vector<double> samples(n * np * replicates);
  std::vector<std::int64_t> counts[4];
  for (std::vector<std::int64_t>& each : counts) each.resize(n);
  std::vector<std::int32_t> status(n, -1);
  args.y = input.values.data();
  args.x = x.data();
  args.eta = eta.data();
  args.weights = o[6] % 4 == 0 ? input.values.data() : nullptr;
  args.offsets = input.offsets.data();
  args.eta_end = ends.data();
  args.lower = lower.data();
  args.upper = upper.data();
  args.delta = &delta;
  args.starts = starts.data();
  args.n_starts = args.n_thin_starts = 2;
  args.brute = o[7] % 4 == 0;
  args.ftol = 1e-8;
  args.max_iterations = 12;
  args.replicates = static_cast<std::int64_t>(replicates);
  for (std::size_t i = 0; i < n; ++i) {
    args.longest = std::max(args.longest, input.offsets[i + 1] - input.offsets[i]);
  }
  args.theta = theta.data();
  args.objective = objective.data();
  args.covariance = o[7] % 2 == 0;
  args.cov = args.covariance ? cov.data() : nullptr;
  args.autocorrelation = args.covariance ? rho.data() : nullptr;
  args.samples = replicates > 0 ? samples.data() : nullptr;
  args.evaluations = counts[0].data();
  args.coarse_evaluations = counts[1].data();
  args.iterations = counts[2].data();
  args.n_points = counts[3].data();
  args.status = status.data();
  std::vector<double> scratch(static_cast<std::size_t>(kernels.fit->scratch(args.longest)), nan);
  kernels.fit->fit(args, 0, input.curves(), scratch.data());
  for (const std::int32_t each : status) known_status(each);
}

// One line per kernel.
constexpr void (*kTargets[])(const Kernels&, const Input&) = {fit, ragged_mean, math};

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
