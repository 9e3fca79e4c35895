#include "call.hpp"

#include <pybind11/numpy.h>

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

void rest() { std::this_thread::sleep_for(std::chrono::hours(1)); }

// Ends a thread that Python unwinds at exit where it is, before the C++ frames further up.
struct Unwinding {
  bool expected = true;
  ~Unwinding() {
    while (expected) rest();
  }
};

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
  while (python_is_finalizing() && !on_main_thread()) rest();
  Unwinding stay;  // it may begin to shut down while this thread waits
  PyEval_RestoreThread(state);
  stay.expected = false;
}

void import_numpy() {
  {
    Unwinding stay;
    PyObject* const numpy = PyImport_ImportModule("numpy");
    stay.expected = false;
    if (numpy == nullptr) throw py::error_already_set();
    Py_DECREF(numpy);
  }
  // Let those go first who wait for the GIL, the main thread on its way out perhaps: pybind11 gives
  // it away for a moment, and could not leave it.
  take_gil_back(PyEval_SaveThread());
  py::dtype::of<double>();
}

}  // namespace planner
