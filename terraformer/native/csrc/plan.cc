#include "plan.h"

#include <set>

namespace native {
namespace {

constexpr int64_t kMostNumbers = int64_t{1} << 40;  // of any size, so that products of two do not overflow
constexpr int64_t kMostRows = int64_t{1} << 22;
constexpr int64_t kMostRounds = 1 << 12, kMostSlots = 1 << 16;  // of hashed attention
constexpr int64_t kMostPanelsApart = 16;  // a matrix with more panels is divided by panels instead

// Reads numbers one by one; its messages name what it reads.
class Reader {
 public:
  Reader(const int64_t* numbers, int64_t count) : at_(numbers), end_(numbers + count) {}

  void about(std::string what) { what_ = std::move(what); }
  [[noreturn]] void fail(const std::string& text) const { throw PlanError(what_ + ": " + text); }
  void need(bool holds, const char* text) const {
    if (!holds) fail(text);
  }

  int64_t next(const char* name, int64_t least, int64_t most) {
    if (at_ == end_) fail(std::string("the plan ends before ") + name);
    int64_t x = *at_++;
    if (x < least || x > most)
      fail(std::string(name) + ": expected " + std::to_string(least) + " to " + std::to_string(most) + ", found " +
           std::to_string(x));
    return x;
  }
  bool flag(const char* name) { return next(name, 0, 1); }
  void end() const {
    if (at_ != end_) fail("numbers follow the last operation");
  }

 private:
  const int64_t* at_;
  const int64_t* end_;
  std::string what_ = "plan";
};

struct Vector {
  int64_t n;
  const float* data;
};

class Builder {
 public:
  Builder(const int64_t* numbers, int64_t count, const Memory* memory, int64_t n_memory)
      : in_(numbers, count), memory_(memory), n_memory_(n_memory) {}

  Plan build() {
    if (in_.next("magic number", INT64_MIN, INT64_MAX) != kMagic) in_.fail("expected a plan, found something else");
    int64_t version = in_.next("version", 0, INT64_MAX);
    if (version != kVersion)
      in_.fail("expected version " + std::to_string(kVersion) + ", found " + std::to_string(version));
    int64_t n_buffers = in_.next("buffers", 2, kMostRows), n_matrices = in_.next("matrices", 0, kMostRows);
    int64_t n_tables = in_.next("tables", 0, kMostRows), n_vectors = in_.next("vectors", 0, kMostRows);
    int64_t n_operations = in_.next("operations", 1, kMostRows);
    plan_.page_bytes = in_.next("bytes of a page", 0, kMostNumbers);
    plan_.memory_page_bytes = in_.next("bytes of a page of the memory", 0, kMostNumbers);
    plan_.state_numbers = in_.next("numbers of the state", 0, kMostNumbers);
    plan_.table_numbers = in_.next("numbers of the tables", 0, kMostNumbers);
    in_.need(n_matrices + n_tables + n_vectors == n_memory_, "expected memory for each matrix, table and vector");
    for (int64_t i = 0; i < n_buffers; i++) read_buffer(i);
    for (int64_t i = 0; i < n_matrices; i++) read_matrix(i, memory_[i]);
    std::vector<int64_t> scales;
    for (int64_t i = 0; i < n_tables; i++) scales.push_back(read_table(i, memory_[n_matrices + i], n_vectors));
    for (int64_t i = 0; i < n_vectors; i++) read_vector(i, memory_[n_matrices + n_tables + i]);
    for (int64_t i = 0; i < n_tables; i++) {
      Rows& table = plan_.tables[i];
      in_.about("table " + std::to_string(i));
      in_.need(table.type != Type::kInt8 || (scales[i] >= 0 && vectors_[scales[i]].n == table.n),
               "expected a scale for each row");
      table.scales = table.type == Type::kInt8 ? vectors_[scales[i]].data : nullptr;
    }
    for (int64_t i = 0; i < n_operations; i++) read_operation(i);
    in_.end();
    return std::move(plan_);
  }

 private:
  void read_buffer(int64_t i) {
    in_.about("buffer " + std::to_string(i));
    Buffer b{};
    b.rows = in_.next("rows", 1, kMostRows);
    b.width = in_.next("width", 1, int64_t{1} << 31);
    b.segment = in_.next("segment", 0, b.width);
    bool given = i == kInput || i == kOutput;
    in_.need(!given || (b.rows == 1 && !b.segment), "expected one row of float32, since it is given by the caller");
    in_.need(!b.segment || b.segment == b.width || b.segment % 2 == 0, "expected an even segment");
    b.stride = given ? b.width : round_up(b.width, kPanel);
    in_.need(b.numbers() <= kMostNumbers >> 8, "it is too large");
    plan_.buffers.push_back(b);
  }

  const char* memory_of(const Memory& memory, int64_t bytes) {
    in_.need(memory.data && reinterpret_cast<uintptr_t>(memory.data) % 4 == 0,
             "expected memory at a multiple of 4 bytes");
    if (memory.bytes < bytes)
      in_.fail("expected " + std::to_string(bytes) + " bytes, found " + std::to_string(memory.bytes));
    return static_cast<const char*>(memory.data);
  }

  void read_matrix(int64_t i, const Memory& memory) {
    in_.about("matrix " + std::to_string(i));
    Matrix m{};
    m.type = static_cast<Type>(in_.next("type", 0, 2));
    m.k = in_.next("inputs", 1, int64_t{1} << 31);
    m.n = in_.next("outputs", 1, int64_t{1} << 31);
    m.stretch = in_.next("stretch", 1, m.k);
    in_.need(m.stretch == m.k || m.stretch % 2 == 0 || m.k % m.stretch == 0, "expected an even stretch");
    in_.need(m.type != Type::kInt8 || m.stretch <= 2 * kMostPairs, "expected a stretch of at most 1024 in 8 bits");
    in_.need(m.k <= kMostNumbers / 8 / m.n, "it is too large");
    m.data = memory_of(memory, m.bytes());
    plan_.matrices.push_back(m);
  }

  int64_t read_table(int64_t i, const Memory& memory, int64_t n_vectors) {
    in_.about("table " + std::to_string(i));
    Rows t{};
    t.type = static_cast<Type>(in_.next("type", 0, 2));
    t.n = in_.next("rows", 1, int64_t{1} << 31);
    t.width = in_.next("width", 1, int64_t{1} << 31);
    int64_t scales = in_.next("scales", -1, n_vectors - 1);
    in_.need(t.n <= kMostNumbers / 8 / t.width, "it is too large");
    t.data = memory_of(memory, t.n * t.width * size_of(t.type));
    plan_.tables.push_back(t);
    return scales;
  }

  void read_vector(int64_t i, const Memory& memory) {
    in_.about("vector " + std::to_string(i));
    int64_t n = in_.next("numbers", 1, int64_t{1} << 31);
    vectors_.push_back({n, reinterpret_cast<const float*>(memory_of(memory, 4 * n))});
  }

  int buffer_index(const char* name) {
    return static_cast<int>(in_.next(name, -1, static_cast<int64_t>(plan_.buffers.size()) - 1));
  }

  void read_operation(int64_t i) {
    in_.about("operation " + std::to_string(i));
    Operation op{};
    op.kind = static_cast<Kind>(in_.next("kind", 1, static_cast<int64_t>(Kind::kAttendHashed)));
    op.meets = in_.flag("meets");
    op.source = buffer_index("source");
    op.second = buffer_index("second");
    op.target = buffer_index("target");
    op.addend = buffer_index("addend");
    int64_t matrix = in_.next("matrix", -1, static_cast<int64_t>(plan_.matrices.size()) - 1);
    int64_t table = in_.next("table", -1, static_cast<int64_t>(plan_.tables.size()) - 1);
    int64_t scale = in_.next("scale", -1, static_cast<int64_t>(vectors_.size()) - 1);
    int64_t bias = in_.next("bias", -1, static_cast<int64_t>(vectors_.size()) - 1);
    op.rows = in_.next("rows", 1, kMostRows);
    op.offset = in_.next("offset", 0, kMostNumbers);
    op.second_offset = in_.next("second offset", 0, kMostNumbers);
    op.step = in_.next("step", 0, kMostNumbers);
    op.relu = in_.flag("relu");
    op.adds = in_.flag("adds");
    op.to_grid = in_.flag("to_grid");
    op.root_mean_square = in_.flag("root_mean_square");
    op.tanh = in_.flag("tanh");
    op.by_gain = in_.flag("by_gain");
    op.heads = in_.next("heads", 0, kMostRows);
    op.head_width = in_.next("head width", 0, kMostRows);
    op.page_offset = in_.next("page offset", 0, kMostNumbers);
    op.cache_type = static_cast<Type>(in_.next("cache type", 0, 2));
    op.of_memory = in_.flag("of_memory");
    op.shared_keys = in_.flag("shared_keys");
    op.key = buffer_index("key");
    op.value = buffer_index("value");
    op.state_offset = in_.next("state offset", 0, kMostNumbers);
    op.block = in_.next("block", 0, kMostNumbers);
    op.n_blocks = in_.next("blocks", 0, kMostNumbers);
    op.pick = static_cast<int>(in_.next("pick", -1, kMostRows));
    int64_t directions = in_.next("directions", -1, static_cast<int64_t>(vectors_.size()) - 1);
    int64_t factors = in_.next("factors", -1, static_cast<int64_t>(vectors_.size()) - 1);
    op.rounds = in_.next("rounds", 0, kMostRounds);
    op.slots = in_.next("slots", 0, kMostSlots);
    op.table_offset = in_.next("table offset", 0, kMostNumbers);
    op.matrix = matrix < 0 ? nullptr : &plan_.matrices[matrix];
    op.table = table < 0 ? nullptr : &plan_.tables[table];
    op.scale = scale < 0 ? nullptr : vectors_[scale].data;
    op.bias = bias < 0 ? nullptr : vectors_[bias].data;
    op.directions = directions < 0 ? nullptr : vectors_[directions].data;
    n_directions_ = directions < 0 ? 0 : vectors_[directions].n;
    if (factors >= 0) read_factors(op, vectors_[factors]);
    n_scale_ = scale < 0 ? 0 : vectors_[scale].n;
    n_bias_ = bias < 0 ? 0 : vectors_[bias].n;
    in_.need(op.target >= 0 && op.target != kInput, "expected a target");
    check_floats(op);
    check(op);
    plan_.operations.push_back(op);
    if (!op.apart) return;
    // Threads must synchronize before the sum, and nothing else may be in the same group.
    if (plan_.operations.size() > 1) plan_.operations[plan_.operations.size() - 2].meets = true;
    plan_.operations.back().meets = true;
    op.kind = Kind::kAddUp;
    op.meets = true;
    plan_.operations.push_back(op);
  }

  void read_factors(Operation& op, const Vector& factors) {
    int64_t product = 1;
    for (int64_t i = 0; i < factors.n; i++) {
      float factor = factors.data[i];
      in_.need(factor >= 2 && factor <= kMostBuckets && factor == static_cast<float>(static_cast<int64_t>(factor)) &&
                   static_cast<int64_t>(factor) % 2 == 0,
               "expected even factors");
      product *= static_cast<int64_t>(factor);
      in_.need(product <= kMostBuckets, "expected fewer buckets");
      op.factors[op.n_factors++] = static_cast<int64_t>(factor);
    }
  }

  // Checks that nothing reads the float32 numbers of a buffer that has only a 16-bit form: gates write no other.
  void check_floats(const Operation& op) {
    bool reads_shorts = op.kind == Kind::kDense && op.matrix && op.matrix->type == Type::kInt8;
    for (int i : {op.addend, op.key, op.value, reads_shorts ? -1 : op.source, reads_shorts ? -1 : op.second,
                  op.adds || op.kind == Kind::kQuantize ? op.target : -1})
      in_.need(i < 0 || !in_shorts_alone_.count(i), "expected a source with numbers in float32");
    if (op.kind == Kind::kGate && plan_.buffers[op.target].segment)
      in_shorts_alone_.insert(op.target);
    else
      in_shorts_alone_.erase(op.target);
  }

  const Buffer& row(int buffer, int64_t width, const char* text) {
    in_.need(buffer >= 0 && plan_.buffers[buffer].rows == 1 && plan_.buffers[buffer].width == width, text);
    return plan_.buffers[buffer];
  }

  // Checks that the input of int8 weights has a 16-bit form, with one scale per stretch.
  void in_shorts(Type type, const Buffer& b, int64_t stretch) {
    in_.need(type != Type::kInt8 || (b.segment && (b.segment == b.width || b.segment % stretch == 0)),
             "expected a source with segments for a matrix in 8 bits");
  }

  void check(Operation& op) {
    const Buffer& target = plan_.buffers[op.target];
    if (op.kind != Kind::kQuantize && op.kind != Kind::kAttend && op.kind != Kind::kAttendHashed)
      in_.need(op.source >= 0, "expected a source");
    switch (op.kind) {
      case Kind::kNorm:
        row(op.source, target.width, "expected a source of the target's width");
        row(op.target, target.width, "expected a target of one row");
        if (op.second >= 0) row(op.second, target.width, "expected a second source of the target's width");
        in_.need(n_scale_ == target.width && (!op.bias || n_bias_ == target.width), "expected a number a column");
        break;
      case Kind::kGate:
        row(op.source, target.width, "expected a source of the target's width");
        in_.need(op.table && op.table->n == target.rows && op.table->width == target.width, "expected a row a module");
        in_.need(op.table->type != Type::kInt8, "expected gates in float32 or bfloat16");
        in_.need(op.step > 0 && (!target.segment || op.step == target.segment),
                 "expected a chunk, that of the segments");
        break;
      case Kind::kDense:
        check_dense(op);
        break;
      case Kind::kHistory: {
        const Buffer& from = plan_.buffers[op.source];
        row(op.source, from.width, "expected a source of one row");
        in_.need(op.offset + from.width <= target.width, "expected room in the target");
        in_.need(!target.segment || target.segment == target.width, "expected a segment a row");
        in_.need(op.state_offset <= plan_.state_numbers &&
                     from.width <= (plan_.state_numbers - op.state_offset) / target.rows,
                 "expected room in the state");
        break;
      }
      case Kind::kAttend:
        check_attend(op);
        break;
      case Kind::kAttendHashed:
        check_attend_hashed(op);
        break;
      case Kind::kPick:
        check_pick(op);
        break;
      case Kind::kGather: {
        in_.need(op.pick >= 0 && static_cast<size_t>(op.pick) < picks_.size(), "expected a pick before it");
        in_.need(picks_[op.pick] == std::make_pair(op.n_blocks, op.block), "expected the blocks of its pick");
        row(op.source, op.n_blocks, "expected a source of a number a block");
        in_.need(op.table && op.table->n == op.n_blocks * op.block, "expected a row a unit");
        row(op.target, op.table->width, "expected a target of the rows' width");
        in_.need(n_bias_ == op.table->width, "expected a bias");
        break;
      }
      case Kind::kRecur: {
        row(op.source, target.width, "expected a source of the target's width");
        row(op.second, 3 * target.width, "expected three gates");
        in_.need(target.rows == 1, "expected a target of one row");
        in_.need(op.state_offset <= plan_.state_numbers - target.width, "expected room in the state");
        break;
      }
      case Kind::kMix:
        row(op.source, target.width, "expected a source of the target's width");
        row(op.second, target.width, "expected a second source of the target's width");
        in_.need(target.rows == 1, "expected a target of one row");
        break;
      case Kind::kQuantize:
        in_.need(target.rows == 1 && target.segment, "expected a target of one row with segments");
        break;
      case Kind::kAddUp:
        break;
    }
  }

  void check_dense(Operation& op) {
    in_.need(op.matrix, "expected a matrix");
    const Matrix& m = *op.matrix;
    const Buffer& from = plan_.buffers[op.source];
    row(op.target, op.rows * m.n, "expected a target of the matrix's outputs, row by row");
    in_.need(!op.bias || n_bias_ == op.rows * m.n, "expected a bias an output");
    if (op.addend >= 0) row(op.addend, op.rows * m.n, "expected an addend of the target's width");
    if (!op.step) {
      in_.need(op.second < 0 && from.rows == op.rows && from.width == m.k, "expected a source of the matrix's inputs");
      // Inputs are read in pairs, and nothing may follow the caller's memory.
      in_.need(op.source != kInput || m.k % 2 == 0, "expected an even number of inputs that are given by the caller");
      in_shorts(m.type, from, m.stretch);
      op.apart = m.n_stretches() > 1 && m.n_panels() <= kMostPanelsApart;
      int64_t partial = op.apart ? m.n_stretches() * op.rows * m.n_panels() * kPanel : 0;
      if (partial > plan_.partial_numbers) plan_.partial_numbers = partial;
      return;
    }
    int64_t n_sources = op.second < 0 ? 1 : 2;
    in_.need(m.k % m.stretch == 0, "expected stretches of one length");
    for (int i : {op.source, op.second}) {
      if (i < 0) continue;
      const Buffer& b = plan_.buffers[i];
      int64_t first = i == op.source ? op.offset : op.second_offset;
      in_.need(b.rows * n_sources == m.n_stretches(), "expected a stretch for each row of the sources");
      in_.need(i != kInput, "expected windows of other than what is given by the caller");
      in_.need(op.step <= b.width && first + (op.rows - 1) * op.step + m.stretch <= b.width,
               "expected windows within the source");
      in_.need(m.type != Type::kInt8 || b.segment == b.width, "expected a segment a row for a matrix in 8 bits");
    }
  }

  void check_attend(Operation& op) {
    in_.need(op.heads > 0 && op.head_width > 0, "expected heads");
    int64_t width = op.heads * op.head_width;
    row(op.source, width, "expected queries of all heads");
    row(op.target, width, "expected a target of all heads");
    if (!op.of_memory) row(op.value, width, "expected values of all heads");
    if (!op.of_memory && !op.shared_keys) row(op.key, width, "expected keys of all heads");
    in_.need(!op.of_memory || !op.shared_keys, "expected keys of its own for a memory");
    int64_t room = op.of_memory ? plan_.memory_page_bytes : plan_.page_bytes;
    in_.need(op.page_offset % 64 == 0 && op.page_offset <= room &&
                 op.heads <= (room - op.page_offset) / head_bytes(op.cache_type, op.head_width),
             "expected room in a page");
    if (op.head_width > plan_.widest) plan_.widest = op.head_width;
  }

  void check_attend_hashed(Operation& op) {
    in_.need(op.heads > 0 && op.head_width > 0, "expected heads");
    int64_t width = op.heads * op.head_width;
    row(op.source, width, "expected queries of all heads");
    row(op.target, width, "expected a target of all heads");
    row(op.value, width, "expected values of all heads");
    in_.need(op.page_offset % 64 == 0 && op.page_offset <= plan_.page_bytes &&
                 op.heads <= (plan_.page_bytes - op.page_offset) / (kPage * record_bytes(op.cache_type, op.head_width)),
             "expected room in a page");
    in_.need(op.rounds > 0 && op.slots > 1 && op.n_factors > 0, "expected rounds, slots and factors");
    in_.need(op.directions && n_directions_ / op.rounds / op.n_directions() / op.head_width == op.heads &&
                 n_directions_ == op.heads * op.rounds * op.n_directions() * op.head_width,
             "expected the directions of each head and round");
    in_.need(op.table_offset <= plan_.table_numbers &&
                 op.heads <= (plan_.table_numbers - op.table_offset) / (op.table_numbers() / op.heads),
             "expected room in the tables");
    if (op.head_width > plan_.widest) plan_.widest = op.head_width;
    if (op.n_directions() > plan_.most_directions) plan_.most_directions = op.n_directions();
    if (op.rounds * op.slots > plan_.most_seen) plan_.most_seen = op.rounds * op.slots;
  }

  void check_pick(Operation& op) {
    in_.need(op.block > 0 && op.block <= 1 << 16 && op.n_blocks > 0 && op.n_blocks <= 1 << 22, "expected blocks");
    int64_t padded = round_up(op.block, kPanel);
    in_.need(op.matrix && op.matrix->n == op.n_blocks * padded, "expected whole panels of outputs a block");
    in_.need(n_bias_ == op.matrix->n, "expected a bias an output");
    in_shorts(op.matrix->type, row(op.source, op.matrix->k, "expected a source of the matrix's inputs"),
              op.matrix->stretch);
    in_.need(op.table && op.table->n == op.n_blocks * op.block, "expected a row a unit");
    const Buffer& x = row(op.second, op.table->width, "expected a second source of the rows' width");
    in_.need(op.table->type != Type::kInt8 || x.segment, "expected a second source with segments for rows in 8 bits");
    row(op.target, op.n_blocks, "expected a target of a number a block");
    in_.need(op.pick == static_cast<int>(picks_.size()), "expected the number of the next pick");
    plan_.pick_blocks.push_back(static_cast<int64_t>(plan_.unit_limits.size()));
    plan_.unit_limits.resize(plan_.unit_limits.size() + op.n_blocks, op.block);
    picks_.push_back({op.n_blocks, op.block});
    if (padded > plan_.widest) plan_.widest = padded;
  }

  Reader in_;
  const Memory* memory_;
  int64_t n_memory_;
  Plan plan_;
  std::vector<Vector> vectors_;
  std::vector<std::pair<int64_t, int64_t>> picks_;
  std::set<int> in_shorts_alone_;  // buffers
  int64_t n_scale_ = 0, n_bias_ = 0, n_directions_ = 0;
};

}  // namespace

Plan read_plan(const int64_t* numbers, int64_t count, const Memory* memory, int64_t n_memory) {
  return Builder(numbers, count, memory, n_memory).build();
}

}  // namespace native
