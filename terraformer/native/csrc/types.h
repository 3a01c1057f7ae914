// The parts of a plan: tensors, buffers and operations. They are checked once and then trusted.
//
// A matrix has k inputs and n outputs. A panel is 16 neighboring outputs. A stretch is a number of inputs that are
// summed separately and have their own scales.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

namespace native {

constexpr int kPanel = 16;  // outputs
constexpr int kPage = 64;   // positions in a page of the cache
constexpr int64_t kMostBuckets = 1 << 20;
constexpr int kMostFactors = 20;  // each is at least 2
constexpr int kMostPairs = 512;   // in an int8 stretch: more would overflow 32-bit sums
constexpr float kMostShort = 16383.0f;

enum class Type : int64_t { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };
inline int64_t size_of(Type type) { return type == Type::kFloat32 ? 4 : type == Type::kBfloat16 ? 2 : 1; }

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Bytes of a panel of k inputs: scales, if it has any, and numbers, in pairs of inputs.
inline int64_t panel_bytes(Type type, int64_t k) {
  return round_up((type == Type::kInt8 ? 4 * kPanel : 0) + round_up(k, 2) * kPanel * size_of(type), 64);
}

// A packed matrix: stretch by stretch, and panel by panel within a stretch.
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

// A table of n rows of `width` numbers; int8 rows have a scale each.
struct Rows {
  Type type;
  int64_t n, width;
  const char* data;
  const float* scales;

  const char* row(int64_t i) const { return data + i * width * size_of(type); }
};

// Activations between operations: `rows` rows of `width` for each text. If `segment` is set, also in 16 bits, with a
// scale for each segment of a row.
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
  kQuantize = 10,
  kAttendHashed = 11,
  kAddUp = 12,  // second part of a kDense whose stretches are computed in parallel; never in a plan from outside
};

struct Operation {
  Kind kind;
  bool meets;  // whether all threads synchronize after it

  int source = -1, second = -1, target = -1, addend = -1;  // buffers
  const Matrix* matrix = nullptr;
  const Rows* table = nullptr;
  const float* scale = nullptr;  // of a normalization
  const float* bias = nullptr;
  int64_t rows = 1;                       // of the result, per text
  int64_t offset = 0, second_offset = 0;  // start of a window in its buffers' rows
  int64_t step = 0;                       // from window to window; 0 means no windows
  bool relu = false, adds = false, to_grid = false, root_mean_square = false, tanh = false, by_gain = false;
  bool apart = false;  // whether stretches are computed in parallel and summed later
  // Attention.
  int64_t heads = 0, head_width = 0, page_offset = 0;
  Type cache_type = Type::kFloat32;
  bool of_memory = false, shared_keys = false;
  int key = -1, value = -1;
  // Hashed attention.
  const float* directions = nullptr;                  // [head, round, number, direction]
  int64_t n_factors = 0, factors[kMostFactors] = {};  // of the number of buckets
  int64_t rounds = 0, slots = 0;  // `slots` is the number of recent positions of a bucket, and one more
  int64_t table_offset = 0;       // in the tables of a text
  // Histories and recurrences: offset in the state of a text.
  int64_t state_offset = 0;
  // Picks.
  int64_t block = 0, n_blocks = 0;
  int pick = -1;

  int64_t n_buckets() const {
    int64_t product = 1;
    for (int64_t i = 0; i < n_factors; i++) product *= factors[i];
    return product;
  }
  // Of a round: for each factor, half as many as it has buckets, since their opposites count too.
  int64_t n_directions() const {
    int64_t sum = 0;
    for (int64_t i = 0; i < n_factors; i++) sum += factors[i] / 2;
    return sum;
  }
  int64_t table_numbers() const { return heads * rounds * n_buckets() * (slots + 1); }
};

struct Plan {
  std::vector<Buffer> buffers;
  std::vector<Matrix> matrices;
  std::vector<Rows> tables;
  std::vector<Operation> operations;
  std::vector<int64_t> pick_blocks;  // number of blocks in all earlier picks
  std::vector<int64_t> unit_limits;  // units per block, for each block of all picks
  int64_t page_bytes = 0, memory_page_bytes = 0, state_numbers = 0, table_numbers = 0;
  int64_t partial_numbers = 0;  // of the largest operation with parallel stretches, per text
  int64_t widest = 0;           // the widest head or block of units
  int64_t most_seen = 0;        // positions that hashed attention sees at most
  int64_t most_directions = 0;  // of a hash
};

// One call: its arguments, and the model's memory for its texts.
struct Step {
  const Plan* plan;
  int64_t batch;
  Buffer* buffers;
  const int32_t* lengths;  // positions of each text in the cache
  char* pages;             // [page, text, bytes]
  int64_t n_pages;
  const int32_t* memory_lengths;
  const char* memory;  // like `pages`
  int64_t n_memory_pages;
  float* state;     // [text, numbers]
  int32_t* tables;  // [text, numbers]
  float* partial;
  const int32_t* given_units;  // units to use instead of the best ones, or null
  int32_t* units;              // [pick][text, block]
  char* const* scratch;        // one per thread
};

// Bytes of a head in a page: int8 scales of keys and values, keys as a matrix of 64 outputs, values as one of 64
// inputs.
inline int64_t head_bytes(Type type, int64_t width) {
  int64_t scales = type == Type::kInt8 ? 2 * kPage * 4 : 0;
  return scales + (round_up(width, 2) * kPage + kPage * round_up(width, kPanel)) * size_of(type);
}

// Bytes of a position of a head in a page of hashed attention: key, value, and their scales in int8.
inline int64_t record_bytes(Type type, int64_t width) {
  return round_up(2 * round_up(width, kPanel) * size_of(type) + (type == Type::kInt8 ? 8 : 0), 64);
}

}  // namespace native
