// Arithmetic on rows: dot products, sums, normalization, rounding to 16 bits.
//
// Rows of activations are followed by enough memory to read and write whole vectors at their ends.
#pragma once
#include "simd.h"
#include "types.h"

namespace native {
namespace NATIVE_VARIANT {

// One vector of a row, as float32.
INLINE Floats widened(const float* p) { return load(p); }
INLINE Floats widened(const uint16_t* p) {
  return as_floats(__builtin_convertvector(load_as<HalvesInLanes>(p), Bits) << 16);
}
INLINE Floats widened(const int8_t* p) { return to_floats(to_ints(load_as<BytesInLanes>(p))); }

INLINE float single(float x) { return x; }
INLINE float single(int8_t x) { return x; }
INLINE float single(uint16_t x) {
  uint32_t bits = static_cast<uint32_t>(x) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}

template <class T>
INLINE float dot(const T* w, const float* x, int64_t n) {
  Floats sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    each<4>(EACH(u) { sum[u] = multiply_add(widened(w + i + u * kLanes), load(x + i + u * kLanes), sum[u]); });
  for (; i + kLanes <= n; i += kLanes) sum[0] = multiply_add(widened(w + i), load(x + i), sum[0]);
  float total = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < n; i++) total += single(w[i]) * x[i];
  return total;
}

// Dot product of int8 by int16, in stretches short enough for 32-bit sums; each has a scale of the activations.
INLINE float dot_scaled(const int8_t* w, const int16_t* x, const float* scales, int64_t segment, int64_t n) {
  float total = 0;
  int64_t most = segment < 2 * kMostPairs ? segment : 2 * kMostPairs;
  for (int64_t begin = 0; begin < n; begin += most) {
    int64_t end = begin + most < n ? begin + most : n, i = begin;
    Ints sum[4] = {};
    for (; i + 8 * kLanes <= end; i += 8 * kLanes)
      each<4>(EACH(u) {
        Shorts both = to_shorts(load_as<Bytes>(w + i + u * 2 * kLanes));
        sum[u] = add_pairs(sum[u], both, load_as<Shorts>(x + i + u * 2 * kLanes));
      });
    int32_t whole = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < end; i++) whole += static_cast<int32_t>(w[i]) * x[i];
    total += static_cast<float>(whole) * scales[begin / segment];
  }
  return total;
}

// y += h[0] w[0] + h[1] w[1] ..., in this order.
template <class T, int N>
INLINE void add_rows(const T* const* w, const float* h, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Floats sum = load(y + i);
    each<N>(EACH(j) { sum = multiply_add(all(h[j]), widened(w[j] + i), sum); });
    store(y + i, sum);
  }
  for (; i < n; i++)
    for (int j = 0; j < N; j++) y[i] = multiply_add(all(h[j]), all(single(w[j][i])), all(y[i]))[0];
}

INLINE float largest_magnitude(const float* x, int64_t n) {
  Floats most = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = larger(magnitude(load(x + i)), most);
  float top = largest_of(most);
  for (; i < n; i++) top = __builtin_fabsf(x[i]) > top ? __builtin_fabsf(x[i]) : top;
  return top;
}

// Rounds to 16 bits and returns the scale, for the largest magnitude `top`. Pads with a zero to an even length.
INLINE float to_shorts(const float* x, float top, int16_t* y, int64_t n) {
  // NaN, infinity and all zeros become zeros.
  if (!(top > 1e-30f && top < 1e30f)) {
    memset(y, 0, static_cast<size_t>(round_up(n, 2)) * 2);
    return top > 1e30f || top != top ? __builtin_nanf("") : 0.0f;
  }
  float factor = kMostShort / top;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    ShortsInLanes few = __builtin_convertvector(nearest(load(x + i) * all(factor)), ShortsInLanes);
    memcpy(y + i, &few, sizeof few);
  }
  for (; i < n; i++) y[i] = static_cast<int16_t>(nearest(all(x[i] * factor))[0]);
  if (n % 2) y[n] = 0;
  return top / kMostShort;
}
INLINE float to_shorts(const float* x, int16_t* y, int64_t n) { return to_shorts(x, largest_magnitude(x, n), y, n); }

// Rounds a row of a buffer to 16 bits, segment by segment.
INLINE void row_to_shorts(const Buffer& buffer, int64_t row) {
  const float* x = buffer.floats + row * buffer.stride;
  for (int64_t s = 0; s < buffer.n_segments(); s++) {
    int64_t begin = s * buffer.segment, left = buffer.width - begin;
    buffer.scales[row * buffer.n_segments() + s] = to_shorts(x + begin, buffer.shorts + row * buffer.stride + begin,
                                                             left < buffer.segment ? left : buffer.segment);
  }
}

// LayerNorm (`centered`) or RMSNorm of a row, or of the mean of two rows.
INLINE void normalize(const float* x, const float* other, const float* scale, const float* bias, bool centered,
                      float* y, int64_t n) {
  int64_t whole = n / kLanes * kLanes;
  Floats sums = {};
  float sum = 0;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Floats v = other ? (load(x + i) + load(other + i)) * all(0.5f) : load(x + i);
    store(y + i, v);
    sums += v;
  }
  for (int64_t i = whole; i < n; i++) sum += y[i] = other ? (x[i] + other[i]) * 0.5f : x[i];
  float mean = centered ? (sum_of(sums) + sum) / static_cast<float>(n) : 0.0f;
  Floats squares = {};
  float square = 0;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Floats v = load(y + i) - all(mean);
    squares = multiply_add(v, v, squares);
  }
  for (int64_t i = whole; i < n; i++) square += (y[i] - mean) * (y[i] - mean);
  float factor = 1.0f / __builtin_sqrtf((sum_of(squares) + square) / static_cast<float>(n) + 1e-6f);
  for (int64_t i = 0; i < whole; i += kLanes) {
    Floats v = (load(y + i) - all(mean)) * all(factor) * load(scale + i);
    store(y + i, bias ? v + load(bias + i) : v);
  }
  for (int64_t i = whole; i < n; i++) {
    y[i] = (y[i] - mean) * factor * scale[i];
    if (bias) y[i] += bias[i];
  }
}

// x = exp(x - most); returns the sum.
INLINE float exponentials(float* x, float most, int64_t n) {
  Floats sums = {};
  float sum = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Floats v = exponential(load(x + i) - all(most));
    sums += v;
    store(x + i, v);
  }
  for (; i < n; i++) sum += x[i] = exponential(all(x[i] - most))[0];
  return sum_of(sums) + sum;
}

INLINE float largest(const float* x, int64_t n) {
  float top = x[0];
  int64_t i = 0;
  if (n >= kLanes) {
    Floats most = load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes) most = larger(load(x + i), most);
    top = largest_of(most);
  }
  for (; i < n; i++) top = x[i] > top ? x[i] : top;
  return top;
}

// Index of the first number equal to `value`, which is the largest.
INLINE int64_t place_of(const float* x, float value, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Ints equal = load(x + i) == all(value);
#if defined(__AVX512BW__)
    if (uint32_t found = _mm512_movepi32_mask(reinterpret_cast<__m512i>(equal))) return i + __builtin_ctz(found);
#else
    for (int lane = 0; lane < kLanes; lane++)
      if (equal[lane]) return i + lane;
#endif
  }
  for (; i < n; i++)
    if (x[i] == value) return i;
  return 0;
}

}  // namespace NATIVE_VARIANT
}  // namespace native
