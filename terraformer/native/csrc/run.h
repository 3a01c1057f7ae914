// The function that is compiled once per variant: runs a plan's operations on one of the threads that share it.
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

// The compiled variants, fastest first; the last one runs on any processor.
const Variant* variants();
int n_variants();

// Bytes of scratch memory that each thread needs for a plan.
int64_t scratch_bytes(const Plan& plan, int64_t n_pages);

}  // namespace native
