// What is seen from outside: plain functions, and models by number, so that a compiled program may keep one.
#pragma once
#include <cstdint>
#include <memory>

#include "model.h"

namespace native {

// Null if there is none of this number.
std::shared_ptr<Model> model_of(int64_t number);

}  // namespace native

extern "C" {

// The number of a new model, above 0; 0 where it fails, with a sentence in `message`. The memory stays the caller's, and
// has to stay as long as the model.
int64_t native_open(const int64_t* plan, int64_t n_numbers, const void* const* memory, const int64_t* bytes,
                    int64_t n_memory, int32_t n_threads, const char* variant, char* message, int64_t message_bytes);
void native_close(int64_t number);

// 0, or 1 with a sentence in `message`.
int32_t native_run(int64_t number, const native::Call* call, char* message, int64_t message_bytes);

int32_t native_threads(int64_t number);
const char* native_variant(int64_t number);
// Name of the i-th kind of code that this processor runs; null behind the last one.
const char* native_variant_name(int32_t i);
}
