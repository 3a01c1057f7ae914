// A plan that is ready to run: its memory, its threads and the variant for this processor.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "run.h"

namespace native {

// The arguments of one call. Each is required unless the plan does not use it.
struct Call {
  int64_t batch;
  const float* input;
  float* output;
  const int32_t* lengths;
  char* pages;
  int64_t n_pages;
  const int32_t* memory_lengths;
  const char* memory;
  int64_t n_memory_pages;
  float* state;
  int32_t* tables;
  const int32_t* given_units;  // [pick][text, block] units to use instead of the best ones, or null
  int32_t* units;              // receives the units that were used, or null
};

class Model {
 public:
  // `n_threads` is 0 for one per core, which is also the maximum. Throws PlanError.
  Model(Plan plan, int n_threads, const std::string& variant);
  ~Model();
  Model(const Model&) = delete;

  // Throws PlanError if an argument does not fit the plan. Concurrent calls take turns.
  void run(const Call& call);

  const Plan& plan() const { return plan_; }
  int n_threads() const { return n_threads_; }
  const char* variant() const { return variant_->name; }

 private:
  void check(const Call& call) const;
  void make_room(int64_t batch, int64_t n_pages);

  const Plan plan_;
  int n_threads_;
  const Variant* variant_;
  // Sized for the largest call so far.
  int64_t batch_ = 0, n_pages_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<char*> scratch_;
  float* partial_ = nullptr;
  std::vector<int32_t> units_;
  char* memory_ = nullptr;
  // A lock: the number of the process's fork in which a thread runs the model, or 0.
  std::atomic<uint32_t> busy_{0};
};

}  // namespace native
