// A persistent thread pool. Idle threads spin briefly, then sleep.
//
// Work is a sequence of groups of tasks; a group starts when the previous one is finished. Each thread owns a share of
// every group and, when it is done, takes over tasks that others have not started. So a thread whose core is busy with
// other programs delays the rest by no more than the tasks it has started.
#pragma once
#include <atomic>
#include <cstdint>

namespace native {

constexpr int kMostThreads = 64;

void pause_briefly(int64_t turn);

// Tasks [begin, end).
struct Share {
  int64_t begin, end;
};

// State shared by the threads of one call. Each count carries the number of its group, from 1, so a late thread sees
// that its group is finished or that a later one has started.
class Team {
 public:
  explicit Team(int n_threads) : n_threads_(n_threads) {}
  int n_threads() const { return n_threads_; }

  // Claims up to `count` tasks of a thread's share; empty if none are left.
  Share claim(uint64_t group, int owner, Share share, int64_t count) {
    std::atomic<uint64_t>& next = next_[owner].value;
    uint64_t seen = next.load(std::memory_order_acquire);
    while (true) {
      if (group_of(seen) > group) return {0, 0};
      int64_t begin = group_of(seen) == group ? count_of(seen) : share.begin;
      if (begin >= share.end) return {0, 0};
      int64_t end = share.end - begin < count ? share.end : begin + count;
      if (next.compare_exchange_weak(seen, joined(group, end), std::memory_order_acq_rel)) return {begin, end};
    }
  }

  // Reports `count` claimed tasks as finished, and returns how many of the group are.
  int64_t finish(uint64_t group, int64_t count) {
    uint64_t seen = done_.value.load(std::memory_order_acquire);
    while (true) {
      int64_t all = count + (group_of(seen) == group ? count_of(seen) : 0);
      if (done_.value.compare_exchange_weak(seen, joined(group, all), std::memory_order_acq_rel)) return all;
    }
  }

  // Waits until `count` tasks of a group are finished.
  void wait(uint64_t group, int64_t count) const {
    for (int64_t turn = 0;; turn++) {
      uint64_t seen = done_.value.load(std::memory_order_acquire);
      if (group_of(seen) > group || (group_of(seen) == group && count_of(seen) == count)) return;
      pause_briefly(turn);
    }
  }

 private:
  static constexpr int kCountBits = 36;
  static uint64_t group_of(uint64_t x) { return x >> kCountBits; }
  static int64_t count_of(uint64_t x) { return static_cast<int64_t>(x & ((uint64_t{1} << kCountBits) - 1)); }
  static uint64_t joined(uint64_t group, int64_t count) { return group << kCountBits | static_cast<uint64_t>(count); }

  struct alignas(64) Line {
    std::atomic<uint64_t> value{0};
  };
  const int n_threads_;
  Line done_;
  Line next_[kMostThreads];
};

// Calls work(context, thread, team) on up to `n` threads, the caller being thread 0, and returns when every thread that
// started has finished; a sleeping thread may not start at all. Concurrent calls take turns. After a fork, the child
// creates its own threads.
void run_on_threads(int n, void (*work)(void* context, int thread, Team& team), void* context);

// Number of cores that this process may use.
int n_cores();

}  // namespace native
