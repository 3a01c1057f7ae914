#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace native {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kAwake = std::chrono::microseconds(100);  // that a thread looks for work before it sleeps
constexpr int64_t kPatience = 4000;                      // turns after which a waiting thread lets others have its core

struct Job {
  void (*work)(void*, int, Meeting&);
  void* context;
  Meeting* meeting;
};

// One thread and its letter box.
class Worker {
 public:
  explicit Worker(int number) : number_(number) {
    sigset_t every, before;  // signals are for the threads of the program
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    std::thread([this] { live(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void start(const Job& job) {
    job_ = job;
    given_.fetch_add(1, std::memory_order_seq_cst);
    if (!asleep_.load(std::memory_order_seq_cst)) return;
    { std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_one();
  }

 private:
  void live() {
    for (uint32_t seen = 0;; seen++) {
      await(seen);
      job_.work(job_.context, number_, *job_.meeting);
    }
  }

  void await(uint32_t seen) {
    auto begun = Clock::now();
    for (int64_t turn = 1; given_.load(std::memory_order_acquire) == seen; turn++) {
      pause_briefly(turn);
      if (turn % 64 || Clock::now() - begun < kAwake) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.store(true, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return given_.load(std::memory_order_seq_cst) != seen; });
      asleep_.store(false, std::memory_order_relaxed);
    }
  }

  const int number_;
  Job job_{};
  alignas(64) std::atomic<uint32_t> given_{0};
  std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

struct Pool {
  std::mutex turn;
  std::vector<Worker*> workers;  // which end with the process
};

std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  static std::once_flag once;
  // A child has none of its parent's threads, and may have a lock that one of them held.
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); }); });
  Pool* found = pool.load(std::memory_order_acquire);
  if (found) return *found;
  auto made = std::make_unique<Pool>();
  if (pool.compare_exchange_strong(found, made.get())) return *made.release();
  return *found;
}

}  // namespace

void pause_briefly(int64_t turn) {
  if (turn % kPatience == kPatience - 1) {
    sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

void run_on_threads(int n, void (*work)(void*, int, Meeting&), void* context) {
  Meeting meeting(n);
  if (n == 1) return work(context, 0, meeting);
  struct Whole {
    void (*work)(void*, int, Meeting&);
    void* context;
    std::atomic<int> left;
  } whole{work, context, {n}};
  Pool& threads = the_pool();
  std::lock_guard<std::mutex> lock(threads.turn);
  while (static_cast<int>(threads.workers.size()) < n - 1)
    threads.workers.push_back(new Worker(static_cast<int>(threads.workers.size()) + 1));
  auto part = [](void* given, int thread, Meeting& meeting) {
    auto& whole = *static_cast<Whole*>(given);
    whole.work(whole.context, thread, meeting);
    whole.left.fetch_sub(1, std::memory_order_acq_rel);
  };
  for (int i = 0; i < n - 1; i++) threads.workers[i]->start({part, &whole, &meeting});
  part(&whole, 0, meeting);
  for (int64_t turn = 0; whole.left.load(std::memory_order_acquire); turn++) pause_briefly(turn);
}

int n_cores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

}  // namespace native
