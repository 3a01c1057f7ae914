// The library by itself, for the sanitizers: a plan with every operation, batches that join and leave, several callers,
// a fork, and plans with every number changed. Exits with 0 if all results are alike.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../../../terraformer/native/csrc/model.h"
#include "../../../terraformer/native/csrc/plan.h"

using namespace native;

namespace {

constexpr int64_t kWidth = 24, kHeads = 3, kModules = 4, kLength = 3, kBlocks = 5, kBlock = 6, kRank = 7, kOut = 21,
                  kRounds = 2, kSlots = 4, kBuckets = 8;

// A plan of all kinds of operations in one type, and its memory, each tensor of which has exactly the bytes that it
// needs.
struct Example {
  std::vector<int64_t> numbers;
  std::vector<std::unique_ptr<char[]>> tensors;
  std::vector<Memory> memory;
  int64_t page_bytes, state, tables_of_text;
  std::mt19937 random{1};

  explicit Example(Type type) {
    int64_t t = static_cast<int64_t>(type), padded = kBlocks * 16, inner = kWidth / kModules;
    int64_t seen = (kModules + 2) * inner, q = type == Type::kInt8;
    int64_t whole = round_up(kHeads * head_bytes(type, kWidth / kHeads), 64);
    page_bytes = whole + kHeads * kPage * record_bytes(type, kWidth / kHeads);
    tables_of_text = kHeads * kRounds * kBuckets * (kSlots + 1);
    state = kLength * kWidth + inner;
    std::vector<std::vector<int64_t>> buffers = {{1, kWidth, 0},          {1, kOut, 0},
                                                 {1, kWidth, kWidth * q}, {kModules, kWidth, 8 * q},
                                                 {1, kWidth, 0},          {kLength, seen, seen * q},
                                                 {1, kWidth, 0},          {1, kRank, kRank * q},
                                                 {1, kBlocks, 0},         {1, kWidth, 0},
                                                 {1, 3 * inner, 0},       {1, inner, inner * q}};
    std::vector<std::vector<int64_t>> matrices = {
        {t, kWidth, inner, 8},       {t, kLength * 3 * inner, inner, 3 * inner},
        {t, kWidth, kRank, kWidth},  {t, kRank, padded, kRank},
        {t, kWidth, kOut, 10},       {t, kWidth, inner, 10},
        {t, inner, 3 * inner, inner}};
    std::vector<std::vector<int64_t>> tables = {{q ? 1 : t, kModules, kWidth, -1},
                                                {t, kBlocks * kBlock, kWidth, q ? 0 : -1},
                                                {t, kBlocks * kBlock, kWidth, q ? 0 : -1}};
    std::vector<std::vector<int64_t>> vectors = {
        {kBlocks * kBlock}, {kWidth}, {padded}, {kHeads * kRounds * 3 * kWidth / kHeads}, {2}};
    std::vector<std::vector<int64_t>> operations;
    auto add = [&](std::vector<std::pair<int, int64_t>> columns) {
      std::vector<int64_t> op = {0, 1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 0, 0,  0,  0,  0, 0, 0, 0,
                                 0, 0, 0,  0,  0,  0,  0,  -1, -1, 0,  0, 0, -1, -1, -1, 0, 0, 0};
      for (auto [column, value] : columns) op[column] = value;
      operations.push_back(op);
    };
    enum {
      kKind,
      kMeets,
      kSource,
      kSecond,
      kTarget,
      kAddend,
      kMatrix,
      kTable,
      kScale,
      kBias,
      kRows,
      kOffset,
      kSecondOffset,
      kStep,
      kRelu,
      kAdds,
      kGrid,
      kRms,
      kTanh,
      kGain,
      kHeadsAt,
      kHeadWidth,
      kPageOffset,
      kCacheType,
      kOfMemory,
      kShared,
      kKey,
      kValue,
      kStateOffset,
      kBlockAt,
      kBlocksAt,
      kPickAt,
      kDirections,
      kFactors,
      kRoundsAt,
      kSlotsAt
    };
    add({{kKind, 9}, {kSource, 0}, {kSecond, 0}, {kTarget, 4}});
    add({{kKind, 1}, {kSource, 4}, {kSecond, 0}, {kTarget, 2}, {kScale, 1}, {kBias, 1}});
    add({{kKind, 2}, {kSource, 2}, {kTarget, 3}, {kTable, 0}, {kStep, 8}});
    add({{kKind, 3}, {kSource, 3}, {kTarget, 6}, {kMatrix, 0}, {kRows, kModules}, {kRelu, 1}});
    add({{kKind, 4}, {kSource, 6}, {kTarget, 5}, {kOffset, inner}});
    for (int target : {6, 9})
      add({{kKind, 3},
           {kMeets, target == 9},
           {kSource, 5},
           {kTarget, target},
           {kMatrix, 1},
           {kRows, kModules},
           {kStep, inner}});
    add({{kKind, 5},
         {kSource, 6},
         {kKey, 6},
         {kValue, 9},
         {kTarget, 4},
         {kAdds, 1},
         {kHeadsAt, kHeads},
         {kHeadWidth, kWidth / kHeads},
         {kCacheType, t}});
    add({{kKind, 11},
         {kSource, 6},
         {kValue, 9},
         {kTarget, 4},
         {kAdds, 1},
         {kHeadsAt, kHeads},
         {kHeadWidth, kWidth / kHeads},
         {kCacheType, t},
         {kPageOffset, whole},
         {kDirections, 3},
         {kFactors, 4},
         {kRoundsAt, kRounds},
         {kSlotsAt, kSlots}});
    add({{kKind, 1}, {kSource, 4}, {kTarget, 2}, {kScale, 1}, {kRms, 1}});
    add({{kKind, 3}, {kSource, 2}, {kTarget, 7}, {kMatrix, 2}});
    if (q) add({{kKind, 10}, {kTarget, 7}});
    std::vector<std::pair<int, int64_t>> blocks = {{kBlockAt, kBlock}, {kBlocksAt, kBlocks}, {kPickAt, 0}};
    auto with_blocks = [&](std::vector<std::pair<int, int64_t>> columns) {
      columns.insert(columns.end(), blocks.begin(), blocks.end());
      add(columns);
    };
    with_blocks(
        {{kKind, 6}, {kSource, 7}, {kSecond, 2}, {kTarget, 8}, {kMatrix, 3}, {kBias, 2}, {kTable, 1}, {kGain, 1}});
    with_blocks({{kKind, 7}, {kSource, 8}, {kTarget, 9}, {kBias, 1}, {kTable, 2}});
    add({{kKind, 3}, {kSource, 2}, {kTarget, 11}, {kMatrix, 5}});
    if (q) add({{kKind, 10}, {kTarget, 11}});
    add({{kKind, 3}, {kSource, 11}, {kTarget, 10}, {kMatrix, 6}});
    add({{kKind, 8}, {kSource, 11}, {kSecond, 10}, {kTarget, 11}, {kStateOffset, kLength * kWidth}, {kTanh, 1}});
    add({{kKind, 1}, {kSource, 4}, {kSecond, 9}, {kTarget, 2}, {kScale, 1}});
    add({{kKind, 3}, {kSource, 2}, {kTarget, 1}, {kMatrix, 4}, {kGrid, 1}});

    numbers = {kMagic,
               kVersion,
               int64_t(buffers.size()),
               int64_t(matrices.size()),
               int64_t(tables.size()),
               int64_t(vectors.size()),
               int64_t(operations.size()),
               page_bytes,
               0,
               state,
               tables_of_text};
    for (auto* table : {&buffers, &matrices, &tables, &vectors, &operations})
      for (auto& row : *table) numbers.insert(numbers.end(), row.begin(), row.end());
    for (auto& m : matrices) {
      Matrix matrix{static_cast<Type>(m[0]), m[1], m[2], m[3], nullptr};
      give(matrix.bytes(), matrix.type);
      if (matrix.type != Type::kInt8) continue;
      char* data = tensors.back().get();
      for (int64_t s = 0; s < matrix.n_stretches(); s++)
        for (int64_t p = 0; p < matrix.n_panels(); p++) {
          matrix.data = data;
          for (int i = 0; i < 16; i++) reinterpret_cast<float*>(const_cast<char*>(matrix.panel(s, p)))[i] = 0.01f;
        }
    }
    for (auto& table : tables)
      give(table[1] * table[2] * size_of(static_cast<Type>(table[0])), static_cast<Type>(table[0]));
    for (auto& vector : vectors) give(4 * vector[0], Type::kFloat32);
    float factors[] = {2, 4};
    memcpy(tensors.back().get(), factors, sizeof factors);
  }

  void give(int64_t bytes, Type type) {
    tensors.emplace_back(new char[bytes]);
    char* data = tensors.back().get();
    std::uniform_real_distribution<float> some(-0.5f, 0.5f);
    for (int64_t i = 0; i + size_of(type) <= bytes; i += size_of(type)) {
      float x = some(random);
      if (type == Type::kFloat32) memcpy(data + i, &x, 4);
      if (type == Type::kBfloat16) memcpy(data + i, reinterpret_cast<char*>(&x) + 2, 2);
      if (type == Type::kInt8) data[i] = static_cast<char>(x * 200);
    }
    memory.push_back({data, bytes});
  }
};

struct Texts {
  std::vector<char> pages;
  std::vector<float> state, input, output;
  std::vector<int32_t> lengths, tables;
  int64_t n_pages;

  Texts(const Example& example, int64_t batch, int64_t n_pages)
      : pages(n_pages * batch * example.page_bytes),
        state(batch * example.state),
        input(batch * kWidth),
        output(batch * kOut),
        lengths(batch),
        tables(batch * example.tables_of_text),
        n_pages(n_pages) {}

  void step(Model& model, int number) {
    for (size_t i = 0; i < input.size(); i++) input[i] = std::sin(static_cast<float>(number + i % kWidth));
    Call call{};
    call.batch = static_cast<int64_t>(lengths.size());
    call.input = input.data();
    call.output = output.data();
    call.lengths = lengths.data();
    call.pages = pages.data();
    call.n_pages = n_pages;
    call.state = state.data();
    call.tables = tables.data();
    model.run(call);
    for (auto& length : lengths) length++;
  }
};

std::vector<float> decode(Model& model, const Example& example, int64_t batch, int n_steps) {
  Texts texts(example, batch, 2);
  std::vector<float> all;
  for (int i = 0; i < n_steps; i++) {
    texts.step(model, i);
    all.insert(all.end(), texts.output.begin(), texts.output.begin() + kOut);
  }
  return all;
}

int failures = 0;
void expect(bool holds, const char* text) {
  if (!holds) {
    std::fprintf(stderr, "FAILED: %s\n", text);
    failures++;
  }
}

void try_type(Type type, const char* variant) {
  Example example(type);
  auto open = [&](const std::vector<int64_t>& numbers, int threads) {
    return std::make_unique<Model>(
        read_plan(numbers.data(), static_cast<int64_t>(numbers.size()), example.memory.data(), example.memory.size()),
        threads, variant);
  };
  auto model = open(example.numbers, 2), single = open(example.numbers, 1);
  auto alone = decode(*single, example, 1, 100);
  for (float x : alone) expect(std::isfinite(x), "finite");
  expect(alone == decode(*model, example, 1, 100), "one thread and two");
  expect(alone == decode(*model, example, 5, 100), "alone and in a batch");
  std::vector<std::thread> threads;
  auto other = open(example.numbers, 2);
  std::atomic<int> different{0};
  for (Model* one : {model.get(), other.get(), model.get()})
    threads.emplace_back([&, one] {
      different += decode(*one, example, 2, 60) != std::vector<float>(alone.begin(), alone.begin() + 60 * kOut);
    });
  for (auto& thread : threads) thread.join();
  expect(!different, "several callers");
#if !defined(__SANITIZE_THREAD__)
  if (pid_t child = fork()) {
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child");
  } else {
    _exit(decode(*model, example, 1, 100) == alone ? 0 : 1);
  }
#endif
  Texts hostile(example, 2, 2);
  for (int i = 0; i < 100; i++) {
    for (auto& number : hostile.tables) number = static_cast<int32_t>(example.random());
    hostile.step(*model, i);
  }
  int refused = 0;
  for (size_t i = 0; i < example.numbers.size(); i++)
    for (int64_t value : {INT64_MIN, int64_t{-2}, int64_t{0}, int64_t{1}, int64_t{5}, int64_t{1} << 31, INT64_MAX}) {
      auto numbers = example.numbers;
      numbers[i] = value;
      try {
        auto changed = open(numbers, 1);
        bool given = i == 12 || i == 15 || (i >= 7 && i < 11);  // what the caller's arrays would have to fit
        if (!given) decode(*changed, example, 2, 3);
      } catch (const PlanError&) {
        refused++;
      }
    }
  expect(refused > static_cast<int>(3 * example.numbers.size()), "most changes are refused");
}

}  // namespace

int main() {
  for (int i = 0; i < n_variants(); i++) {
    if (!variants()[i].supported()) continue;
    for (Type type : {Type::kFloat32, Type::kBfloat16, Type::kInt8}) try_type(type, variants()[i].name);
    std::printf("%s\n", variants()[i].name);
  }
  return failures ? 1 : 0;
}
