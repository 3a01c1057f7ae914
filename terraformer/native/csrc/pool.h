// Threads that stay: they wait for work, at first awake, and sleep when there is none.
//
// Work is a row of groups of tasks, each of which needs the whole group before. Every thread has its share of a group,
// and what another one has not begun when a thread is done with its own it takes over: so a thread whose core is busy
// with other programs holds nobody up for longer than the tasks that it has begun.
#pragma once
#include <atomic>
#include <cstdint>

namespace native {

constexpr int kMostThreads = 64;

void pause_briefly(int64_t turn);

// Tasks from `begin` to `end`, excluded.
struct Share {
  int64_t begin, end;
};

// What the threads of one call know of each other. A number beside each count says of which group it is, counted from 1:
// a thread that comes late finds its group done, or a later one begun.
class Team {
 public:
  explicit Team(int n_threads) : n_threads_(n_threads) {}
  int n_threads() const { return n_threads_; }

  // The next so many tasks of the share of a thread, for whoever asks; an empty one if there are none.
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

  // So many claimed tasks are done.
  void finish(uint64_t group, int64_t count) {
    uint64_t seen = done_.value.load(std::memory_order_acquire);
    while (true) {
      int64_t before = group_of(seen) == group ? count_of(seen) : 0;
      if (done_.value.compare_exchange_weak(seen, joined(group, before + count), std::memory_order_acq_rel)) return;
    }
  }

  // Waits for all tasks of a group.
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

// Calls work(context, thread, team) on up to so many threads at once, this one being number 0, and returns when all that
// began have ended; threads that sleep may not begin at all. Calls from several threads take turns. After a fork, the
// child makes threads of its own.
void run_on_threads(int n, void (*work)(void* context, int thread, Team& team), void* context);

// Cores that this process may use.
int n_cores();

}  // namespace native
