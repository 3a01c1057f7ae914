// Threads that stay: they wait for work, at first awake, and sleep when there is none.
#pragma once
#include <atomic>
#include <cstdint>

namespace native {

void pause_briefly(int64_t turn);

// Where threads wait for each other.
class Meeting {
 public:
  explicit Meeting(int n) : n_(n) {}

  void wait() {
    if (n_ == 1) return;
    uint32_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int64_t turn = 0; round_.load(std::memory_order_acquire) == round; turn++) pause_briefly(turn);
  }

 private:
  const int n_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
};

// Calls work(context, thread, meeting) on so many threads at once, this one being number 0, and returns when all have
// ended. Calls from several threads take turns. After a fork, the child makes threads of its own.
void run_on_threads(int n, void (*work)(void* context, int thread, Meeting& meeting), void* context);

// Cores that this process may use.
int n_cores();

}  // namespace native
