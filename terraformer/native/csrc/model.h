// A plan that is ready to run: its memory, its threads, and the code for this processor.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "run.h"

namespace native {

// Arguments of a call, of so many texts, each of which must be there unless the plan has no use for it.
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
  const int32_t* given_units;  // [pick][text, block], to be taken in the place of the best; or null
  int32_t* units;              // where those that were taken go; or null
};

class Model {
 public:
  // Threads: 0 for as many as there are cores, of which there are never more. Throws PlanError.
  Model(Plan plan, int n_threads, const std::string& variant);
  ~Model();
  Model(const Model&) = delete;

  // Throws PlanError if an argument does not fit the plan. Calls from several threads take turns.
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
  // Of the largest call so far.
  int64_t batch_ = 0, n_pages_ = 0;
  std::vector<Buffer> buffers_;
  std::vector<char*> scratch_;
  float* partial_ = nullptr;
  std::vector<int32_t> units_;
  char* memory_ = nullptr;
  // The fork of the process, counted, in which somebody runs the model; 0: nobody does.
  std::atomic<uint32_t> busy_{0};
};

}  // namespace native
