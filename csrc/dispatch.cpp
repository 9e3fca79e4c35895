#include "dispatch.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace planner {

namespace {

constexpr const char* kNames[] = {"avx512", "avx2", "baseline", "scalar"};

std::vector<Level> detect() {
  std::vector<Level> levels;
#if defined(PLANNER_HAVE_X86_LEVELS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) levels.push_back({"avx512", &avx512::kernels});
  if (__builtin_cpu_supports("x86-64-v3")) levels.push_back({"avx2", &avx2::kernels});
#endif
#if defined(__x86_64__)
  levels.push_back({"baseline", &baseline::kernels});
#else
  levels.push_back({"scalar", &scalar::kernels});
#endif
  return levels;
}

bool known(const char* name) {
  for (const char* each : kNames) {
    if (std::strcmp(each, name) == 0) return true;
  }
  return false;
}

std::string join(const std::vector<Level>& levels) {
  std::string text;
  for (const Level& level : levels) {
    if (!text.empty()) text += ", ";
    text += level.name;
  }
  return text;
}

// What came from outside, made fit for one line of an error message.
std::string quoted(const char* text) {
  std::string out = "'";
  for (const char* p = text; *p != '\0'; ++p) {
    if (out.size() > 40) return out + "...'";
    out += (*p >= ' ' && *p <= '~') ? *p : '?';
  }
  return out + "'";
}

const Level& choose() {
  const std::vector<Level>& levels = available_levels();
  const char* wanted = std::getenv("PLANNER_SIMD");
  if (wanted == nullptr || *wanted == '\0') return levels.front();
  for (const Level& level : levels) {
    if (std::strcmp(level.name, wanted) == 0) return level;
  }
  const char* why = known(wanted) ? " is a SIMD level that this build or this CPU does not offer"
                                  : " is not a SIMD level";
  throw std::invalid_argument("PLANNER_SIMD=" + quoted(wanted) + why +
                              "; it can be: " + join(levels) + ".");
}

}  // namespace

const std::vector<Level>& available_levels() {
  static const std::vector<Level> levels = detect();
  return levels;
}

const Level& active_level() {
  static const Level& level = choose();  // a throw leaves it unset: the next call tries again
  return level;
}

std::string compiler() {
#if defined(__clang__)
  return "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__) + "." +
         std::to_string(__clang_patchlevel__);
#else
  return "gcc " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
         std::to_string(__GNUC_PATCHLEVEL__);
#endif
}

}  // namespace planner
