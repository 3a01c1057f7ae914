// Attention of one position to a paged KV cache.
//
// A page holds 64 positions of a text. For each head, its keys are a matrix whose outputs are the positions, and its
// values a matrix whose inputs are the positions, so scores and results are ordinary products. In int8, every key and
// every value has its own scale.
#pragma once
#include "dense.h"

namespace native {
namespace NATIVE_VARIANT {

// A row in the numbers of a cache.
INLINE void rounded(const float* x, float factor, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * factor;
}
INLINE void rounded(const float* x, float, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    y[i] = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
}
INLINE void rounded(const float* x, float factor, int8_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Ints whole = nearest(load(x + i) * all(factor));
    BytesInLanes few = __builtin_convertvector(__builtin_convertvector(whole, ShortsInLanes), BytesInLanes);
    memcpy(y + i, &few, sizeof few);
  }
  for (; i < n; i++) y[i] = static_cast<int8_t>(nearest(all(x[i] * factor))[0]);
}

// What turns a row into 8-bit numbers; `scale` turns them back.
INLINE float factor_of(const float* x, int64_t n, float* scale) {
  float top = largest_magnitude(x, n);
  *scale = top / 127;
  return top > 0 ? 127 / top : 0;
}

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

  // Stores the key and the value of a position; `row` has memory for a row.
  void write(int64_t at, const float* key, const float* value, Number* row) const {
    constexpr int kGroup = sizeof(T) == 4 ? 1 : 2;  // inputs that lie side by side
    rounded(key, sizeof(T) == 1 ? factor_of(key, width, key_scales() + at) : 1, row, width);
    if (width % kGroup) row[width] = 0;
    Number* to = keys() + at / kPanel * round_up(width, 2) * kPanel + at % kPanel * kGroup;
    for (int64_t i = 0; i < width; i += kGroup) memcpy(to + i * kPanel, row + i, kGroup * sizeof(Number));
    rounded(value, sizeof(T) == 1 ? factor_of(value, width, value_scales() + at) : 1, row, width);
    to = values() + at / kGroup * kGroup * kPanel + at % kGroup;
    for (int64_t i = 0; i < width; i += kPanel, to += kPage * kPanel)
      for (int64_t lane = 0; lane < kPanel && i + lane < width; lane++) to[lane * kGroup] = row[i + lane];
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

// The key of a query that is also the key: of length 1.
INLINE void to_unit_key(const float* q, float* key, int64_t width) {
  float square = 0;
  for (int64_t i = 0; i < width; i++) square += q[i] * q[i];
  float unit =
      1.0f / __builtin_sqrtf(square / static_cast<float>(width) + 1e-6f) / __builtin_sqrtf(static_cast<float>(width));
  for (int64_t i = 0; i < width; i++) key[i] = q[i] * unit;
}

// Writes the result of a head, divided by the sum of its weights, or adds it to the target.
INLINE void put(const Operation& op, const float* result, float sum, float* y) {
  for (int64_t i = 0; i < op.head_width; i++) {
    float x = result[i] / sum;
    if (op.to_grid) x = __builtin_rintf(x * 65536.0f) * (1.0f / 65536.0f);
    y[i] = op.adds ? y[i] + x : x;
  }
}

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
  float factor = op.shared_keys ? 1.0f : 1.0f / __builtin_sqrtf(static_cast<float>(width));
  if (op.shared_keys) {
    to_unit_key(q, own.key, width);
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
    head(n / kPage).write(n % kPage, k, v, reinterpret_cast<typename Stored<T>::Type*>(own.result));
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
    fetch(page + 1 < n_pages ? head(page + 1).keys() : head(0).values(), padded * kPage * sizeof(T));
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
    if (page + 1 < n_pages)
      fetch(head(page + 1).values(), padded * kPage * sizeof(T));
    else if (number + 1 < op.heads)
      fetch(head(0).base + head_bytes(op.cache_type, width), padded * kPage * sizeof(T));
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
  if (!n && op.of_memory) memset(own.result, 0, static_cast<size_t>(width) * 4);
  put(op, n || op.of_memory ? own.result : v, n ? sum : 1, row(op.target));
}

template <class T>
void attend(const Step& step, const Operation& op, Range range, char* scratch) {
  for (int64_t task = range.begin; task < range.end; task++)
    attend_head<T>(step, op, task / op.heads, task % op.heads, scratch);
}

}  // namespace NATIVE_VARIANT
}  // namespace native
