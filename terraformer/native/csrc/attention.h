// Attention of one position to a paged KV cache.
//
// A page holds 64 positions of a text. For each head, its keys are a matrix whose outputs are the positions, and its
// values a matrix whose inputs are the positions, so scores and results are ordinary products. In int8, every key and
// every value has its own scale.
#pragma once
#include "dense.h"

namespace native {
namespace NATIVE_VARIANT {

// Index of the element (input k, output n) in a page's matrix; the matrix has `k_padded` inputs.
INLINE int64_t place_in_page(int64_t element_bytes, int64_t k_padded, int64_t k, int64_t n) {
  int64_t panel = n / kPanel * k_padded * kPanel, lane = n % kPanel;
  if (element_bytes == 4) return panel + k * kPanel + lane;
  return panel + (k / 2 * kPanel + lane) * 2 + k % 2;
}

INLINE void put(float* p, float x) { *p = x; }
INLINE void put(uint16_t* p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  *p = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
INLINE void put(int8_t* p, float x) { *p = static_cast<int8_t>(nearest(all(x))[0]); }

template <class T>
struct Stored {
  using Type = T;
};
template <>
struct Stored<Bfloat16> {
  using Type = uint16_t;
};

template <class T>
struct Head {
  using Number = typename Stored<T>::Type;
  char* base;
  int64_t width;

  float* key_scales() const { return reinterpret_cast<float*>(base); }
  float* value_scales() const { return key_scales() + kPage; }
  Number* keys() const { return reinterpret_cast<Number*>(base + (sizeof(T) == 1 ? 2 * kPage * 4 : 0)); }
  Number* values() const { return keys() + round_up(width, 2) * kPage; }

  void write(int64_t at, const float* key, const float* value) const {
    float key_factor = 1, value_factor = 1;
    if constexpr (sizeof(T) == 1) {
      key_factor = factor(key, key_scales() + at);
      value_factor = factor(value, value_scales() + at);
    }
    for (int64_t i = 0; i < width; i++) {
      put(keys() + place_in_page(sizeof(T), round_up(width, 2), i, at), key[i] * key_factor);
      put(values() + place_in_page(sizeof(T), kPage, at, i), value[i] * value_factor);
    }
  }
  float factor(const float* x, float* scale) const {
    float top = 0;
    for (int64_t i = 0; i < width; i++) top = __builtin_fabsf(x[i]) > top ? __builtin_fabsf(x[i]) : top;
    *scale = top / 127;
    return top > 0 ? 127 / top : 0;
  }
};

// Scratch memory for one head: query, key, result and scores, and query and scores in 16 bits.
struct HeadScratch {
  float *query, *key, *result, *scores;
  int16_t* shorts;

  HeadScratch(char* scratch, int64_t width) {
    int64_t padded = round_up(width, kPanel) + kPanel;
    query = reinterpret_cast<float*>(scratch);
    key = query + padded;
    result = key + padded;
    shorts = reinterpret_cast<int16_t*>(result + padded);
    scores = reinterpret_cast<float*>(shorts + round_up(padded > kPage ? padded : kPage, 32));
  }
};

template <class T>
INLINE void attend_head(const Step& step, const Operation& op, int64_t text, int64_t number, char* scratch) {
  int64_t width = op.head_width, padded = round_up(width, 2);
  HeadScratch own(scratch, width);
  auto row = [&](int buffer) {
    return step.buffers[buffer].floats + text * step.buffers[buffer].numbers() + number * width;
  };
  const float* q = row(op.source);
  const float* v = op.value < 0 ? nullptr : row(op.value);
  const float* k = op.key < 0 ? nullptr : row(op.key);
  float square = 0, factor = op.shared_keys ? 1.0f : 1.0f / __builtin_sqrtf(static_cast<float>(width));
  if (op.shared_keys) {  // the keys are the queries, normalized
    for (int64_t i = 0; i < width; i++) square += q[i] * q[i];
    float unit =
        1.0f / __builtin_sqrtf(square / static_cast<float>(width) + 1e-6f) / __builtin_sqrtf(static_cast<float>(width));
    for (int64_t i = 0; i < width; i++) own.key[i] = q[i] * unit;
    k = own.key;
  }
  for (int64_t i = 0; i < width; i++) own.query[i] = q[i] * factor;
  own.query[width] = 0;
  char* pages = op.of_memory ? const_cast<char*>(step.memory) : step.pages;
  int64_t page_bytes = op.of_memory ? step.plan->memory_page_bytes : step.plan->page_bytes;
  auto head = [&](int64_t page) {
    return Head<T>{
        pages + (page * step.batch + text) * page_bytes + op.page_offset + number * head_bytes(op.cache_type, width),
        width};
  };
  int64_t n = op.of_memory ? step.memory_lengths[text] : step.lengths[text];
  if (!op.of_memory) {
    head(n / kPage).write(n % kPage, k, v);
    if (!op.shared_keys) n++;  // a position sees itself; with shared keys, only if it sees no other
  }
  int64_t n_pages = (n + kPage - 1) / kPage;
  float query_scale = 1, weight_scale = 1, ones[kPanel];
  const typename Of<T>::Activation *query, *weights;
  if constexpr (sizeof(T) == 1) {
    query_scale = to_shorts(own.query, own.shorts, width);
    query = own.shorts;
    for (float& one : ones) one = 1;
  } else {
    query = own.query;
  }
  for (int64_t page = 0; page < n_pages; page++) {
    Head<T> from = head(page);
    int64_t here = n - page * kPage < kPage ? n - page * kPage : kPage;
    Scales scales{&query_scale, 0, from.key_scales(), kPanel};
    Tiles<T>::run(query, 0, 1, padded / 2, reinterpret_cast<const char*>(from.keys()), padded * kPanel * sizeof(T),
                  (here + kPanel - 1) / kPanel, {own.scores + page * kPage, 0, false}, scales);
  }
  float sum = 1;
  if (n) sum = exponentials(own.scores, largest(own.scores, n), n);
  own.scores[n] = 0;
  for (int64_t page = 0; page < n_pages; page++) {
    Head<T> from = head(page);
    int64_t here = n - page * kPage < kPage ? n - page * kPage : kPage;
    float* x = own.scores + page * kPage;
    if constexpr (sizeof(T) == 1) {
      for (int64_t i = 0; i < here; i++) x[i] *= from.value_scales()[i];
      weight_scale = to_shorts(x, own.shorts, here);
      weights = own.shorts;
    } else {
      weights = x;
    }
    Scales scales{&weight_scale, 0, ones, 0};
    Tiles<T>::run(weights, 0, 1, (here + 1) / 2, reinterpret_cast<const char*>(from.values()),
                  kPage * kPanel * sizeof(T), (width + kPanel - 1) / kPanel, {own.result, 0, page > 0}, scales);
  }
  float* y = row(op.target);
  for (int64_t i = 0; i < width; i++) {
    float x = n ? own.result[i] / sum : op.of_memory ? 0.0f : v[i];
    if (op.to_grid) x = __builtin_rintf(x * 65536.0f) * (1.0f / 65536.0f);
    y[i] = op.adds ? y[i] + x : x;
  }
}

template <class T>
void attend(const Step& step, const Operation& op, Range range, char* scratch) {
  for (int64_t task = range.begin; task < range.end; task++)
    attend_head<T>(step, op, task / op.heads, task % op.heads, scratch);
}

// Bytes of scratch memory that `attend` needs for a cache of `n_pages` pages.
inline int64_t attention_scratch(int64_t width, int64_t n_pages) {
  int64_t padded = round_up(width, kPanel) + kPanel;
  return 3 * padded * 4 + 2 * round_up(padded > kPage ? padded : kPage, 32) + 4 * (n_pages * kPage + 2 * kPanel);
}

}  // namespace NATIVE_VARIANT
}  // namespace native
