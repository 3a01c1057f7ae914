// The widest vectors of the processor that a file is compiled for.
//
// A file that includes this is compiled once per variant, in a namespace named NATIVE_VARIANT. Everything here is in
// that namespace or inlined, so the linker cannot mix up the variants. Arithmetic uses the compiler's vector types, and
// intrinsics only where these cannot express it.
#pragma once
#include <stdint.h>
#include <string.h>

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace native {
namespace NATIVE_VARIANT {

#if defined(__AVX512BW__)
constexpr int kLanes = 16;
// Separate sums of a dot product (even and odd terms), and sums of a tile: as many as there are registers for.
constexpr int kSums = 2;
constexpr int kTileSums = 24;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kSums = 1;
constexpr int kTileSums = 12;
#else
constexpr int kLanes = 4;
constexpr int kSums = 1;
constexpr int kTileSums = 8;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef int16_t Shorts __attribute__((vector_size(4 * kLanes)));
typedef int8_t Bytes __attribute__((vector_size(2 * kLanes)));
// As many small numbers as there are 32-bit lanes.
typedef int16_t ShortsInLanes __attribute__((vector_size(2 * kLanes)));
typedef uint16_t HalvesInLanes __attribute__((vector_size(2 * kLanes)));
typedef int8_t BytesInLanes __attribute__((vector_size(kLanes)));

// Calls f with each index below N as a constant expression. Compilers keep small arrays in registers only if every
// index is constant before inlining; loops over them spill to memory.
template <int... I, class F>
INLINE void each_of(std::integer_sequence<int, I...>, F&& f) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
INLINE void each(F&& f) {
  each_of(std::make_integer_sequence<int, N>{}, f);
}
#define EACH(name) [&](auto name) __attribute__((always_inline))

INLINE Floats all(float x) { return x - Floats{}; }
INLINE Ints all(int32_t x) { return x - Ints{}; }

template <class V>
INLINE V load_as(const void* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE Floats load(const float* p) { return load_as<Floats>(p); }
INLINE void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }

// Sign-extends bytes to 16 bits.
INLINE Shorts to_shorts(Bytes v) {
#if defined(__AVX512BW__)
  // GCC 12 converts 512 bits in two halves otherwise.
  return reinterpret_cast<Shorts>(_mm512_cvtepi8_epi16(reinterpret_cast<__m256i>(v)));
#else
  return __builtin_convertvector(v, Shorts);
#endif
}
// Sign-extends as many bytes as a vector has 32-bit lanes.
INLINE Ints to_ints(BytesInLanes v) {
  // In two steps: GCC 12 converts 8 to 32 bits number by number.
  return __builtin_convertvector(__builtin_convertvector(v, ShortsInLanes), Ints);
}

INLINE Floats as_floats(Bits v) { return reinterpret_cast<Floats>(v); }
INLINE Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }

// a * b + c, fused where the processor can.
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512BW__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats magnitude(Floats a) { return as_floats(reinterpret_cast<Bits>(a) & (Bits{} + 0x7FFFFFFFu)); }

// Rounds to the nearest integer, ties to even.
INLINE Ints nearest(Floats x) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Ints>(_mm512_cvtps_epi32(x));
#elif defined(__AVX2__)
  return reinterpret_cast<Ints>(_mm256_cvtps_epi32(x));
#elif defined(__SSE2__)
  return reinterpret_cast<Ints>(_mm_cvtps_epi32(x));
#else
  Ints y;
  for (int i = 0; i < kLanes; i++) y[i] = static_cast<int32_t>(__builtin_rintf(x[i]));
  return y;
#endif
}

// Adds to each 32-bit lane the two products of its pairs of 16-bit numbers.
INLINE Ints add_pairs(Ints sum, Shorts a, Shorts b) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<Ints>(
      _mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#else
#if defined(__AVX512BW__)
  sum += reinterpret_cast<Ints>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  sum += reinterpret_cast<Ints>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE2__)
  sum += reinterpret_cast<Ints>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  Ints x = reinterpret_cast<Ints>(a), y = reinterpret_cast<Ints>(b);
  sum += ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
#if defined(__x86_64__)
  // GCC may reorder integer additions, and picks an order that needs more registers than there are; this pins the
  // order.
  asm("" : "+x"(sum));
#endif
  return sum;
#endif
}

INLINE float sum_of(Floats v) {
#if defined(__AVX512BW__)
  return _mm512_reduce_add_ps(v);
#else
  float sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
#endif
}
INLINE int32_t sum_of(Ints v) {
#if defined(__AVX512BW__)
  return _mm512_reduce_add_epi32(reinterpret_cast<__m512i>(v));
#else
  int32_t sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
#endif
}
INLINE float largest_of(Floats v) {
#if defined(__AVX512BW__)
  return _mm512_reduce_max_ps(v);
#else
  float most = v[0];
  for (int i = 1; i < kLanes; i++) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

// exp(x) to a relative error of 2e-7; x is clamped to [-87, 88].
INLINE Floats exponential(Floats x) {
  x = smaller(larger(x, all(-87.0f)), all(88.0f));
  Ints n = nearest(x * all(1.442695041f));
  Floats r = multiply_add(to_floats(n), all(-0.693359375f), x);
  r = multiply_add(to_floats(n), all(2.12194440e-4f), r);
  Floats p = all(1.9875691500e-4f);
  p = multiply_add(p, r, all(1.3981999507e-3f));
  p = multiply_add(p, r, all(8.3334519073e-3f));
  p = multiply_add(p, r, all(4.1665795894e-2f));
  p = multiply_add(p, r, all(1.6666665459e-1f));
  p = multiply_add(p, r, all(5.0000001201e-1f));
  p = multiply_add(p, r * r, r) + all(1.0f);
  return p * as_floats(reinterpret_cast<Bits>((n + 127) << 23));
}
INLINE Floats sigmoid(Floats x) { return all(1.0f) / (all(1.0f) + exponential(-x)); }
INLINE Floats hyperbolic_tangent(Floats x) { return all(2.0f) * sigmoid(x + x) - all(1.0f); }

INLINE void fetch(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(p) + i);
}

}  // namespace NATIVE_VARIANT
}  // namespace native
