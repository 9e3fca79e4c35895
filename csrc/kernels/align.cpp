// curve = divisor * candidate, for every pair. Eight candidates at a time share the loads of a
// curve. Uses fma(): baseline differs by rounding.
#include "align.hpp"

#include "../status.hpp"
#include "lanes.hpp"
#include "levels.hpp"

namespace planner::PLANNER_LEVEL {
namespace {

constexpr std::int64_t kTogether = 8;
constexpr std::int64_t kFewest = 3;
constexpr int kMostSteps = 300;

constexpr std::int64_t padded(std::int64_t n) { return (n + 15) / 8 * 8; }

std::int64_t scratch(std::int64_t grid) noexcept { return (kTogether + 4) * padded(grid); }

void squares(const double* candidates, std::int64_t grid, double* to, std::int64_t begin,
             std::int64_t end) noexcept {
  for (std::int64_t c = begin; c < end; ++c) {
    const double* const u = candidates + c * grid;
    double* const sums = to + c * (grid + 1);
    sums[0] = 0.0;
    for (std::int64_t i = 0; i < grid; ++i) sums[i + 1] = sums[i] + u[i] * u[i];
  }
}

PLANNER_INLINE Vec load_some(const double* at, std::int64_t left) {
  return left >= kLanes ? load(at) : load_tail(at, left, 0.0);
}

// The usable points of one curve and of a candidate, side by side.
struct Pair {
  const double* x;
  const double* u;
  std::int64_t n;
};

struct Fit {
  double divisor;
  double objective;
  Status status;
};

PLANNER_INLINE bool is_usable(double x) { return __builtin_fabs(x) < 1e300; }

struct Slopes {
  double gradient;  // sum of clip(r) u
  double inside;    // sum of u^2 over |r| <= delta
  double weighted;  // sum of min(1, delta / |r|) u^2
  double objective;
};

PLANNER_INLINE Slopes slopes_at(const Pair& pair, double c, double delta) {
  Vec gradient = vec(0.0);
  Vec inside = vec(0.0);
  Vec objective = vec(0.0);
  const Vec limit = vec(delta);
  for (std::int64_t i = 0; i < pair.n; i += kLanes) {
    const Vec x = load_some(pair.x + i, pair.n - i);
    const Vec u = load_some(pair.u + i, pair.n - i);
    const Vec r = fnma(u, c, x);
    const Vec size = abs(r);
    const Vec clipped = max(min(r, limit), -limit);
    gradient = fma(clipped, u, gradient);
    inside = inside + keep(u * u, size <= limit);
    // rho = clip(r) (r - clip(r) / 2)
    objective = fma(clipped, fnma(clipped, 0.5, r), objective);
  }
  return {sum(gradient), sum(inside), 0.0, sum(objective)};
}

PLANNER_INLINE double weight_at(const Pair& pair, double c, double delta) {
  Vec weighted = vec(0.0);
  for (std::int64_t i = 0; i < pair.n; i += kLanes) {
    const Vec x = load_some(pair.x + i, pair.n - i);
    const Vec u = load_some(pair.u + i, pair.n - i);
    const Vec size = abs(fnma(u, c, x));
    weighted = weighted + select(size <= vec(delta), u * u, u * u * (delta / size));
  }
  return sum(weighted);
}

// Newton's steps inside a bracket, of a convex function of one variable. Where one leaves the
// bracket or is not half the step before, a secant or half of the bracket; before there is one, the
// step of reweighted least squares, which descends.
PLANNER_INLINE Fit huber(const Pair& pair, double c, double delta) {
  double low = -kInf;
  double high = kInf;
  double low_gradient = 0.0;
  double high_gradient = 0.0;
  double moved = kInf;
  bool halve = false;
  Slopes at = slopes_at(pair, c, delta);
  for (int step = 0; step < kMostSteps; ++step) {
    const double close = 1e-13 * __builtin_fabs(c);
    if (at.gradient == 0.0 || high - low <= close ||
        (at.inside > 0.0 && __builtin_fabs(at.gradient) <= close * at.inside)) {
      return {c, at.objective, Status::kOk};
    }
    if (at.gradient > 0.0) {
      low = c;
      low_gradient = at.gradient;
    } else {
      high = c;
      high_gradient = at.gradient;
    }
    double next = at.inside > 0.0 ? c + at.gradient / at.inside : kNan;
    if (!(next > low && next < high && __builtin_fabs(next - c) <= 0.5 * moved)) {
      if (low > -kInf && high < kInf) {
        next = halve ? low + 0.5 * (high - low)
                     : low + (high - low) * (low_gradient / (low_gradient - high_gradient));
        halve = !halve;
      } else if (!(next > low && next < high)) {
        next = c + at.gradient / weight_at(pair, c, delta);
      }
    }
    if (!(__builtin_fabs(next) < 1e300)) return {c, at.objective, Status::kStalled};
    moved = __builtin_fabs(next - c);
    c = next;
    at = slopes_at(pair, c, delta);
  }
  return {c, at.objective, Status::kMaxIterations};
}

// The weighted median of x / u with weights |u|, by selection in place.
PLANNER_INLINE Fit least_absolute(const Pair& pair, double* ratio, double* weight) {
  std::int64_t n = 0;
  double total = 0.0;
  for (std::int64_t i = 0; i < pair.n; ++i) {
    const double w = __builtin_fabs(pair.u[i]);
    const double q = pair.x[i] / pair.u[i];
    if (!(w > 0.0) || !is_usable(q)) continue;
    ratio[n] = q;
    weight[n] = w;
    total += w;
    ++n;
  }
  if (n == 0) return {kNan, kNan, Status::kNonFinite};
  const double half = 0.5 * total;
  double below = 0.0;  // weight left of the part that is still searched
  std::int64_t from = 0;
  std::int64_t to = n;
  double c = ratio[0];
  while (to > from) {
    const double a = ratio[from];
    const double b = ratio[from + (to - from) / 2];
    const double d = ratio[to - 1];
    const double pivot = a < b ? (b < d ? b : a < d ? d : a) : (a < d ? a : b < d ? d : b);
    // [from, i) less, [i, k) equal, [k, to) greater
    std::int64_t i = from;
    std::int64_t j = from;
    std::int64_t k = to;
    double less = 0.0;
    double equal = 0.0;
    while (j < k) {
      const double q = ratio[j];
      const double w = weight[j];
      if (q < pivot) {
        less += w;
        ratio[j] = ratio[i];
        weight[j] = weight[i];
        ratio[i] = q;
        weight[i++] = w;
        ++j;
      } else if (q > pivot) {
        --k;
        ratio[j] = ratio[k];
        weight[j] = weight[k];
        ratio[k] = q;
        weight[k] = w;
      } else {
        equal += w;
        ++j;
      }
    }
    c = pivot;
    if (below + less >= half && i > from) {
      to = i;
    } else if (below + less + equal >= half || k == to) {
      break;
    } else {
      below += less + equal;
      from = k;
    }
  }
  Vec objective = vec(0.0);
  for (std::int64_t i = 0; i < pair.n; i += kLanes) {
    const Vec x = load_some(pair.x + i, pair.n - i);
    objective = objective + abs(fnma(load_some(pair.u + i, pair.n - i), c, x));
  }
  return {c, sum(objective), Status::kOk};
}

// The long-run variance of signs over their variance, where neighbours have correlation s and the
// noise below is a normal AR(1): its correlation is r = sin(pi s / 2), and signs k apart have
// 2 asin(r^k) / pi. Signs forget more slowly than an AR(1) of their own.
PLANNER_INLINE double sign_variance(double s) {
  if (!(s > 0.0)) return 1.0;
  const double y = 1.5707963267948966 * (s < 1.0 ? s : 1.0);
  const double yy = y * y;
  double r = y * (1.0 - yy / 6.0 * (1.0 - yy / 20.0 * (1.0 - yy / 42.0 * (1.0 - yy / 72.0))));
  r = r > 0.97 ? 0.97 : r;
  double total = 0.0;
  double coefficient = 1.0;  // of asin: 1, 1/6, 3/40, ...
  double power = r;
  for (int j = 0; j < 20; ++j) {
    total += coefficient / (2 * j + 1) * power / (1.0 - power);
    coefficient *= (2.0 * j + 1.0) / (2.0 * j + 2.0);
    power *= r * r;
  }
  return 1.0 + 2.0 * 0.6366197723675814 * total;
}

// sqrt(long-run variance of the scores) / curvature. The scores are prewhitened by an AR(1)
// (Andrews and Monahan 1992), what is left gets Bartlett weights (Newey and West 1987).
PLANNER_INLINE double standard_error(const Pair& pair, double c, Alignment method, double delta,
                                     double* score) {
  const std::int64_t n = pair.n;
  double curvature = 0.0;
  if (method == Alignment::kLeastAbsolute) {
    double spread = 0.0;
    for (std::int64_t i = 0; i < n; ++i) {
      spread += __builtin_fabs(pair.x[i] - c * pair.u[i]);
    }
    // A normal's sigma from its mean absolute deviation; n^(-1/5) by three square roots or so:
    // n^(-3/16) does as well.
    const double root = __builtin_sqrt(__builtin_sqrt(__builtin_sqrt(static_cast<double>(n))));
    const double h = 1.2533 * spread / static_cast<double>(n) / (root * __builtin_sqrt(root));
    for (std::int64_t i = 0; i < n; ++i) {
      const double r = pair.x[i] - c * pair.u[i];
      if (__builtin_fabs(r) < h) curvature += pair.u[i] * pair.u[i] / h;
      score[i] = r > 0.0 ? pair.u[i] : r < 0.0 ? -pair.u[i] : 0.0;
    }
  } else {
    const double limit = method == Alignment::kHuber ? delta : kInf;
    for (std::int64_t i = 0; i < n; ++i) {
      const double r = pair.x[i] - c * pair.u[i];
      const bool in = __builtin_fabs(r) <= limit;
      if (in) curvature += pair.u[i] * pair.u[i];
      score[i] = pair.u[i] * (in ? r : r > 0.0 ? limit : -limit);
    }
  }
  if (!(curvature > 0.0)) return kNan;
  double own = 0.0;
  double next = 0.0;
  for (std::int64_t i = 0; i < n; ++i) own += score[i] * score[i];
  for (std::int64_t i = 1; i < n; ++i) next += score[i] * score[i - 1];
  const auto count = static_cast<double>(n);
  double rho = own > 0.0 ? next / own : 0.0;
  // Its bias, of about -(1 + 3 rho) / n, taken off.
  rho += rho > 0.0 ? (1.0 + 3.0 * rho) / count : 0.0;
  const double signs = sign_variance(rho) * own;
  rho = rho > 0.97 ? 0.97 : rho < -0.97 ? -0.97 : rho;
  for (std::int64_t i = n - 1; i > 0; --i) score[i] -= rho * score[i - 1];
  score[0] *= __builtin_sqrt(1.0 - rho * rho);
  std::int64_t lags = 0;  // 1.4 n^(1/3)
  while (lags < n - 1 && static_cast<double>((lags + 1) * (lags + 1) * (lags + 1)) < 2.6 * count) {
    ++lags;
  }
  double variance = 0.0;
  for (std::int64_t lag = 0; lag <= lags; ++lag) {
    double product = 0.0;
    for (std::int64_t i = lag; i < n; ++i) product += score[i] * score[i - lag];
    const double part = 1.0 - static_cast<double>(lag) / static_cast<double>(lags + 1);
    variance += (lag == 0 ? 1.0 : 2.0) * part * product;
  }
  if (!(variance > 0.0)) variance = 0.0;
  variance *= count / (count - 1.0);
  variance /= (1.0 - rho) * (1.0 - rho);
  if (method == Alignment::kLeastAbsolute) variance = variance > signs ? variance : signs;
  return __builtin_sqrt(variance) / curvature;
}

// Products of x with eight rows. Written out: an array of vectors would live in memory.
PLANNER_INLINE void multiply(const double* from, const double* const (&u)[kTogether],
                             std::int64_t n, double (&to)[kTogether]) {
  const double* const u0 = u[0];
  const double* const u1 = u[1];
  const double* const u2 = u[2];
  const double* const u3 = u[3];
  const double* const u4 = u[4];
  const double* const u5 = u[5];
  const double* const u6 = u[6];
  const double* const u7 = u[7];
  Vec p0 = vec(0.0);
  Vec p1 = vec(0.0);
  Vec p2 = vec(0.0);
  Vec p3 = vec(0.0);
  Vec p4 = vec(0.0);
  Vec p5 = vec(0.0);
  Vec p6 = vec(0.0);
  Vec p7 = vec(0.0);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec x = load(from + i);
    p0 = fma(x, load(u0 + i), p0);
    p1 = fma(x, load(u1 + i), p1);
    p2 = fma(x, load(u2 + i), p2);
    p3 = fma(x, load(u3 + i), p3);
    p4 = fma(x, load(u4 + i), p4);
    p5 = fma(x, load(u5 + i), p5);
    p6 = fma(x, load(u6 + i), p6);
    p7 = fma(x, load(u7 + i), p7);
  }
  if (i < n) {
    const Vec x = load_tail(from + i, n - i, 0.0);
    p0 = fma(x, load_tail(u0 + i, n - i, 0.0), p0);
    p1 = fma(x, load_tail(u1 + i, n - i, 0.0), p1);
    p2 = fma(x, load_tail(u2 + i, n - i, 0.0), p2);
    p3 = fma(x, load_tail(u3 + i, n - i, 0.0), p3);
    p4 = fma(x, load_tail(u4 + i, n - i, 0.0), p4);
    p5 = fma(x, load_tail(u5 + i, n - i, 0.0), p5);
    p6 = fma(x, load_tail(u6 + i, n - i, 0.0), p6);
    p7 = fma(x, load_tail(u7 + i, n - i, 0.0), p7);
  }
  to[0] = sum(p0);
  to[1] = sum(p1);
  to[2] = sum(p2);
  to[3] = sum(p3);
  to[4] = sum(p4);
  to[5] = sum(p5);
  to[6] = sum(p6);
  to[7] = sum(p7);
}

void align_curves(const AlignArgs& args, std::int64_t begin, std::int64_t end,
                  double* memory) noexcept {
  const std::int64_t grid = args.grid;
  double* const kept = memory;
  double* const ratio = kept + padded(grid);
  double* const weight = ratio + padded(grid);
  double* const score = weight + padded(grid);
  double* const copies = score + padded(grid);
  for (std::int64_t curve = begin; curve < end; ++curve) {
    const double* const all = args.curves + curve * grid;
    std::int64_t n = 0;
    std::int64_t first = 0;
    std::int64_t last = -1;
    double xx = 0.0;
    for (std::int64_t i = 0; i < grid; ++i) {
      if (!is_usable(all[i])) continue;
      if (n == 0) first = i;
      last = i;
      kept[n++] = all[i];
      xx += all[i] * all[i];
    }
    const bool gaps = n != last - first + 1;
    args.n_finite[curve] = n;
    for (std::int64_t c0 = 0; c0 < args.n_candidates; c0 += kTogether) {
      const std::int64_t left = args.n_candidates - c0;
      const std::int64_t together = left < kTogether ? left : kTogether;
      const double* u[kTogether];
      double uu[kTogether];
      for (std::int64_t k = 0; k < kTogether; ++k) {
        // Past the last candidate: the last one again.
        const std::int64_t c = k < together ? c0 + k : c0 + together - 1;
        const double* const row = args.candidates + c * grid;
        if (!gaps) {
          u[k] = row + first;
          const double* const sums = args.squares + c * (grid + 1);
          uu[k] = n > 0 ? sums[last + 1] - sums[first] : 0.0;
          continue;
        }
        double* const to = copies + k * padded(grid);
        std::int64_t at = 0;
        double total = 0.0;
        for (std::int64_t i = first; i <= last; ++i) {
          if (!is_usable(all[i])) continue;
          to[at++] = row[i];
          total += row[i] * row[i];
        }
        u[k] = to;
        uu[k] = total;
      }
      double products[kTogether];
      multiply(kept, u, n, products);
      for (std::int64_t k = 0; k < together; ++k) {
        const std::int64_t at = curve * args.n_candidates + c0 + k;
        const Pair pair = {kept, u[k], n};
        const double xu = products[k];
        Fit found = {xu / uu[k], 0.0, Status::kOk};
        if (n < kFewest) {
          found.status = n == 0 ? Status::kNonFinite : Status::kTooFewPoints;
        } else if (!is_usable(found.divisor)) {
          found.status = Status::kNonFinite;
        } else if (args.method == Alignment::kLeastSquares) {
          found.objective = 0.5 * (xx - found.divisor * xu);
          if (found.objective < 0.0) found.objective = 0.0;
        } else if (args.method == Alignment::kHuber) {
          found = huber(pair, found.divisor, args.delta[curve]);
        } else {
          found = least_absolute(pair, ratio, weight);
        }
        const bool good = is_usable(found.divisor) && is_usable(found.objective) &&
                          found.status != Status::kTooFewPoints &&
                          found.status != Status::kNonFinite;
        if (!good && found.status == Status::kOk) found.status = Status::kNonFinite;
        args.divisor[at] = good ? found.divisor : kNan;
        args.objective[at] = good ? found.objective : kNan;
        args.status[at] = static_cast<std::int32_t>(found.status);
        if (args.error != nullptr) {
          const double delta = args.method == Alignment::kHuber ? args.delta[curve] : 0.0;
          args.error[at] =
              good ? standard_error(pair, found.divisor, args.method, delta, score) : kNan;
        }
      }
    }
  }
}

}  // namespace

const AlignKernels align = {scratch, squares, align_curves};

}  // namespace planner::PLANNER_LEVEL
