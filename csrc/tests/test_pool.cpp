#include <atomic>
#include <thread>

#include "pool.hpp"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.hpp"

#if defined(__SANITIZE_THREAD__)
#define PLANNER_THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PLANNER_THREAD_SANITIZER
#endif
#endif

namespace {

using planner::Batch;
using planner::parallel_for;

// Each item once, and no worker number out of range or held twice at a time.
bool covers(std::int64_t items, std::int64_t chunk, int threads) {
  const Batch batch = {items, chunk, threads, nullptr};
  std::vector<int> seen(static_cast<std::size_t>(items), 0);
  const int workers = planner::threads_for(batch);
  std::vector<std::atomic<int>> held(static_cast<std::size_t>(workers));
  std::atomic<bool> good{true};
  const bool done =
      parallel_for(batch, [&](std::int64_t begin, std::int64_t end, int worker) noexcept {
        if (worker < 0 || worker >= workers || held[static_cast<std::size_t>(worker)]++ != 0) {
          good = false;
          return;
        }
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        --held[static_cast<std::size_t>(worker)];
      });
  for (const int times : seen) good = good && times == 1;
  return done && good;
}

}  // namespace

TEST(pool_covers_every_item_once) {
  for (const std::int64_t items : {0, 1, 2, 7, 64, 1000}) {
    for (const std::int64_t chunk : {0, 1, 3, 16, 5000}) {
      for (const int threads : {0, 1, 2, 7, 33}) CHECK(covers(items, chunk, threads));
    }
  }
}

TEST(pool_many_callers) {
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) good += covers(97, 2, 4) ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 1200);
}

TEST(pool_small_batches_stay_on_the_caller) {
  CHECK(planner::chunk_size(1000, 10.0, 8) == 1000);  // 10 microseconds in all
  CHECK(planner::chunk_size(0, 1e9, 8) == 1);
  CHECK(planner::chunk_size(100000, 1e5, 2) == 1);
  CHECK(planner::chunk_size(100000, 1e4, 2) == 10);
  CHECK(planner::chunk_size(60, 1e4, 8) == 5);
  const auto caller = std::this_thread::get_id();
  bool here = true;
  parallel_for({50, 50, 8, nullptr}, [&](std::int64_t, std::int64_t, int worker) noexcept {
    here = here && worker == 0 && std::this_thread::get_id() == caller;
  });
  CHECK(here);
}

TEST(pool_interruption) {
  for (const int threads : {1, 3}) {
    std::atomic<int> ran{0};
    const Batch batch = {100000, 1, threads, [] { return true; }};
    const bool done = parallel_for(batch, [&](std::int64_t, std::int64_t, int) noexcept {
      ++ran;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    CHECK(!done);
    CHECK(ran < 10000);
  }
  CHECK(covers(1000, 1, 3));
}

TEST(pool_scratch) {
  const planner::Scratch scratch(3, 5);
  for (int worker = 0; worker < 3; ++worker) {
    CHECK(reinterpret_cast<std::uintptr_t>(scratch.of(worker)) % 64 == 0);
    scratch.of(worker)[4] = worker;
  }
  CHECK(scratch.of(1) - scratch.of(0) >= 16);
  CHECK(scratch.of(2)[4] == 2.0);
}

#if defined(__unix__) && !defined(PLANNER_THREAD_SANITIZER)
TEST(pool_after_fork) {
  CHECK(covers(1000, 1, 3));
  const pid_t child = fork();
  if (child == 0) {
    const bool fresh = planner::pool_threads() == 0;
    const bool works = covers(1000, 1, 3) && planner::pool_threads() == 2;
    _exit(fresh && works ? 0 : 1);
  }
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(covers(1000, 1, 3));
}
#endif
