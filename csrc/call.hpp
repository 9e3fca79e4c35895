// How a bound function runs a batch: without the GIL, on the pool, stopped by Ctrl-C.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <optional>
#include <utility>

#include "pool.hpp"

namespace planner {

// What a bound function takes as `threads`: None means all CPUs this process may use.
using Threads = std::optional<int>;

// Throws value_error unless it is None or at least 1. 0 stands for None.
int checked_threads(Threads threads);

// Asks Python for signals, on the main thread. True when a handler raised (as Ctrl-C does); the
// Python error is then set.
bool signal_raised();

// The batch of a call over `items`, of which one takes `nanoseconds` on average.
Batch batch_of(std::int64_t items, double nanoseconds, int threads);

// Takes the GIL back, unless Python is shutting down under a daemon thread: then it never returns.
// (Before 3.14 Python would unwind the thread, through destructors that need the GIL.)
void take_gil_back(PyThreadState* state);

// Imports NumPy and what pybind11 wants of it, so that no call has to.
void import_numpy();

// Runs the body without the GIL. (pybind11's guard takes it back in a destructor: a daemon thread
// that Python unwinds there aborts the process.)
template <class Body>
void without_gil(Body&& body) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    body();
  } catch (...) {  // out of memory
    error = std::current_exception();
  }
  take_gil_back(state);
  if (error != nullptr) std::rethrow_exception(error);
}

// parallel_for without the GIL. A signal that raises stops it between chunks, and is raised here.
template <class Body>
void run_without_gil(const Batch& batch, Body&& body) {
  bool finished = false;
  without_gil([&] { finished = parallel_for(batch, std::forward<Body>(body)); });
  if (!finished) throw pybind11::error_already_set();
}

}  // namespace planner
