// What a plan is made of: tensors, buffers and operations, checked once and then trusted.
//
// Letters: k inputs and n outputs of a matrix; a panel is 16 outputs side by side; a stretch is so many inputs that are
// added up apart, with scales of their own.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace native {

constexpr int kPanel = 16;       // outputs
constexpr int kPage = 64;        // positions of a cache that lie together
constexpr int kMostPairs = 512;  // of a stretch in 8 bits: more overflow 32
constexpr float kMostShort = 16383.0f;

enum class Type : int64_t { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };
inline int64_t size_of(Type type) { return type == Type::kFloat32 ? 4 : type == Type::kBfloat16 ? 2 : 1; }

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Bytes of a panel of k inputs, which are stored in pairs: its scales, where it has some, and its numbers.
inline int64_t panel_bytes(Type type, int64_t k) {
  return round_up((type == Type::kInt8 ? 4 * kPanel : 0) + round_up(k, 2) * kPanel * size_of(type), 64);
}

// Packed: stretch by stretch, of each panel by panel.
struct Matrix {
  Type type;
  int64_t k, n, stretch;
  const char* data;

  int64_t n_panels() const { return (n + kPanel - 1) / kPanel; }
  int64_t n_stretches() const { return (k + stretch - 1) / stretch; }
  int64_t length(int64_t s) const { return s + 1 < n_stretches() ? stretch : k - s * stretch; }
  const char* panel(int64_t s, int64_t p) const {
    return data + s * n_panels() * panel_bytes(type, stretch) + p * panel_bytes(type, length(s));
  }
  int64_t bytes() const {
    int64_t last = n_stretches() - 1;
    return n_panels() * (last * panel_bytes(type, stretch) + panel_bytes(type, length(last)));
  }
};

// As they are: n rows of `width` numbers; 8 bits have a scale a row.
struct Rows {
  Type type;
  int64_t n, width;
  const char* data;
  const float* scales;

  const char* row(int64_t i) const { return data + i * width * size_of(type); }
};

// Numbers between operations, of every text `rows` rows of `width`; with a segment also in 16 bits, a scale a segment.
struct Buffer {
  int64_t rows, width, segment;
  int64_t stride;  // from row to row

  float* floats = nullptr;
  int16_t* shorts = nullptr;
  float* scales = nullptr;

  int64_t n_segments() const { return segment ? (width + segment - 1) / segment : 0; }
  int64_t numbers() const { return rows * stride; }
};

enum class Kind : int64_t {
  kNorm = 1,
  kGate = 2,
  kDense = 3,
  kHistory = 4,
  kAttend = 5,
  kPick = 6,
  kGather = 7,
  kRecur = 8,
  kMix = 9,
  kQuantise = 10,
  kAddUp = 11,  // the second part of a kDense whose stretches are computed side by side; no plan has it
};

struct Operation {
  Kind kind;
  bool meets;  // whether all threads wait for each other behind it

  int source = -1, second = -1, target = -1, addend = -1;  // buffers
  const Matrix* matrix = nullptr;
  const Rows* table = nullptr;
  const float* scale = nullptr;  // of a normalisation
  const float* bias = nullptr;
  int64_t rows = 1;                       // of the result for each text
  int64_t offset = 0, second_offset = 0;  // where a window begins in its buffers' rows
  int64_t step = 0;                       // from window to window; 0: no windows
  bool relu = false, adds = false, to_grid = false, root_mean_square = false, tanh = false, by_gain = false;
  bool apart = false;  // stretches are computed side by side, to be added up
  // Of attention.
  int64_t heads = 0, head_width = 0, page_offset = 0;
  Type cache_type = Type::kFloat32;
  bool of_memory = false, shared_keys = false;
  int key = -1, value = -1;
  // Of histories and recurrences: where they lie in the state of a text.
  int64_t state_offset = 0;
  // Of picks.
  int64_t block = 0, n_blocks = 0;
  int pick = -1;
};

struct Plan {
  std::vector<Buffer> buffers;
  std::vector<Matrix> matrices;
  std::vector<Rows> tables;
  std::vector<Operation> operations;
  std::vector<int64_t> pick_blocks;  // blocks of all picks before each
  std::vector<int64_t> unit_limits;  // units of a block, of each block of all picks
  int64_t page_bytes = 0, memory_page_bytes = 0, state_numbers = 0;
  int64_t partial_numbers = 0;  // of the largest operation that is computed apart, for each text
  int64_t widest = 0;           // of a head, or of the units of a block
};

// One call: its arguments, and the plan's memory for as many texts.
struct Step {
  const Plan* plan;
  int64_t batch;
  Buffer* buffers;
  const int32_t* lengths;  // positions that each text has in the cache
  char* pages;             // [page, text, bytes]
  int64_t n_pages;
  const int32_t* memory_lengths;
  const char* memory;  // as `pages`
  int64_t n_memory_pages;
  float* state;  // [text, numbers]
  float* partial;
  const int32_t* given_units;  // to be taken in the place of the best; or null
  int32_t* units;              // [pick][text, block]
  char* const* scratch;        // of each thread
};

// Bytes of a head in a page: scales of keys and of values in 8 bits, keys as a matrix of 64 outputs, values of 64 inputs.
inline int64_t head_bytes(Type type, int64_t width) {
  int64_t scales = type == Type::kInt8 ? 2 * kPage * 4 : 0;
  return scales + (round_up(width, 2) * kPage + kPage * round_up(width, kPanel)) * size_of(type);
}

}  // namespace native
