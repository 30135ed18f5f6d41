/* What path.py asks of valgrind: to count instructions from here, and to stop. Outside valgrind both do nothing. */

#include <valgrind/callgrind.h>

void start_counting(void) { CALLGRIND_START_INSTRUMENTATION; }

void stop_counting(void) { CALLGRIND_STOP_INSTRUMENTATION; }
