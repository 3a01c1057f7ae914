// Matrix products: a range of panels times all rows of a batch, then bias, addend, ReLU and the residual stream.
#pragma once
#include "rows.h"
#include "tile.h"

namespace native {
namespace NATIVE_VARIANT {

constexpr int kChunkRows = 64, kChunkPanels = 4;  // computed at a time, in scratch memory

// Tasks [begin, end) of an operation.
struct Range {
  int64_t begin, end;
};

// The input rows of a product within one stretch.
template <class T>
struct Input {
  const typename Of<T>::Activation* a;
  int64_t stride;
  const float* scales;
  int64_t scale_step;
};

template <class T>
INLINE const typename Of<T>::Activation* numbers_of(const Buffer& buffer) {
  if constexpr (sizeof(T) == 1)
    return buffer.shorts;
  else
    return buffer.floats;
}

// Rows from `row` on, of a buffer with one row per row of the result.
template <class T>
INLINE Input<T> plain_input(const Buffer& from, int64_t row, int64_t first) {
  const float* scales = from.segment ? from.scales + row * from.n_segments() + first / from.segment : nullptr;
  return {numbers_of<T>(from) + row * from.stride + first, from.stride, scales, from.n_segments()};
}

// Windows of a text: stretch s reads one position of one of the two buffers; each row starts `step` after the previous
// one.
template <class T>
INLINE Input<T> window_input(const Step& step, const Operation& op, int64_t text, int64_t s) {
  int n_sources = op.second < 0 ? 1 : 2;
  const Buffer& from = step.buffers[s % n_sources ? op.second : op.source];
  int64_t row = text * from.rows + s / n_sources;
  int64_t at = row * from.stride + (s % n_sources ? op.second_offset : op.offset);
  return {numbers_of<T>(from) + at, op.step, from.segment ? from.scales + row * from.n_segments() : nullptr, 0};
}

template <class T>
INLINE void multiply(const Matrix& m, int64_t s, int64_t panel, int64_t n_panels, Input<T> in, int64_t n_rows,
                     Target to) {
  const char* b = m.panel(s, panel);
  int64_t stride = panel_bytes(m.type, m.length(s)), header = sizeof(T) == 1 ? 4 * kPanel : 0;
  Scales scales{in.scales, in.scale_step, reinterpret_cast<const float*>(b), stride / 4};
  Tiles<T>::run(in.a, in.stride, n_rows, (m.length(s) + 1) / 2, b + header, stride, n_panels, to, scales);
}

// Finishes `n` outputs of one row, from `column` on: bias, addend, ReLU, rounding, residual stream.
INLINE void finish(const Step& step, const Operation& op, const float* sums, int64_t row, int64_t column, int64_t n) {
  int64_t text = row / op.rows, at = row % op.rows * op.matrix->n + column;
  const Buffer& target = step.buffers[op.target];
  float* y = target.floats + text * target.numbers() + at;
  const float* bias = op.bias ? op.bias + at : nullptr;
  const float* addend = nullptr;
  if (op.addend >= 0) addend = step.buffers[op.addend].floats + text * step.buffers[op.addend].numbers() + at;
  auto end = [&](Floats v, auto get, int64_t i) __attribute__((always_inline)) {
    if (bias) v = v + get(bias + i);
    if (addend) v = v + get(addend + i);
    if (op.relu) v = larger(v, Floats{});
    if (op.to_grid) v = to_floats(nearest(v * all(65536.0f))) * all(1.0f / 65536.0f);
    return op.adds ? v + get(y + i) : v;
  };
  auto one = [](const float* p) __attribute__((always_inline)) { return all(*p); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, end(load(sums + i), load, i));
  for (; i < n; i++) y[i] = end(all(sums[i]), one, i)[0];
}

template <class T>
void dense(const Step& step, const Operation& op, Range range, float* sums) {
  const Matrix& m = *op.matrix;
  int64_t n_rows = op.rows * step.batch, per_chunk = kChunkRows;
  if (op.step) per_chunk = op.rows < kChunkRows ? op.rows : kChunkRows;  // windows of one text at a time
  int64_t width = kChunkPanels * kPanel;
  for (int64_t panel = range.begin, count; panel < range.end; panel += count) {
    count = range.end - panel < kChunkPanels ? range.end - panel : kChunkPanels;
    int64_t column = panel * kPanel, n = m.n - column < count * kPanel ? m.n - column : count * kPanel;
    for (int64_t row = 0, rows; row < n_rows; row += rows) {
      rows = n_rows - row < per_chunk ? n_rows - row : per_chunk;
      if (op.step && op.rows - row % op.rows < rows) rows = op.rows - row % op.rows;
      for (int64_t s = 0; s < m.n_stretches(); s++) {
        Input<T> in;
        if (op.step) {
          in = window_input<T>(step, op, row / op.rows, s);
          in.a += row % op.rows * op.step;
        } else {
          in = plain_input<T>(step.buffers[op.source], row, s * m.stretch);
        }
        multiply<T>(m, s, panel, count, in, rows, {sums, width, s > 0});
      }
      for (int64_t r = 0; r < rows; r++) finish(step, op, sums + r * width, row + r, column, n);
    }
  }
}

// Computes the stretches of a range, each into its own memory: [stretch][row][outputs].
template <class T>
void dense_apart(const Step& step, const Operation& op, Range range) {
  const Matrix& m = *op.matrix;
  int64_t n_rows = op.rows * step.batch, width = m.n_panels() * kPanel;
  for (int64_t s = range.begin; s < range.end; s++) {
    Input<T> in = plain_input<T>(step.buffers[op.source], 0, s * m.stretch);
    multiply<T>(m, s, 0, m.n_panels(), in, n_rows, {step.partial + s * n_rows * width, width, false});
  }
}

// Sums the stretches in the same order as `dense`.
INLINE void add_up(const Step& step, const Operation& op, Range range, float* sums) {
  const Matrix& m = *op.matrix;
  int64_t n_rows = op.rows * step.batch, width = m.n_panels() * kPanel;
  for (int64_t row = range.begin; row < range.end; row++) {
    for (int64_t i = 0; i < width; i += kLanes) {
      Floats sum = load(step.partial + row * width + i);
      for (int64_t s = 1; s < m.n_stretches(); s++) sum += load(step.partial + (s * n_rows + row) * width + i);
      store(sums + i, sum);
    }
    finish(step, op, sums, row, 0, m.n);
    const Buffer& target = step.buffers[op.target];
    if (target.segment && op.rows == 1) row_to_shorts(target, row);
  }
}

}  // namespace NATIVE_VARIANT
}  // namespace native
