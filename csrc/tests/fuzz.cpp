// Fuzzing of every kernel over ragged input: any bytes make curves, any doubles are in them, and at
// every level each kernel must stay inside its arrays, end, and give each curve a known status.
//
//   kernel_fuzz                               with clang: libFuzzer (its options apply)
//   kernel_fuzz [SECONDS [FIRST SEED]]        with other compilers: seeds in order, for so long
#include "fuzz.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "schedule_terms.hpp"
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

// Each curve's values as the runs of a loss law, cut to what the binding lets in.
void losslaw(const Kernels& kernels, const Input& input) {
  for (std::int64_t curve = 0; curve < std::min<std::int64_t>(input.curves(), 2); ++curve) {
    const auto from = static_cast<std::size_t>(input.offsets[static_cast<std::size_t>(curve)]);
    const auto to = static_cast<std::size_t>(input.offsets[static_cast<std::size_t>(curve) + 1]);
    const std::size_t points = std::min<std::size_t>((to - from) / 3, 60);
    if (points == 0) continue;
    const std::size_t padded = (points + 7) / 8 * 8;
    std::vector<double> columns(5 * padded, 0.0);
    for (std::size_t i = 0; i < points; ++i) {
      for (std::size_t j = 0; j < 3; ++j) {
        const double x = input.values[from + 3 * i + j];
        columns[j * padded + i] = std::abs(x) < 1e6 ? x : 1.0;
      }
      columns[3 * padded + i] = 1.0;
      columns[4 * padded + i] = std::abs(columns[i]);
    }
    double limits[2] = {0.0, 0.0};
    for (std::size_t i = 0; i < points; ++i) {
      limits[0] = std::max(limits[0], std::abs(columns[i]));
      limits[1] =
          std::max(limits[1], std::abs(columns[padded + i]) + std::log1p(columns[4 * padded + i]));
    }
    LossLaw law = {columns.data(),
                   columns.data() + padded,
                   columns.data() + 2 * padded,
                   input.options[0] % 2 == 0 ? nullptr : columns.data() + 4 * padded,
                   columns.data() + 3 * padded,
                   static_cast<std::int64_t>(points),
                   static_cast<std::int64_t>(padded),
                   limits[0],
                   limits[1],
                   {-60, -60, -30, 0, 0, -4},
                   {60, 60, 30, 3, 3, 9},
                   input.options[1] % 2 == 0,
                   1e-3};
    std::vector<double> starts(18, 0.5), theta(18), objective(3), screened(18), score(3);
    starts[6] = input.options[2] - 128.0;
    starts[13] = input.options[3] - 128.0;
    std::vector<std::int32_t> evaluations(3), status(3, -1);
    std::vector<double> room(static_cast<std::size_t>(losslaw_screen_scratch()));
    const LosslawKernels& k = *kernels.losslaw;
    k.screen({law, starts.data(), 3, 2, 3, 0.3, 0.03, screened.data(), score.data()}, 0, 1,
             room.data());
    room.resize(static_cast<std::size_t>(losslaw_fit_scratch(law.padded)));
    k.fit({law, starts.data(), 40, input.options[4] % 2 == 0, theta.data(), objective.data(),
           evaluations.data(), status.data()},
          0, 3, room.data());
    for (const std::int32_t each : status) known_status(each);
    std::vector<std::uint8_t> counts(3 * points, input.options[5]);
    k.refit({law, counts.data(), starts.data(), 3, 20, theta.data(), objective.data(),
             evaluations.data(), status.data()},
            0, 3, room.data());
    for (const std::int32_t each : status) known_status(each);
  }
}

// Each curve's values as a schedule.
void schedule(const Kernels& kernels, const Input& input) {
  for (std::int64_t curve = 0; curve < std::min<std::int64_t>(input.curves(), 2); ++curve) {
    const auto from = static_cast<std::size_t>(input.offsets[static_cast<std::size_t>(curve)]);
    const auto to = static_cast<std::size_t>(input.offsets[static_cast<std::size_t>(curve) + 1]);
    std::vector<double> lr(input.values.begin() + static_cast<std::ptrdiff_t>(from),
                           input.values.begin() + static_cast<std::ptrdiff_t>(to));
    if (lr.empty()) continue;
    for (double& x : lr) x = std::abs(x) < 1e100 ? std::abs(x) : 1.0;
    ScheduleBlocks blocks(lr.data(), static_cast<std::int64_t>(lr.size()),
                          input.options[0] % 2 == 0);
    std::vector<double> s, log_lr, w, log_area;
    std::vector<std::int64_t> first{0};
    for (std::size_t step = 0; step < lr.size(); step += lr.size() / 20 + 1) {
      blocks.append(static_cast<std::int64_t>(step), s, log_lr, w);
      first.push_back(static_cast<std::int64_t>(s.size()));
      log_area.push_back(std::log(std::max(blocks.area(static_cast<std::int64_t>(step)), 1e-100)));
    }
    const std::size_t targets = log_area.size();
    const ScheduleTerms terms = {s.data(), log_lr.data(), w.data(), first.data(), log_area.data()};
    std::vector<double> loss(targets, 1.0), gradient(7 * targets), weights(targets, 1.0);
    std::vector<double> theta = {1.0, 0.0, 0.5, -2.0, -1.0, -0.5, 0.7};
    const auto n = static_cast<std::int64_t>(targets);
    kernels.schedule->predict({terms, theta.data(), loss.data(), gradient.data()}, 0, n);
    for (double& x : loss) x = x > 1e-300 && x < 1e300 ? std::log(x) : 0.0;
    const std::vector<double> lower = {0, -40, 0, -60, -30, -6, -1};
    const std::vector<double> upper = {1e5, 60, 2, 60, 30, 2, 2};
    std::vector<double> end(7), objective(1);
    std::vector<std::int32_t> evaluations(1), status(1, -1);
    std::vector<double> scratch(static_cast<std::size_t>(schedule_fit_scratch(n)));
    kernels.schedule->fit({terms, n, 1 + input.options[1] % 4, loss.data(), weights.data(),
                           lower.data(), upper.data(), 1e-3, 20, theta.data(), end.data(),
                           objective.data(), evaluations.data(), status.data()},
                          0, 1, scratch.data());
    known_status(status[0]);
  }
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
  const Scratch tables(1, kernels.align->tables(grid, m));
  std::vector<double> delta(size(n), input.options[2] * 0.125);
  std::vector<double> divisor(size(n * m));
  std::vector<double> objective(size(n * m));
  std::vector<double> error(size(n * m));
  std::vector<std::int64_t> n_finite(size(n));
  std::vector<std::int32_t> status(size(n * m), -1);
  std::vector<std::int32_t> iterations(size(n * m));
  const Scratch scratch(1, kernels.align->scratch(grid, m));
  const AlignArgs args = {curves.data(),
                          candidates.data(),
                          tables.of(0),
                          n,
                          m,
                          grid,
                          static_cast<Alignment>(input.options[3] % 3),
                          delta.data(),
                          divisor.data(),
                          objective.data(),
                          input.options[4] % 2 == 0 ? error.data() : nullptr,
                          n_finite.data(),
                          status.data(),
                          iterations.data()};
  kernels.align->prepare(args, 0, kernels.align->panels(m));
  kernels.align->align(args, 0, n, scratch.of(0));
  for (const std::int32_t each : status) known_status(each);
}

// One line per kernel.
constexpr void (*kTargets[])(const Kernels&, const Input&) = {
    ragged_mean, math, fit, losslaw, schedule, smooth, residual, align,
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
