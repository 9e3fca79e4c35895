#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace planner {

namespace {

constexpr int kMaxThreads = 512;
constexpr double kChunkNanoseconds = 100e3;
constexpr std::chrono::milliseconds kPollInterval{20};

using Clock = std::chrono::steady_clock;

struct Job {
  detail::ChunkFunction function;
  void* context;
  std::int64_t items;
  std::int64_t chunk;
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> stop{false};
  // Guarded by the pool's mutex.
  int wanted;      // helpers that may still join
  int joined = 0;  // helpers that have joined; also the last worker number given out
  int active = 0;  // helpers at work now
  std::condition_variable idle;

  Job(const Batch& batch, detail::ChunkFunction f, void* c, int helpers)
      : function(f), context(c), items(batch.items), chunk(batch.chunk), wanted(helpers) {}

  // Runs the next chunk; false when there is none.
  bool step(int worker) {
    if (stop.load(std::memory_order_relaxed)) return false;
    const std::int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
    if (begin >= items) return false;
    function(context, begin, std::min(begin + chunk, items), worker);
    return true;
  }
};

class Pool {
 public:
  // Runs the job on the calling thread and on up to job.wanted helpers.
  bool run(Job& job, Interrupted interrupted) {
    bool shared = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!stopping_) {
        grow(job.wanted);
        jobs_.push_back(&job);
        shared = true;
      }
    }
    if (shared) wake_.notify_all();

    Clock::time_point asked = Clock::now();
    while (job.step(0)) {
      if (interrupted == nullptr) continue;
      const Clock::time_point now = Clock::now();
      if (now - asked < kPollInterval) continue;
      asked = now;
      if (interrupted()) job.stop.store(true, std::memory_order_relaxed);
    }

    if (shared) {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto at = std::find(jobs_.begin(), jobs_.end(), &job);
      if (at != jobs_.end()) jobs_.erase(at);
      job.idle.wait(lock, [&] { return job.active == 0; });
    }
    return !job.stop.load(std::memory_order_relaxed);
  }

  int size() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(threads_.size());
  }

  void join() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  // With the mutex held. A system that gives no more threads leaves the pool as large as it is.
  void grow(int helpers) {
    try {
      while (static_cast<int>(threads_.size()) < helpers) {
        threads_.emplace_back([this] { help(); });
      }
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;  // stopping, and nothing left to help with
      Job& job = *jobs_.front();
      const int worker = ++job.joined;
      ++job.active;
      if (--job.wanted == 0) jobs_.pop_front();
      lock.unlock();
      while (job.step(worker)) {
      }
      lock.lock();
      // Out of chunks: nobody else needs to look at it.
      const auto at = std::find(jobs_.begin(), jobs_.end(), &job);
      if (at != jobs_.end()) jobs_.erase(at);
      if (--job.active == 0) job.idle.notify_one();  // under the lock: the job may vanish after
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;  // those that helpers may still join
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

// The pool of this process. Never destroyed, for a daemon thread may be in it at exit; only its
// threads are joined.
std::atomic<Pool*> the_pool{nullptr};

// In the child of a fork the threads are gone and the mutex may be held by one of them: the old
// pool is left behind as it is.
extern "C" void planner_after_fork_in_child() { the_pool.store(nullptr); }

struct JoinAtExit {
  ~JoinAtExit() {
    Pool* const pool = the_pool.load();
    if (pool != nullptr) pool->join();
  }
};

Pool& pool() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, &planner_after_fork_in_child);
  static_cast<void>(registered);
#endif
  static const JoinAtExit join_at_exit;
  static_cast<void>(join_at_exit);
  Pool* current = the_pool.load();
  if (current == nullptr) {
    Pool* const fresh = new Pool;
    if (the_pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
  }
  return *current;
}

std::int64_t chunks_of(const Batch& batch) {
  return batch.items <= 0 ? 0 : (batch.items - 1) / std::max<std::int64_t>(batch.chunk, 1) + 1;
}

}  // namespace

int hardware_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int threads_for(const Batch& batch) {
  const int wanted = batch.threads > 0 ? batch.threads : hardware_threads();
  const std::int64_t most = std::min<std::int64_t>(std::min(wanted, kMaxThreads), chunks_of(batch));
  return static_cast<int>(std::max<std::int64_t>(most, 1));
}

std::int64_t chunk_size(std::int64_t items, double nanoseconds, int threads) {
  if (items <= 0) return 1;
  if (!(nanoseconds * static_cast<double>(items) > 2 * kChunkNanoseconds)) return items;
  const double most = kChunkNanoseconds / nanoseconds;
  const double share =
      static_cast<double>(items) / (4 * (threads > 0 ? threads : hardware_threads()));
  return static_cast<std::int64_t>(std::max(1.0, std::min(most, std::max(share, most / 2))));
}

int pool_threads() {
  Pool* const current = the_pool.load();
  return current == nullptr ? 0 : current->size();
}

namespace detail {

bool run_batch(const Batch& batch, ChunkFunction function, void* context) {
  if (batch.items <= 0) return true;
  Batch sane = batch;
  sane.chunk = std::max<std::int64_t>(batch.chunk, 1);
  Job job(sane, function, context, threads_for(sane) - 1);
  if (job.wanted > 0) return pool().run(job, batch.interrupted);

  Clock::time_point asked = Clock::now();
  while (job.step(0)) {
    if (batch.interrupted == nullptr) continue;
    const Clock::time_point now = Clock::now();
    if (now - asked < kPollInterval) continue;
    asked = now;
    if (batch.interrupted()) return false;
  }
  return true;
}

}  // namespace detail

Scratch::Scratch(int workers, std::int64_t doubles)
    // 16 doubles apart at least: two workers never share a cache line, nor a pair of them.
    : stride_((std::max<std::int64_t>(doubles, 1) + 15) / 16 * 16),
      memory_(static_cast<double*>(::operator new(
          static_cast<std::size_t>(stride_) * static_cast<std::size_t>(workers) * sizeof(double),
          std::align_val_t{64}))) {}

void Scratch::Free::operator()(double* p) const { ::operator delete(p, std::align_val_t{64}); }

}  // namespace planner
