# Fails unless each per-level object defines one symbol only: its table of kernels.
foreach(object IN LISTS OBJECTS)
  get_filename_component(name ${object} NAME)
  string(REGEX REPLACE "\\..*" "" workload ${name})
  execute_process(COMMAND ${NM} -C --defined-only ${object}
    OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "nm failed on ${object}")
  endif()
  string(REGEX MATCHALL "[^\n]+ [A-Zu-z] [^\n]+" shared "${symbols}")
  list(FILTER shared EXCLUDE REGEX " [a-t] ")
  list(LENGTH shared n)
  if(NOT n EQUAL 1 OR NOT shared MATCHES "planner::[a-z0-9]+::${workload}$")
    message(FATAL_ERROR
      "${object} must define only its table of kernels, '${workload}', but it shares: ${shared}. "
      "Keep std:: templates and functions with linkage out of csrc/kernels/.")
  endif()
endforeach()
