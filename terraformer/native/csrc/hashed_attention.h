// Attention of one position to the most recent positions in its buckets (Reformer, Kitaev et al., 2020).
//
// A page holds 64 positions of a text. For each head, it has the rows of their keys and of their values, which are read
// one by one. For each head, round and bucket, the tables of a text hold the number of positions so far and `slots`
// positions; number i of a bucket is in slot i mod `slots`.
#pragma once
#include "attention.h"

namespace native {
namespace NATIVE_VARIANT {

constexpr int64_t kRowsAhead = 8;  // rows that are prefetched before they are used

template <class T>
struct RowsOfHead {
  using Number = typename Stored<T>::Type;
  char* base;
  int64_t width;

  int64_t stride() const { return round_up(width, kPanel); }
  float* key_scales() const { return reinterpret_cast<float*>(base); }
  float* value_scales() const { return key_scales() + kPage; }
  Number* key(int64_t at) const {
    return reinterpret_cast<Number*>(base + (sizeof(T) == 1 ? 2 * kPage * 4 : 0)) + at * stride();
  }
  Number* value(int64_t at) const { return key(kPage + at); }
  float key_scale(int64_t at) const { return sizeof(T) == 1 ? key_scales()[at] : 1; }
  float value_scale(int64_t at) const { return sizeof(T) == 1 ? value_scales()[at] : 1; }

  void write(int64_t at, const float* k, const float* v) const {
    rounded(k, sizeof(T) == 1 ? to_scale(k, key_scales() + at) : 1, key(at), width);
    rounded(v, sizeof(T) == 1 ? to_scale(v, value_scales() + at) : 1, value(at), width);
  }
  float to_scale(const float* x, float* scale) const {
    float top = largest_magnitude(x, width);
    *scale = top / 127;
    return top > 0 ? 127 / top : 0;
  }
};

// The bucket of a query in a round. Its digits are the nearest among the directions of each factor and their opposites;
// the first factor is the least significant.
INLINE int64_t bucket_of(const Operation& op, const float* q, const float* directions) {
  int64_t bucket = 0, scale = 1;
  for (int64_t f = 0; f < op.n_factors; f++) {
    int64_t factor = op.factors[f], nearest = 0, farthest = 0;
    float most = -__builtin_inff(), least = __builtin_inff();
    for (int64_t i = 0; i < factor / 2; i++, directions += op.head_width) {
      float x = dot(directions, q, op.head_width);
      if (x > most) most = x, nearest = i;
      if (x < least) least = x, farthest = i;
    }
    bucket += scale * (most >= -least ? nearest : farthest + factor / 2);
    scale *= factor;
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
  auto head = [&](int64_t position) {
    int64_t page = position / kPage;
    return RowsOfHead<T>{step.pages + (page * step.batch + text) * step.plan->page_bytes + op.page_offset +
                             number * head_bytes_in_rows(op.cache_type, width),
                         width};
  };
  int64_t n = step.lengths[text], bucket_size = op.slots + 1, round_size = op.n_buckets() * bucket_size;
  int32_t* tables = step.tables + text * step.plan->table_numbers + op.table_offset + number * op.rounds * round_size;
  int32_t* seen = reinterpret_cast<int32_t*>(own.scores + round_up(op.rounds * op.slots, kPanel));
  int64_t n_seen = 0;
  for (int64_t r = 0; r < op.rounds; r++) {
    const float* directions = op.directions + (number * op.rounds + r) * op.n_directions() * width;
    int32_t* table = tables + r * round_size + bucket_of(op, q, directions) * bucket_size;
    n_seen = enter(table, op.slots, n, seen, n_seen);
  }
  for (int64_t i = 0; i < n_seen && i < kRowsAhead; i++) fetch(head(seen[i]).key(seen[i] % kPage), width * sizeof(T));
  to_unit_key(q, own.key, width);
  head(n).write(n % kPage, own.key, v);
  for (int64_t i = 0; i < n_seen; i++) {
    if (i + kRowsAhead < n_seen) fetch(head(seen[i + kRowsAhead]).key(seen[i + kRowsAhead] % kPage), width * sizeof(T));
    RowsOfHead<T> from = head(seen[i]);
    int64_t at = seen[i] % kPage;
    own.scores[i] = dot(from.key(at), q, width) * from.key_scale(at);
  }
  float sum = n_seen ? exponentials(own.scores, largest(own.scores, n_seen), n_seen) : 1;
  memset(own.result, 0, static_cast<size_t>(width) * 4);
  using Number = typename Stored<T>::Type;
  for (int64_t i = 0; i < n_seen; i += 4) {
    int64_t count = n_seen - i < 4 ? n_seen - i : 4;
    const Number* rows[4];
    float weights[4];
    for (int64_t j = 0; j < count; j++) {
      int64_t ahead = i + j + kRowsAhead < n_seen ? seen[i + j + kRowsAhead] : seen[i + j], at = seen[i + j] % kPage;
      fetch(head(ahead).value(ahead % kPage), width * sizeof(T));
      rows[j] = head(seen[i + j]).value(at);
      weights[j] = own.scores[i + j] * head(seen[i + j]).value_scale(at);
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
