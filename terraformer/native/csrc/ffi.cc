// A step as an XLA custom call: (model, input, lengths, pages, state, tables, memory lengths, memory) -> (output,
// pages, state, tables). With input_output_aliases the cache is updated in place; otherwise it is copied.
#include "xla/ffi/api/ffi.h"

#include <cstring>

#include "api.h"
#include "plan.h"

namespace ffi = xla::ffi;

namespace {

ffi::Error wrong(const std::string& text) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, "native step: " + text);
}

ffi::Error step(ffi::Buffer<ffi::S32> number, ffi::Buffer<ffi::F32> input, ffi::Buffer<ffi::S32> lengths,
                ffi::Buffer<ffi::U8> pages, ffi::Buffer<ffi::F32> state, ffi::Buffer<ffi::S32> tables,
                ffi::Buffer<ffi::S32> memory_lengths, ffi::Buffer<ffi::U8> memory, ffi::ResultBuffer<ffi::F32> output,
                ffi::ResultBuffer<ffi::U8> new_pages, ffi::ResultBuffer<ffi::F32> new_state,
                ffi::ResultBuffer<ffi::S32> new_tables) {
  if (number.element_count() != 1) return wrong("expected the number of a model");
  auto model = native::model_of(number.typed_data()[0]);
  if (!model) return wrong("the model was closed");
  const native::Plan& plan = model->plan();
  auto shaped = [](auto dimensions, std::initializer_list<int64_t> expected) {
    return dimensions.size() == expected.size() && std::equal(expected.begin(), expected.end(), dimensions.begin());
  };
  int64_t batch = lengths.element_count();
  int64_t n_pages = pages.dimensions().size() == 3 ? pages.dimensions()[0] : -1;
  int64_t n_memory_pages = memory.dimensions().size() == 3 ? memory.dimensions()[0] : -1;
  if (!shaped(input.dimensions(), {batch, plan.buffers[native::kInput].width}) ||
      !shaped(output->dimensions(), {batch, plan.buffers[native::kOutput].width}) ||
      !shaped(pages.dimensions(), {n_pages, batch, plan.page_bytes}) ||
      !shaped(state.dimensions(), {batch, plan.state_numbers}) ||
      !shaped(tables.dimensions(), {batch, plan.table_numbers}) ||
      !shaped(memory.dimensions(), {n_memory_pages, batch, plan.memory_page_bytes}) ||
      memory_lengths.element_count() != static_cast<size_t>(batch) || new_pages->size_bytes() != pages.size_bytes() ||
      new_state->size_bytes() != state.size_bytes() || new_tables->size_bytes() != tables.size_bytes())
    return wrong("expected arrays of the model's shapes");
  auto copy = [](const auto& from, auto& to) {
    if (to->untyped_data() != from.untyped_data())
      std::memcpy(to->untyped_data(), from.untyped_data(), from.size_bytes());
  };
  copy(pages, new_pages);
  copy(state, new_state);
  copy(tables, new_tables);
  native::Call call{};
  call.batch = batch;
  call.input = input.typed_data();
  call.output = output->typed_data();
  call.lengths = lengths.typed_data();
  call.pages = static_cast<char*>(new_pages->untyped_data());
  call.n_pages = n_pages;
  call.memory_lengths = memory_lengths.typed_data();
  call.memory = static_cast<const char*>(memory.untyped_data());
  call.n_memory_pages = n_memory_pages;
  call.state = new_state->typed_data();
  call.tables = new_tables->typed_data();
  try {
    model->run(call);
  } catch (const std::exception& error) {
    return wrong(error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* native_step(XLA_FFI_CallFrame* frame);
XLA_FFI_DEFINE_HANDLER_SYMBOL(native_step, step,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
