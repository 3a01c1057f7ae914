// Reads a plan from a table of numbers and checks every number before it makes a pointer of it.
#pragma once
#include <stdexcept>
#include <string>

#include "types.h"

namespace native {

struct PlanError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory owned by the caller.
struct Memory {
  const void* data;
  int64_t bytes;
};

// The numbers are, in this order: kMagic, kVersion; the counts of buffers, matrices, tables, vectors and operations;
// the bytes of a page of the cache and of the memory, and the sizes of the state and of the tables; then the rows of
// these lists, as plan.py writes them. `tensors` holds the matrices, tables and vectors.
constexpr int64_t kMagic = 0x4C50524F46415254;  // "TRAFORPL"
constexpr int64_t kVersion = 2;

// The buffers passed with each call: input and output.
constexpr int kInput = 0, kOutput = 1;

// Throws PlanError, whose message says what is wrong.
Plan read_plan(const int64_t* numbers, int64_t count, const Memory* memory, int64_t n_memory);

}  // namespace native
