// Included only by kernels/level.cpp; see lanes.hpp for the rules.

struct Sums {
  Doubles sum[kParts];
  Doubles err[kParts];
  Mask count[kParts];
};

// Adds the usable ones of eight values to the eight lanes.
PLANNER_INLINE void add_lanes(Sums& t, const double* eight) {
  for (std::int64_t p = 0; p < kParts; ++p) {
    Doubles x;
    Mask usable;
    load(x, eight + p * kWidth);
    finite(usable, x);
    keep(x, usable);
    two_sum(t.sum[p], t.err[p], x);
    t.count[p] -= usable;
  }
}

static void ragged_mean(const double* values, const std::int64_t* offsets, std::int64_t n,
                        double* mean, std::int64_t* n_finite, std::int32_t* status) {
  for (std::int64_t curve = 0; curve < n; ++curve) {
    const double* at = values + offsets[curve];
    const std::int64_t points = offsets[curve + 1] - offsets[curve];

    Sums t = {};
    std::int64_t i = 0;
    for (; i + kLanes <= points; i += kLanes) add_lanes(t, at + i);
    if (i < points) {
      double tail[kLanes];
      pad(tail, at + i, points - i);
      add_lanes(t, tail);
    }

    // The fixed tree: lanes 0..3 take 4..7, then 0..1 take 2..3, then 0 takes 1.
    double s[kLanes];
    double e[kLanes];
    std::int64_t c = 0;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      s[lane] = t.sum[lane / kWidth][lane % kWidth];
      e[lane] = t.err[lane / kWidth][lane % kWidth];
      c += t.count[lane / kWidth][lane % kWidth];
    }
    for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::int64_t lane = 0; lane < half; ++lane) {
        two_sum(s[lane], e[lane], s[lane + half]);
        e[lane] += e[lane + half];
      }
    }

    const Status code = points == 0 ? Status::kEmpty : c == 0 ? Status::kNoFinite : Status::kOk;
    mean[curve] = c == 0 ? __builtin_nan("") : (s[0] + e[0]) / static_cast<double>(c);
    n_finite[curve] = c;
    status[curve] = static_cast<std::int32_t>(code);
  }
}
