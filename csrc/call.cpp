#include "call.hpp"

#include <chrono>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

namespace py = pybind11;

namespace planner {

namespace {

// Whether this is the process's main thread: the one that runs Python's signal handlers, and that
// shuts Python down.
bool on_main_thread() {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return true;
#endif
}

// Or has done so: what says "finalizing" is cleared at the end.
bool python_is_finalizing() {
  if (Py_IsInitialized() == 0) return true;
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

}  // namespace

int checked_threads(Threads threads) {
  if (!threads.has_value()) return 0;
  if (*threads < 1) {
    throw py::value_error("threads must be None or at least 1, got " + std::to_string(*threads) +
                          ".");
  }
  return *threads;
}

bool signal_raised() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

Batch batch_of(std::int64_t items, double nanoseconds, int threads) {
  return {items, chunk_size(items, nanoseconds, threads), threads,
          on_main_thread() ? &signal_raised : nullptr};
}

void take_gil_back(PyThreadState* state) {
  while (python_is_finalizing() && !on_main_thread()) {
    std::this_thread::sleep_for(std::chrono::hours(1));
  }
  PyEval_RestoreThread(state);
}

}  // namespace planner
