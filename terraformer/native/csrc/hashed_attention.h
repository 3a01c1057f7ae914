// Attention of one position to the most recent positions in its buckets (Reformer, Kitaev et al., 2020).
//
// A page holds 64 positions of a text. For each head, it has a record of each: the key, the value and, in int8, their
// scales, side by side, since positions are read one by one. For each head, round and bucket, the tables of a text hold
// the number of positions so far and `slots` positions; number i of a bucket is in slot i mod `slots`.
#pragma once
#include "attention.h"

namespace native {
namespace NATIVE_VARIANT {

constexpr int64_t kRecordsAhead = 12;  // records that are prefetched before they are used

template <class T>
struct Record {
  using Number = typename Stored<T>::Type;
  char* base;
  int64_t width;

  Number* key() const { return reinterpret_cast<Number*>(base); }
  Number* value() const { return key() + round_up(width, kPanel); }
  float* scales() const { return reinterpret_cast<float*>(value() + round_up(width, kPanel)); }
  float key_scale() const { return sizeof(T) == 1 ? scales()[0] : 1; }
  float value_scale() const { return sizeof(T) == 1 ? scales()[1] : 1; }

  void write(const float* k, const float* v) const {
    rounded(k, sizeof(T) == 1 ? factor_of(k, width, scales()) : 1, key(), width);
    rounded(v, sizeof(T) == 1 ? factor_of(v, width, scales() + 1) : 1, value(), width);
  }
};

// The bucket of a query in a round. Its digits are the nearest among the directions of each factor and their opposites;
// the first factor is the least significant. `directions` has a row for each number of the query.
INLINE int64_t bucket_of(const Operation& op, const float* q, const float* directions, float* near) {
  int64_t n = op.n_directions(), bucket = 0, scale = 1;
  for (int64_t i = 0; i < n; i++) near[i] = 0;
  for (int64_t k = 0; k < op.head_width; k++) {
    const float* row = directions + k * n;
    add_rows<float, 1>(&row, q + k, near, n);
  }
  for (int64_t f = 0; f < op.n_factors; f++) {
    int64_t half = op.factors[f] / 2;
    float most = largest(near, half);
    int64_t nearest = place_of(near, most, half);
    for (int64_t i = 0; i < half; i++) near[i] = -near[i];
    float opposite = largest(near, half);
    bucket += scale * (most >= opposite ? nearest : half + place_of(near, opposite, half));
    scale *= op.factors[f];
    near += half;
  }
  return bucket;
}

// Enters position n into its bucket, and appends the earlier positions there to `seen`; returns their new number.
INLINE int64_t enter(int32_t* table, int64_t slots, int64_t n, int32_t* seen, int64_t n_seen) {
  uint32_t earlier = static_cast<uint32_t>(table[0]);
  int64_t own = earlier % slots, filled = earlier < slots ? earlier : slots;
  table[0] = static_cast<int32_t>(earlier + 1);
  int32_t* position = table + 1;
  position[own] = static_cast<int32_t>(n);
  for (int64_t s = 0; s < filled; s++)
    if (s != own && position[s] >= 0 && position[s] < n) seen[n_seen++] = position[s];  // the caller wrote the tables
  return n_seen;
}

template <class T>
INLINE void attend_hashed_head(const Step& step, const Operation& op, int64_t text, int64_t number, char* scratch) {
  int64_t width = op.head_width;
  HeadScratch own(scratch, width);
  auto row = [&](int buffer) {
    return step.buffers[buffer].floats + text * step.buffers[buffer].numbers() + number * width;
  };
  const float *q = row(op.source), *v = row(op.value);
  int64_t record_size = record_bytes(op.cache_type, width), stride = step.batch * step.plan->page_bytes;
  char* pages = step.pages + text * step.plan->page_bytes + op.page_offset + number * kPage * record_size;
  auto record = [&](int64_t position) {
    return Record<T>{pages + position / kPage * stride + position % kPage * record_size, width};
  };
  int64_t n = step.lengths[text], bucket_size = op.slots + 1, round_size = op.n_buckets() * bucket_size;
  int32_t* tables = step.tables + text * step.plan->table_numbers + op.table_offset + number * op.rounds * round_size;
  int32_t* seen = reinterpret_cast<int32_t*>(own.scores + round_up(op.rounds * op.slots, kPanel));
  float* near = reinterpret_cast<float*>(seen + round_up(op.rounds * op.slots, kPanel));
  int64_t n_seen = 0;
  for (int64_t r = 0; r < op.rounds; r++) {
    const float* directions = op.directions + (number * op.rounds + r) * op.n_directions() * width;
    int32_t* table = tables + r * round_size + bucket_of(op, q, directions, near) * bucket_size;
    n_seen = enter(table, op.slots, n, seen, n_seen);
  }
  for (int64_t i = 0; i < n_seen && i < kRecordsAhead; i++) fetch(record(seen[i]).base, record_size);
  to_unit_key(q, own.key, width);
  record(n).write(own.key, v);
  for (int64_t i = 0; i < n_seen; i++) {
    if (i + kRecordsAhead < n_seen) fetch(record(seen[i + kRecordsAhead]).base, record_size);
    Record<T> from = record(seen[i]);
    own.scores[i] = dot(from.key(), q, width) * from.key_scale();
  }
  float sum = n_seen ? exponentials(own.scores, largest(own.scores, n_seen), n_seen) : 1;
  memset(own.result, 0, static_cast<size_t>(width) * 4);
  using Number = typename Stored<T>::Type;
  for (int64_t i = 0; i < n_seen; i += 4) {
    int64_t count = n_seen - i < 4 ? n_seen - i : 4;
    const Number* rows[4];
    float weights[4];
    for (int64_t j = 0; j < count; j++) {
      Record<T> from = record(seen[i + j]);
      rows[j] = from.value();
      weights[j] = own.scores[i + j] * from.value_scale();
    }
    if (count == 4)
      add_rows<Number, 4>(rows, weights, own.result, width);
    else
      for (int64_t j = 0; j < count; j++) add_rows<Number, 1>(rows + j, weights + j, own.result, width);
  }
  put(op, n_seen ? own.result : v, sum, row(op.target));
}

template <class T>
void attend_hashed(const Step& step, const Operation& op, Range range, char* scratch) {
  for (int64_t task = range.begin; task < range.end; task++)
    attend_hashed_head<T>(step, op, task / op.heads, task % op.heads, scratch);
}

}  // namespace NATIVE_VARIANT
}  // namespace native
