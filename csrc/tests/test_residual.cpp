#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.hpp"
#include "pool.hpp"
#include "status.hpp"

namespace {

using namespace planner;

struct Result {
  std::vector<double> numbers[7];
  std::vector<std::int64_t> counts[7];
  std::vector<std::int32_t> status;

  bool operator==(const Result& other) const {
    for (int i = 0; i < 7; ++i) {
      const auto& a = numbers[i];
      const auto& b = other.numbers[i];
      if (std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) != 0) return false;
      if (counts[i] != other.counts[i]) return false;
    }
    return status == other.status;
  }
};

Result run(const Kernels& kernels, const tests::Curves& runs, const std::vector<double>& reference,
           int threads, bool reversed) {
  const auto n = static_cast<std::size_t>(runs.size());
  std::vector<std::int64_t> order(n);
  for (std::size_t i = 0; i < n; ++i) {
    order[i] = static_cast<std::int64_t>(reversed ? n - 1 - i : i);
  }
  Result r;
  for (int i = 0; i < 7; ++i) {
    r.numbers[i].resize(i < 5 ? n : runs.values.size());
    r.counts[i].resize(n);
  }
  r.status.resize(n);
  ResidualArgs args = {};
  args.values = runs.values.data();
  args.reference = reference.data();
  args.offsets = runs.offsets.data();
  args.order = order.data();
  args.runs = runs.size();
  args.rules = {4.5, 0.5, 8.0, 0.05, 20.0, 1000.0, 1e-12};
  args.residual = r.numbers[5].data();
  args.z = r.numbers[6].data();
  args.level = r.numbers[0].data();
  args.noise = r.numbers[1].data();
  args.slope = r.numbers[2].data();
  args.lowest = r.numbers[3].data();
  args.highest = r.numbers[4].data();
  args.n_finite = r.counts[0].data();
  args.spikes = r.counts[1].data();
  args.first_spike = r.counts[2].data();
  args.cusum_up = r.counts[3].data();
  args.cusum_down = r.counts[4].data();
  args.page_hinkley = r.counts[5].data();
  args.deviates = r.counts[6].data();
  args.status = r.status.data();
  parallel_for({(runs.size() + 7) / 8, 2, threads, nullptr},
               [&](std::int64_t begin, std::int64_t end, int) noexcept {
                 kernels.residual->score(args, begin, end);
               });
  return r;
}

}  // namespace

TEST(residual_same_bits) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    const tests::Curves runs = tests::random_curves(seed);
    std::vector<double> reference(runs.values.size(), 2.5);
    for (std::size_t i = 0; i < reference.size(); i += 97) reference[i] = __builtin_nan("");
    const Result first = run(available_levels().front().kernels, runs, reference, 1, false);
    for (const Level& level : available_levels()) {
      for (const int threads : {1, 2, 7}) {
        for (const bool reversed : {false, true}) {
          CHECK(run(level.kernels, runs, reference, threads, reversed) == first);
        }
      }
    }
  }
}
