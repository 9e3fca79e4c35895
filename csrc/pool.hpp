// A persistent pool of threads that runs batches in chunks.
//
// Threads start when a call first needs them and wait in between; they are joined at exit. After
// fork() the child starts its own. Several threads may call at once: their batches share the pool.
// Results do not depend on the number of threads as long as the chunk function writes outputs by
// index and the result of an item does not depend on its chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace planner {

// CPUs this process may use; at least 1.
int hardware_threads();

// Asked on the calling thread between chunks, at most some fifty times a second. True: give up.
using Interrupted = bool (*)();

struct Batch {
  std::int64_t items = 0;
  // Items a thread takes at a time. Aim at 50 to 200 microseconds: see chunk_size().
  std::int64_t chunk = 1;
  // At most this many threads, the calling one included. 0: hardware_threads().
  int threads = 0;
  Interrupted interrupted = nullptr;
};

// How many threads a batch will use at most: never more than chunks. What per-thread scratch memory
// is sized by.
int threads_for(const Batch& batch);

// Items that together take 50 to 100 microseconds, when one takes `nanoseconds` on average; the
// lower end when there would be fewer than four chunks for each of `threads` (0: all). A batch of
// less than 200 microseconds is one chunk and so stays on the calling thread.
std::int64_t chunk_size(std::int64_t items, double nanoseconds, int threads);

namespace detail {
using ChunkFunction = void (*)(void* context, std::int64_t begin, std::int64_t end, int worker);
bool run_batch(const Batch& batch, ChunkFunction function, void* context);
}  // namespace detail

// Calls body(begin, end, worker) for chunks that cover 0..items, each once, in any order;
// `worker` < threads_for(batch) is held by one thread at a time. The calling thread takes part.
// Returns false when interrupted: some chunks have not run then. The body must be noexcept: kernels
// report by status codes.
template <class Body>
bool parallel_for(const Batch& batch, Body&& body) {
  using B = std::remove_reference_t<Body>;
  static_assert(std::is_nothrow_invocable_v<B&, std::int64_t, std::int64_t, int>,
                "a chunk body must be noexcept");
  return detail::run_batch(
      batch,
      [](void* context, std::int64_t begin, std::int64_t end, int worker) {
        (*static_cast<B*>(context))(begin, end, worker);
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

// Scratch memory: `doubles` float64 for each worker, 64-byte aligned, not initialized. Allocated
// here, on the calling thread, so that running out of memory is an exception there.
class Scratch {
 public:
  Scratch(int workers, std::int64_t doubles);
  double* of(int worker) const { return memory_.get() + stride_ * worker; }

 private:
  struct Free {
    void operator()(double* p) const;
  };
  std::int64_t stride_;
  std::unique_ptr<double[], Free> memory_;
};

// Threads of the pool that exist now, the calling one not counted.
int pool_threads();

}  // namespace planner
