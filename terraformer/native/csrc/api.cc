#include "api.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "plan.h"

namespace native {
namespace {

struct Registry {
  std::mutex lock;
  std::map<int64_t, std::shared_ptr<Model>> models;
  int64_t last = 0;
};

Registry& registry() {
  static auto* found = new Registry;
  return *found;
}

void say(const char* text, char* message, int64_t bytes) {
  if (!message || bytes < 1) return;
  size_t n = std::min<size_t>(std::strlen(text), static_cast<size_t>(bytes) - 1);
  std::memcpy(message, text, n);
  message[n] = 0;
}

}  // namespace

std::shared_ptr<Model> model_of(int64_t number) {
  std::lock_guard<std::mutex> guard(registry().lock);
  auto found = registry().models.find(number);
  return found == registry().models.end() ? nullptr : found->second;
}

}  // namespace native

using native::Model;

extern "C" {

__attribute__((visibility("default"))) int64_t native_open(const int64_t* plan, int64_t n_numbers,
                                                           const void* const* memory, const int64_t* bytes,
                                                           int64_t n_memory, int32_t n_threads, const char* variant,
                                                           char* message, int64_t message_bytes) {
  try {
    std::vector<native::Memory> given;
    for (int64_t i = 0; i < n_memory; i++) given.push_back({memory[i], bytes[i]});
    auto model = std::make_shared<Model>(native::read_plan(plan, n_numbers, given.data(), n_memory), n_threads,
                                         variant ? variant : "");
    auto& all = native::registry();
    std::lock_guard<std::mutex> guard(all.lock);
    all.models[++all.last] = std::move(model);
    return all.last;
  } catch (const std::exception& error) {
    native::say(error.what(), message, message_bytes);
    return 0;
  }
}

__attribute__((visibility("default"))) void native_close(int64_t number) {
  auto& all = native::registry();
  std::shared_ptr<Model> last;  // a call may still use it, and it is deleted outside the lock
  std::lock_guard<std::mutex> guard(all.lock);
  auto found = all.models.find(number);
  if (found == all.models.end()) return;
  last = found->second;
  all.models.erase(found);
}

__attribute__((visibility("default"))) int32_t native_run(int64_t number, const native::Call* call, char* message,
                                                          int64_t message_bytes) {
  try {
    auto model = native::model_of(number);
    if (!model) throw native::PlanError("there is no such model");
    model->run(*call);
    return 0;
  } catch (const std::exception& error) {
    native::say(error.what(), message, message_bytes);
    return 1;
  }
}

__attribute__((visibility("default"))) int32_t native_threads(int64_t number) {
  auto model = native::model_of(number);
  return model ? model->n_threads() : 0;
}

__attribute__((visibility("default"))) const char* native_variant(int64_t number) {
  auto model = native::model_of(number);
  return model ? model->variant() : nullptr;
}

__attribute__((visibility("default"))) const char* native_variant_name(int32_t i) {
  for (int v = 0; v < native::n_variants(); v++)
    if (native::variants()[v].supported() && i-- == 0) return native::variants()[v].name;
  return nullptr;
}
}
