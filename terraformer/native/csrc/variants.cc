// Which compiled variants this processor runs.
#include <algorithm>

#include "run.h"

namespace native {

#if defined(__x86_64__)
Run run_avx512vnni();
Run run_avx512();
Run run_avx2();
#endif
Run run_portable();

namespace {

bool anywhere() { return true; }
#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
[[maybe_unused]] bool has_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

const Variant kVariants[] = {
#if defined(__x86_64__)
#if !defined(NATIVE_WITHOUT_AVX512)  // compilers need minutes for it with a sanitizer
    {"avx512vnni", has_vnni, run_avx512vnni()},
    {"avx512", has_avx512, run_avx512()},
#endif
    {"avx2", has_avx2, run_avx2()},
#endif
    {"portable", anywhere, run_portable()},
};

}  // namespace

const Variant* variants() { return kVariants; }
int n_variants() { return sizeof kVariants / sizeof *kVariants; }

int64_t scratch_bytes(const Plan& plan, int64_t n_pages) {
  int64_t widest = std::max<int64_t>(plan.widest, kPanel), row = 0;
  for (const Buffer& b : plan.buffers) row = std::max(row, b.stride);
  int64_t sums = 64 * std::max<int64_t>(widest, 4 * kPanel);  // a chunk of rows, or the logits of a block
  int64_t attention = 8 * round_up(widest + kPanel, 64) + (n_pages + 1) * kPage;
  int64_t hashed =
      8 * round_up(widest + kPanel, 64) + 2 * round_up(plan.most_seen + kPanel, 64) + plan.most_directions + kPanel;
  return 4 * std::max({sums, row + kPanel, attention, hashed});
}

}  // namespace native
