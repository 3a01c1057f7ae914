// The one function that is compiled for each kind of processor: a plan's operations, by one of the threads that share it.
#pragma once
#include "pool.h"
#include "types.h"

namespace native {

using Run = void (*)(const Step& step, int thread, Team& team);

struct Variant {
  const char* name;
  bool (*supported)();
  Run run;
};

// Those that were compiled, the fastest first; the last one runs everywhere.
const Variant* variants();
int n_variants();

// Bytes of scratch memory that each thread needs for a plan.
int64_t scratch_bytes(const Plan& plan, int64_t n_pages);

}  // namespace native
