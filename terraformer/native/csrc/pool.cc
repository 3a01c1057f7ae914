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
constexpr auto kAwake = std::chrono::microseconds(100);  // time that a thread spins before it sleeps
constexpr int64_t kPatience = 400;                       // spins after which a waiting thread yields its core

struct Job {
  void (*work)(void*, int, Team&);
  void* context;
  Team* team;
};

// On a busy machine the scheduler queues a woken thread behind the one that woke it, which keeps working.
void keep_off_this_core(pthread_t thread) {
#if defined(__linux__)
  cpu_set_t cores;
  int own = sched_getcpu();
  if (own < 0 || sched_getaffinity(0, sizeof cores, &cores) || CPU_COUNT(&cores) < 2) return;
  CPU_CLR(own, &cores);
  pthread_setaffinity_np(thread, sizeof cores, &cores);
#else
  (void)thread;
#endif
}

// One thread and its mailbox.
class Worker {
 public:
  explicit Worker(int number) : number_(number) {
    sigset_t every, before;  // signals go to the program's own threads
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    std::thread thread([this] { live(); });
    handle_ = thread.native_handle();
    thread.detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    keep_off_this_core(handle_);
  }

  void give(const Job& job) {
    job_ = job;
    box_.store(kGiven, std::memory_order_seq_cst);
    if (!asleep_.load(std::memory_order_seq_cst)) return;
    keep_off_this_core(handle_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_one();
  }

  // Takes the job back if it has not started, else waits for its end.
  void end() {
    int given = kGiven;
    if (box_.compare_exchange_strong(given, kEmpty, std::memory_order_acq_rel)) return;
    for (int64_t turn = 0; box_.load(std::memory_order_acquire) != kEmpty; turn++) pause_briefly(turn);
  }

 private:
  enum { kEmpty, kGiven, kBegun };

  void live() {
    while (true) {
      await();
      int given = kGiven;
      if (!box_.compare_exchange_strong(given, kBegun, std::memory_order_acq_rel)) continue;
      job_.work(job_.context, number_, *job_.team);
      box_.store(kEmpty, std::memory_order_release);
    }
  }

  void await() {
    auto begun = Clock::now();
    for (int64_t turn = 1; box_.load(std::memory_order_acquire) != kGiven; turn++) {
      pause_briefly(turn);
      if (turn % 64 || Clock::now() - begun < kAwake) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.store(true, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return box_.load(std::memory_order_seq_cst) == kGiven; });
      asleep_.store(false, std::memory_order_relaxed);
    }
  }

  const int number_;
  pthread_t handle_{};
  Job job_{};
  alignas(64) std::atomic<int> box_{kEmpty};
  std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

struct Pool {
  std::mutex turn;
  std::vector<Worker*> workers;  // live until the process ends
};

std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  static std::once_flag once;
  // A forked child has none of its parent's threads, and may hold a lock that one of them held.
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

void run_on_threads(int n, void (*work)(void*, int, Team&), void* context) {
  Team team(n);
  if (n == 1) return work(context, 0, team);
  Pool& threads = the_pool();
  std::lock_guard<std::mutex> lock(threads.turn);
  while (static_cast<int>(threads.workers.size()) < n - 1)
    threads.workers.push_back(new Worker(static_cast<int>(threads.workers.size()) + 1));
  for (int i = 0; i < n - 1; i++) threads.workers[i]->give({work, context, &team});
  work(context, 0, team);
  for (int i = 0; i < n - 1; i++) threads.workers[i]->end();
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
