// The sparse feed-forward layer: picks one unit per block and reads its row of w1, then sums the picked rows of w2.
#pragma once
#include "attention.h"

namespace native {
namespace NATIVE_VARIANT {

constexpr int64_t kLag = 3;       // blocks between a pick, which prefetches a row, and the use of that row
constexpr int64_t kColumns = 64;  // summed by one task

template <class T>
INLINE float first_product(const Rows& table, int64_t unit, const Buffer& x, int64_t text) {
  const char* row = table.row(unit);
  if constexpr (sizeof(T) == 1) {
    const float* scales = x.scales + text * x.n_segments();
    const int16_t* shorts = x.shorts + text * x.stride;
    return dot_scaled(reinterpret_cast<const int8_t*>(row), shorts, scales, x.segment, table.width) *
           table.scales[unit];
  } else {
    using Number = typename Stored<T>::Type;
    return dot(reinterpret_cast<const Number*>(row), x.floats + text * x.stride, table.width);
  }
}

// Picks the units of a range of blocks and computes relu(x w1) for each. T is the type of the controller's matrix, R
// that of the rows.
template <class T, class R>
void pick(const Step& step, const Operation& op, Range range, float* logits) {
  const Matrix& m = *op.matrix;
  const Rows& table = *op.table;
  const Buffer &low = step.buffers[op.source], &x = step.buffers[op.second], &hidden = step.buffers[op.target];
  int64_t n_panels = (op.block + kPanel - 1) / kPanel, width = n_panels * kPanel;
  int32_t* units = step.units + step.batch * step.plan->pick_blocks[op.pick];
  const int32_t* given = step.given_units ? step.given_units + (units - step.units) : nullptr;
  auto read_rows = [&](int64_t block) {
    for (int64_t text = 0; text < step.batch; text++) {
      int64_t at = text * op.n_blocks + block;
      float h = first_product<R>(table, block * op.block + units[at], x, text);
      float* y = hidden.floats + text * hidden.stride + block;
      *y = (h > 0 ? h : 0) * *y;  // holds the gain until now
    }
  };
  for (int64_t block = range.begin; block < range.end; block++) {
    for (int64_t text = 0, count; text < step.batch; text += count) {
      count = step.batch - text < kChunkRows ? step.batch - text : kChunkRows;
      for (int64_t s = 0; s < m.n_stretches(); s++)
        multiply<T>(m, s, block * n_panels, n_panels, plain_input<T>(low, text, s * m.stretch), count,
                    {logits, width, s > 0});
      for (int64_t i = 0; i < count; i++) {
        float* row = logits + i * width;
        for (int64_t j = 0; j < width; j += kLanes) store(row + j, load(row + j) + load(op.bias + block * width + j));
        int64_t at = (text + i) * op.n_blocks + block;
        float top = largest(row, op.block);
        int64_t unit = given ? given[at] : place_of(row, top, op.block);
        units[at] = static_cast<int32_t>(unit);
        fetch(table.row(block * op.block + unit), table.width * size_of(table.type));
        float gain = 1;
        if (op.by_gain) {
          float chosen = exponential(all(row[unit] - top))[0];
          gain = chosen / exponentials(row, top, op.block);
        }
        hidden.floats[(text + i) * hidden.stride + block] = gain;
      }
    }
    if (block - kLag >= range.begin) read_rows(block - kLag);
  }
  for (int64_t block = range.end - kLag > range.begin ? range.end - kLag : range.begin; block < range.end; block++)
    read_rows(block);
}

// Sums the picked rows of w2 over a range of columns; rows of units that are 0 are not read.
template <class R>
void gather(const Step& step, const Operation& op, Range range, float* sums) {
  using Number = typename Stored<R>::Type;
  const Rows& table = *op.table;
  const Buffer& hidden = step.buffers[op.source];
  const Buffer& target = step.buffers[op.target];
  const int32_t* units = step.units + step.batch * step.plan->pick_blocks[op.pick];
  int64_t first = range.begin * kColumns,
          last = range.end * kColumns < table.width ? range.end * kColumns : table.width;
  int64_t n = last - first;
  if (n <= 0) return;
  for (int64_t text = 0; text < step.batch; text++) {
    const Number* rows[4];
    float h[4];
    int count = 0;
    for (int64_t i = 0; i < n; i++) sums[i] = 0;
    for (int64_t block = 0; block < op.n_blocks; block++) {
      float x = hidden.floats[text * hidden.stride + block];
      if (x == 0) continue;
      int64_t unit = block * op.block + units[text * op.n_blocks + block];
      rows[count] = reinterpret_cast<const Number*>(table.row(unit)) + first;
      h[count] = table.scales ? x * table.scales[unit] : x;
      if (++count == 4) {
        add_rows<Number, 4>(rows, h, sums, n);
        count = 0;
      }
    }
    for (int i = 0; i < count; i++) add_rows<Number, 1>(rows + i, h + i, sums, n);
    float* y = target.floats + text * target.numbers() + first;
    for (int64_t i = 0; i < n; i++) {
      float v = sums[i] + op.bias[first + i];
      if (op.to_grid) v = __builtin_rintf(v * 65536.0f) * (1.0f / 65536.0f);
      y[i] = op.adds ? y[i] + v : v;
    }
  }
}

}  // namespace NATIVE_VARIANT
}  // namespace native
