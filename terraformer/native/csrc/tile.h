// The tile that every product is made of: a few rows of activations times a few panels of 16 outputs.
//
// Weights are stored in pairs of inputs: [pair][output][2], or [pair][2][output] in float32. A weight is unpacked once
// for all rows of a tile. Each sum visits the inputs in the same order whatever the tile's size, so the result of a row
// does not depend on the rows next to it.
#pragma once
#include "simd.h"
#include "types.h"

namespace native {
namespace NATIVE_VARIANT {

struct Bfloat16 {
  uint16_t bits;
};

// With int8 weights, activations are int16, so that a product of pairs is one instruction.
template <class T>
struct Of {
  using Activation = float;
  using Sum = Floats;
  static constexpr int kApart = kSums;
};
template <>
struct Of<int8_t> {
  using Activation = int16_t;
  using Sum = Ints;
  static constexpr int kApart = 1;
};

constexpr int kVectors = kPanel / kLanes;  // per panel

struct Target {
  float* c;
  int64_t stride;
  bool adds;  // whether to add to the present values
};

// Scales of int8 panels, which may be stored elsewhere.
struct Scales {
  const float* row;
  int64_t row_step;
  const float* outputs;  // of the first panel
  int64_t output_step;
};

template <class T, int R, int P>
INLINE void tile(const typename Of<T>::Activation* a, int64_t a_stride, int64_t pairs, const char* b, int64_t b_stride,
                 Target to, Scales scales) {
  using Sum = typename Of<T>::Sum;
  constexpr int kApart = Of<T>::kApart;
  constexpr int kResults = R * P * kVectors;  // vectors
  // A small tile has too few sums to keep the multipliers busy, so successive pairs go to sums of their own. Only
  // integers allow that, since the order of float additions may not depend on the tile.
  constexpr int kAhead = sizeof(T) > 1 || kResults >= 8 ? 1 : kResults >= 4 ? 2 : 4;
  Sum sum[kResults * kApart * kAhead];
  each<kResults * kApart * kAhead>(EACH(i) { sum[i] = Sum{}; });
  auto add_pair = [&](int64_t i, auto ahead) __attribute__((always_inline)) {
    each<P>(EACH(p) {
      each<kVectors>(EACH(v) {
        const char* w = b + p * b_stride + (i * 2 * kPanel + 2 * kLanes * v) * sizeof(T);
        if constexpr (sizeof(T) == 4) {
          const float* even = reinterpret_cast<const float*>(b + p * b_stride) + i * 2 * kPanel + kLanes * v;
          Floats w0 = load(even), w1 = load(even + kPanel);
          each<R>(EACH(r) {
            constexpr int at = ((r * P + p) * kVectors + v) * kApart;
            const float* x = a + r * a_stride + 2 * i;
            sum[at] = multiply_add(all(x[0]), w0, sum[at]);
            sum[at + kApart - 1] = multiply_add(all(x[1]), w1, sum[at + kApart - 1]);
          });
        } else if constexpr (sizeof(T) == 2) {
          Bits both = load_as<Bits>(w);
          Floats w0 = as_floats(both << 16), w1 = as_floats(both & (Bits{} + 0xFFFF0000u));
          each<R>(EACH(r) {
            constexpr int at = ((r * P + p) * kVectors + v) * kApart;
            const float* x = a + r * a_stride + 2 * i;
            sum[at] = multiply_add(all(x[0]), w0, sum[at]);
            sum[at + kApart - 1] = multiply_add(all(x[1]), w1, sum[at + kApart - 1]);
          });
        } else {
          Shorts both = to_shorts(load_as<Bytes>(w));
          each<R>(EACH(r) {
            constexpr int at = ahead * kResults + (r * P + p) * kVectors + v;
            Shorts x = reinterpret_cast<Shorts>(all(load_as<int32_t>(a + r * a_stride + 2 * i)));
            sum[at] = add_pairs(sum[at], x, both);
          });
        }
      });
    });
  };
  int64_t i = 0;
  for (; i + kAhead <= pairs; i += kAhead) each<kAhead>(EACH(ahead) { add_pair(i + ahead, ahead); });
  for (; i < pairs; i++) add_pair(i, std::integral_constant<int, 0>{});
  each<kResults*(kAhead - 1)>(EACH(i) { sum[i % kResults] += sum[i + kResults]; });
  each<R>(EACH(r) {
    each<P>(EACH(p) {
      each<kVectors>(EACH(v) {
        constexpr int at = ((r * P + p) * kVectors + v) * kApart;
        float* c = to.c + r * to.stride + p * kPanel + v * kLanes;
        Floats before = to.adds ? load(c) : Floats{};
        if constexpr (sizeof(T) == 1) {
          Floats scale = load(scales.outputs + p * scales.output_step + v * kLanes);
          store(c, multiply_add(to_floats(sum[at]), scale * all(scales.row[r * scales.row_step]), before));
        } else if constexpr (kApart == 2) {
          store(c, before + (sum[at] + sum[at + 1]));
        } else {
          store(c, before + sum[at]);
        }
      });
    });
  });
}

// Any number of rows and panels, tile by tile; `b` points to the numbers of the first panel.
template <class T>
struct Tiles {
  using A = typename Of<T>::Activation;
  // Panels in a tile of a given number of rows, and the most rows in a tile of one panel.
  static constexpr int kMost = kTileSums / kVectors / Of<T>::kApart;
  static constexpr int kMostRows = kMost < 8 ? kMost : 8;
  static constexpr int panels_for(int rows) { return kMost / rows >= 4 ? 4 : kMost / rows >= 2 ? 2 : 1; }

  template <int R>
  static INLINE void rows(const A* a, int64_t a_stride, int64_t pairs, const char* b, int64_t b_stride,
                          int64_t n_panels, Target to, Scales scales) {
    constexpr int most = panels_for(R);
    int64_t p = 0;
    auto next = [&](int count) __attribute__((always_inline)) {
      b += count * b_stride;
      p += count;
      to.c += count * kPanel;
      scales.outputs += count * scales.output_step;
    };
    if constexpr (most >= 4)
      for (; p + 4 <= n_panels; next(4)) tile<T, R, 4>(a, a_stride, pairs, b, b_stride, to, scales);
    if constexpr (most >= 2)
      for (; p + 2 <= n_panels; next(2)) tile<T, R, 2>(a, a_stride, pairs, b, b_stride, to, scales);
    for (; p < n_panels; next(1)) tile<T, R, 1>(a, a_stride, pairs, b, b_stride, to, scales);
  }

  static __attribute__((noinline)) void run(const A* a, int64_t a_stride, int64_t n_rows, int64_t pairs, const char* b,
                                            int64_t b_stride, int64_t n_panels, Target to, Scales scales) {
    while (n_rows) {
      // Tiles of nearly equal size: 10 rows are 5 and 5, not 8 and 2.
      int64_t blocks = (n_rows + kMostRows - 1) / kMostRows, count = (n_rows + blocks - 1) / blocks;
      pick<kMostRows>(count, a, a_stride, pairs, b, b_stride, n_panels, to, scales);
      a += count * a_stride;
      to.c += count * to.stride;
      scales.row += count * scales.row_step;
      n_rows -= count;
    }
  }

  template <int R, class... Rest>
  static INLINE void pick(int64_t count, Rest... rest) {
    if constexpr (R > 1)
      if (count < R) return pick<R - 1>(count, rest...);
    rows<R>(rest...);
  }
};

}  // namespace NATIVE_VARIANT
}  // namespace native
