#include "model.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "plan.h"

namespace native {
namespace {

constexpr int64_t kHugePage = int64_t{1} << 21;
constexpr int64_t kMostBatch = 4096, kMostWorkspace = int64_t{1} << 36;
constexpr int64_t kSlack = 256;  // bytes after a buffer that whole vectors may touch

std::atomic<uint32_t> generation{1};

// A lock that a forked child never inherits locked.
class Turn {
 public:
  explicit Turn(std::atomic<uint32_t>& busy) : busy_(busy) {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1); }); });
    uint32_t now = generation.load(), holder = 0;
    while (!busy_.compare_exchange_weak(holder, now, std::memory_order_acquire)) {
      if (holder == now) {
        usleep(50);
        holder = 0;
      }
    }
  }
  ~Turn() { busy_.store(0, std::memory_order_release); }

 private:
  std::atomic<uint32_t>& busy_;
};

// Hands out memory, or only counts it.
class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}
  template <class T>
  T* take(int64_t count) {
    T* found = reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)) + kSlack, 64);
    return base_ ? found : nullptr;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

const Variant* find_variant(const std::string& name) {
  for (int i = 0; i < n_variants(); i++) {
    const Variant& v = variants()[i];
    if (v.supported() && (name.empty() || name == v.name)) return &v;
  }
  throw PlanError("this processor does not run the code for " + name);
}

}  // namespace

Model::Model(Plan plan, int n_threads, const std::string& variant) : plan_(std::move(plan)) {
  variant_ = find_variant(variant);
  n_threads_ = std::max(1, std::min({n_threads > 0 ? n_threads : n_cores(), n_cores(), kMostThreads}));
}

Model::~Model() { std::free(memory_); }

void Model::make_room(int64_t batch, int64_t n_pages) {
  if (batch <= batch_ && n_pages <= n_pages_) return;
  batch = std::max(batch, batch_);
  n_pages = std::max(n_pages, n_pages_);
  std::vector<Buffer> buffers;
  std::vector<char*> scratch;
  auto lay_out = [&](Arena arena) {
    buffers = plan_.buffers;
    scratch.clear();
    for (size_t i = kOutput + 1; i < buffers.size(); i++) {
      Buffer& b = buffers[i];
      b.floats = arena.take<float>(batch * b.numbers());
      if (!b.segment) continue;
      b.shorts = arena.take<int16_t>(batch * b.numbers());
      b.scales = arena.take<float>(batch * b.rows * b.n_segments());
    }
    partial_ = arena.take<float>(batch * plan_.partial_numbers);
    for (int i = 0; i < n_threads_; i++) scratch.push_back(arena.take<char>(scratch_bytes(plan_, n_pages)));
    return arena.used();
  };
  int64_t bytes = round_up(lay_out(Arena(nullptr)), kHugePage);
  if (bytes > kMostWorkspace) throw PlanError("a batch of " + std::to_string(batch) + " needs too much memory");
  void* memory = nullptr;
  if (posix_memalign(&memory, kHugePage, static_cast<size_t>(bytes))) throw PlanError("there is not enough memory");
#if defined(MADV_HUGEPAGE)
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, static_cast<size_t>(bytes));
  std::free(memory_);
  memory_ = static_cast<char*>(memory);
  lay_out(Arena(memory_));
  buffers_ = std::move(buffers);
  scratch_ = std::move(scratch);
  units_.assign(batch * plan_.unit_limits.size(), 0);
  batch_ = batch;
  n_pages_ = n_pages;
}

void Model::check(const Call& call) const {
  auto need = [](bool holds, const char* text) {
    if (!holds) throw PlanError(text);
  };
  need(call.batch > 0 && call.batch <= kMostBatch, "batch: expected 1 to 4096 texts");
  need(call.input && call.output, "expected an input and an output");
  need(call.n_pages >= 0 && call.n_pages < 1 << 24 && call.n_memory_pages >= 0 && call.n_memory_pages < 1 << 24,
       "pages: expected fewer");
  need(!plan_.state_numbers || call.state, "expected a state");
  need(!plan_.table_numbers || call.tables, "expected tables");
  bool attends = false, attends_to_memory = false;
  for (const Operation& op : plan_.operations)
    if (op.kind == Kind::kAttend || op.kind == Kind::kAttendHashed) (op.of_memory ? attends_to_memory : attends) = true;
  need(call.lengths, "expected lengths");
  for (int64_t i = 0; i < call.batch; i++) {
    need(call.lengths[i] >= 0, "lengths: expected none below 0");
    if (attends) need(call.lengths[i] < call.n_pages * kPage, "lengths: expected room for one more in the cache");
    if (!attends_to_memory) continue;
    need(call.memory_lengths && call.memory_lengths[i] >= 0 && call.memory_lengths[i] <= call.n_memory_pages * kPage,
         "memory lengths: expected no more than the memory has");
  }
  need(!attends || call.pages, "expected pages");
  need(!attends_to_memory || !call.n_memory_pages || call.memory, "expected a memory");
  if (!call.given_units) return;
  size_t n_blocks = plan_.unit_limits.size();
  for (size_t pick = 0; pick < plan_.pick_blocks.size(); pick++) {
    size_t first = plan_.pick_blocks[pick];
    size_t last = pick + 1 < plan_.pick_blocks.size() ? plan_.pick_blocks[pick + 1] : n_blocks;
    for (size_t i = first * call.batch; i < last * call.batch; i++)
      need(call.given_units[i] >= 0 && call.given_units[i] < plan_.unit_limits[first],
           "units: expected some of a block");
  }
}

void Model::run(const Call& call) {
  check(call);
  Turn turn(busy_);
  make_room(call.batch, std::max(call.n_pages, call.n_memory_pages));
  buffers_[kInput].floats = const_cast<float*>(call.input);
  buffers_[kOutput].floats = call.output;
  Step step{};
  step.plan = &plan_;
  step.batch = call.batch;
  step.buffers = buffers_.data();
  step.lengths = call.lengths;
  step.pages = call.pages;
  step.n_pages = call.n_pages;
  step.memory_lengths = call.memory_lengths;
  step.memory = call.memory;
  step.n_memory_pages = call.n_memory_pages;
  step.state = call.state;
  step.tables = call.tables;
  step.partial = partial_;
  step.given_units = call.given_units;
  step.units = units_.data();
  step.scratch = scratch_.data();
  struct Both {
    const Step* step;
    Run run;
  } both{&step, variant_->run};
  run_on_threads(
      n_threads_,
      [](void* context, int thread, Team& team) {
        auto& both = *static_cast<Both*>(context);
        both.run(*both.step, thread, team);
      },
      &both);
  if (call.units) std::copy_n(units_.begin(), call.batch * plan_.unit_limits.size(), call.units);
}

}  // namespace native
