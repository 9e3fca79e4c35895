// From bytes to ragged input. Written so that a fuzzer's small changes to the bytes are small
// changes to the curves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace planner::fuzz {

struct Input {
  std::vector<double> values;
  std::vector<std::int64_t> offsets{0};
  std::vector<std::uint8_t> options;  // eight bytes for a kernel's own parameters

  std::int64_t curves() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

// Eight option bytes; then curves: a length byte (above 200: times 8), then for each point a byte
// that picks its kind, followed by eight bytes where the kind is "any double".
inline Input decode(const std::uint8_t* data, std::size_t size) {
  Input input;
  std::size_t at = 0;
  const auto next = [&]() -> std::uint8_t { return at < size ? data[at++] : std::uint8_t{0}; };
  for (int i = 0; i < 8; ++i) input.options.push_back(next());
  while (at < size) {
    const int byte = next();
    const int length = byte > 200 ? byte * 8 : byte;
    for (int i = 0; i < length; ++i) {
      double x = 0.0;
      const int kind = next();
      if (kind < 160) {
        x = 2.0 + kind * 0.01;
      } else if (kind < 176) {
        x = __builtin_nan("");
      } else if (kind < 184) {
        x = kind % 2 == 0 ? __builtin_inf() : -__builtin_inf();
      } else if (kind < 192) {
        x = kind % 2 == 0 ? 5e-324 : -1e299;
      } else if (kind < 200) {
        x = -x;
      } else {
        std::uint8_t raw[8];
        for (std::uint8_t& each : raw) each = next();
        std::memcpy(&x, raw, sizeof x);
      }
      input.values.push_back(x);
    }
    input.offsets.push_back(static_cast<std::int64_t>(input.values.size()));
  }
  return input;
}

}  // namespace planner::fuzz
