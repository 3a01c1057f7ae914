// A plan from a table of numbers, each of which is checked before a pointer is made of it.
#pragma once
#include <stdexcept>
#include <string>

#include "types.h"

namespace native {

struct PlanError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory that somebody else owns.
struct Memory {
  const void* data;
  int64_t bytes;
};

// The numbers are, in this order: kMagic, kVersion; how many buffers, matrices, tables, vectors and operations follow;
// bytes of a page of the cache and of the memory, numbers of the state. Then the rows of these tables, as plan.py writes
// them. The memory is that of the matrices, tables and vectors.
constexpr int64_t kMagic = 0x4C50524F46415254;  // "TRAFORPL"
constexpr int64_t kVersion = 1;

// Buffers that are given with each call: the first is read, the second is written.
constexpr int kInput = 0, kOutput = 1;

// Throws PlanError, whose text says what is wrong.
Plan read_plan(const int64_t* numbers, int64_t count, const Memory* memory, int64_t n_memory);

}  // namespace native
