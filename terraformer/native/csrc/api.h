// The library's public functions. They name a model by a number, which a compiled program can hold.
#pragma once
#include <cstdint>
#include <memory>

#include "model.h"

namespace native {

// Returns null if no model has this number.
std::shared_ptr<Model> model_of(int64_t number);

}  // namespace native

extern "C" {

// Returns the number of a new model, above 0, or 0 with a sentence in `message`. The caller keeps ownership of the
// tensors' memory, which must outlive the model.
int64_t native_open(const int64_t* plan, int64_t n_numbers, const void* const* memory, const int64_t* bytes,
                    int64_t n_memory, int32_t n_threads, const char* variant, char* message, int64_t message_bytes);
void native_close(int64_t number);

// Returns 0, or 1 with a sentence in `message`.
int32_t native_run(int64_t number, const native::Call* call, char* message, int64_t message_bytes);

int32_t native_threads(int64_t number);
const char* native_variant(int64_t number);
// Returns the name of the i-th variant that this processor runs, or null after the last.
const char* native_variant_name(int32_t i);
}
