#include "dispatch.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace planner {

namespace {

constexpr const char* kNames[] = {"avx512", "avx2", "baseline", "scalar"};

// What each level's compiler flags ask of the CPU (CMakeLists.txt); the operating system must save
// its registers too, which __builtin_cpu_supports also checks.
#if defined(PLANNER_HAVE_X86_LEVELS)
bool cpu_runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

bool cpu_runs_avx512() {
  return cpu_runs_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd");
}
bool cpu_runs_baseline() { return true; }
#elif defined(__x86_64__)
bool cpu_runs_baseline() { return true; }
#else
bool cpu_runs_scalar() { return true; }
#endif

std::vector<Level> detect() {
#if defined(PLANNER_HAVE_X86_LEVELS)
  __builtin_cpu_init();
#endif
  std::vector<Level> levels;
#define PLANNER_TABLE(Type, name) &here::name,
#define PLANNER_ADD(level)                                          \
  if (cpu_runs_##level()) {                                         \
    namespace here = level;                                         \
    levels.push_back({#level, {PLANNER_WORKLOADS(PLANNER_TABLE)}}); \
  }
  PLANNER_LEVELS(PLANNER_ADD)
#undef PLANNER_ADD
#undef PLANNER_TABLE
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
