// See run.h. The result of a task depends neither on the thread that computes it nor on the tasks next to it.
#include "run.h"

#include "feed_forward.h"
#include "hashed_attention.h"

namespace native {
namespace NATIVE_VARIANT {

int64_t n_tasks(const Step& step, const Operation& op) {
  const Buffer& target = step.buffers[op.target];
  switch (op.kind) {
    case Kind::kGate:
      return step.batch * target.rows * ((target.width + op.step - 1) / op.step);
    case Kind::kDense:
      return op.apart ? op.matrix->n_stretches() : op.matrix->n_panels();
    case Kind::kHistory:
      return step.batch * target.rows;
    case Kind::kAttend:
    case Kind::kAttendHashed:
      return step.batch * op.heads;
    case Kind::kPick:
      return op.n_blocks;
    case Kind::kGather:
      return (op.table->width + kColumns - 1) / kColumns;
    case Kind::kAddUp:
      return step.batch * op.rows;
    default:
      return step.batch;
  }
}

// Cost of a task relative to others in its group; only products share groups.
int64_t cost(const Operation& op) { return op.kind == Kind::kDense ? op.matrix->k : 1; }

void mix(const Buffer& a, const Buffer& b, const Buffer& to, int64_t text) {
  const float *x = a.floats + text * a.numbers(), *other = b.floats + text * b.numbers();
  float* y = to.floats + text * to.numbers();
  for (int64_t i = 0; i < to.width; i++) y[i] = (x[i] + other[i]) * 0.5f;
}

// Multiplies a chunk of one row's columns by the gating vector of its module. If there is a 16-bit form, writes only
// that: it has half the size, and nothing else is read.
template <class Number>
INLINE void gate(const Step& step, const Operation& op, int64_t task, float* scratch) {
  const Buffer &from = step.buffers[op.source], &to = step.buffers[op.target];
  int64_t n_rows = step.batch * to.rows, row = task % n_rows, chunk = task / n_rows, first = chunk * op.step;
  int64_t n = to.width - first < op.step ? to.width - first : op.step;
  const float* x = from.floats + row / to.rows * from.stride + first;
  const Number* w = reinterpret_cast<const Number*>(op.table->row(row % to.rows)) + first;
  float* y = to.segment ? scratch : to.floats + row * to.stride + first;
  Floats most = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Floats product = load(x + i) * widened(w + i);
    most = larger(magnitude(product), most);
    store(y + i, product);
  }
  float top = largest_of(most);
  for (; i < n; i++) {
    y[i] = x[i] * single(w[i]);
    top = __builtin_fabsf(y[i]) > top ? __builtin_fabsf(y[i]) : top;
  }
  if (to.segment) to.scales[row * to.n_segments() + chunk] = to_shorts(y, top, to.shorts + row * to.stride + first, n);
}

// Fills a row of what a convolution sees: earlier positions from the state, the current one from the source.
void history(const Step& step, const Operation& op, int64_t task) {
  const Buffer &from = step.buffers[op.source], &to = step.buffers[op.target];
  int64_t text = task / to.rows, row = task % to.rows, slot = (row + 1 + step.lengths[text]) % to.rows;
  float* state = step.state + text * step.plan->state_numbers + op.state_offset + slot * from.width;
  const float* now = from.floats + text * from.numbers();
  if (row == to.rows - 1) memcpy(state, now, static_cast<size_t>(from.width) * 4);
  memcpy(to.floats + (text * to.rows + row) * to.stride + op.offset, row == to.rows - 1 ? now : state,
         static_cast<size_t>(from.width) * 4);
  if (to.segment) row_to_shorts(to, text * to.rows + row);
}

// The SRU for one text: gates [reset, forget, update] and the state.
void recur(const Step& step, const Operation& op, int64_t text) {
  const Buffer &from = step.buffers[op.source], &gates = step.buffers[op.second], &to = step.buffers[op.target];
  const float *x = from.floats + text * from.numbers(), *gate = gates.floats + text * gates.numbers();
  float* state = step.state + text * step.plan->state_numbers + op.state_offset;
  float* y = to.floats + text * to.numbers();
  int64_t n = from.width;
  auto one = [](const float* p) __attribute__((always_inline)) { return all(*p); };
  auto unit = [&](int64_t i, auto get, auto put) __attribute__((always_inline)) {
    Floats reset = sigmoid(get(gate + i)), forget = sigmoid(get(gate + n + i)), update = get(gate + 2 * n + i);
    Floats now = forget * get(state + i) + (all(1.0f) - forget) * update;
    Floats seen = op.tanh ? hyperbolic_tangent(now) : now;
    put(state + i, now);
    put(y + i, reset * seen + (all(1.0f) - reset) * get(x + i) * all(1.7320508f));
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) unit(i, load, store);
  for (; i < n; i++) unit(i, one, [](float* p, Floats v) __attribute__((always_inline)) { *p = v[0]; });
}

void do_dense(const Step& step, const Operation& op, Range range, float* sums) {
  switch (op.matrix->type) {
    case Type::kFloat32:
      return op.apart ? dense_apart<float>(step, op, range) : dense<float>(step, op, range, sums);
    case Type::kBfloat16:
      return op.apart ? dense_apart<Bfloat16>(step, op, range) : dense<Bfloat16>(step, op, range, sums);
    case Type::kInt8:
      return op.apart ? dense_apart<int8_t>(step, op, range) : dense<int8_t>(step, op, range, sums);
  }
}

void do_attend(const Step& step, const Operation& op, Range range, char* scratch) {
  switch (op.cache_type) {
    case Type::kFloat32:
      return attend<float>(step, op, range, scratch);
    case Type::kBfloat16:
      return attend<Bfloat16>(step, op, range, scratch);
    case Type::kInt8:
      return attend<int8_t>(step, op, range, scratch);
  }
}

void do_attend_hashed(const Step& step, const Operation& op, Range range, char* scratch) {
  switch (op.cache_type) {
    case Type::kFloat32:
      return attend_hashed<float>(step, op, range, scratch);
    case Type::kBfloat16:
      return attend_hashed<Bfloat16>(step, op, range, scratch);
    case Type::kInt8:
      return attend_hashed<int8_t>(step, op, range, scratch);
  }
}

template <class R>
void pick_by_controller(const Step& step, const Operation& op, Range range, float* logits) {
  switch (op.matrix->type) {
    case Type::kFloat32:
      return pick<float, R>(step, op, range, logits);
    case Type::kBfloat16:
      return pick<Bfloat16, R>(step, op, range, logits);
    case Type::kInt8:
      return pick<int8_t, R>(step, op, range, logits);
  }
}

void do_pick(const Step& step, const Operation& op, Range range, float* logits) {
  switch (op.table->type) {
    case Type::kFloat32:
      return pick_by_controller<float>(step, op, range, logits);
    case Type::kBfloat16:
      return pick_by_controller<Bfloat16>(step, op, range, logits);
    case Type::kInt8:
      return pick_by_controller<int8_t>(step, op, range, logits);
  }
}

void do_gather(const Step& step, const Operation& op, Range range, float* sums) {
  switch (op.table->type) {
    case Type::kFloat32:
      return gather<float>(step, op, range, sums);
    case Type::kBfloat16:
      return gather<Bfloat16>(step, op, range, sums);
    case Type::kInt8:
      return gather<int8_t>(step, op, range, sums);
  }
}

void perform(const Step& step, const Operation& op, Range range, char* scratch) {
  float* sums = reinterpret_cast<float*>(scratch);
  const Buffer& target = step.buffers[op.target];
  switch (op.kind) {
    case Kind::kDense:
      return do_dense(step, op, range, sums);
    case Kind::kAttend:
      return do_attend(step, op, range, scratch);
    case Kind::kAttendHashed:
      return do_attend_hashed(step, op, range, scratch);
    case Kind::kPick:
      return do_pick(step, op, range, sums);
    case Kind::kGather:
      return do_gather(step, op, range, sums);
    case Kind::kAddUp:
      return add_up(step, op, range, sums);
    default:
      break;
  }
  for (int64_t task = range.begin; task < range.end; task++) switch (op.kind) {
      case Kind::kNorm: {
        const Buffer& from = step.buffers[op.source];
        const float* other = nullptr;
        if (op.second >= 0) other = step.buffers[op.second].floats + task * step.buffers[op.second].stride;
        normalize(from.floats + task * from.stride, other, op.scale, op.bias, !op.root_mean_square,
                  target.floats + task * target.stride, target.width);
        if (target.segment) row_to_shorts(target, task);
        break;
      }
      case Kind::kGate:
        op.table->type == Type::kFloat32 ? gate<float>(step, op, task, sums) : gate<uint16_t>(step, op, task, sums);
        break;
      case Kind::kHistory:
        history(step, op, task);
        break;
      case Kind::kRecur:
        recur(step, op, task);
        break;
      case Kind::kMix:
        mix(step.buffers[op.source], step.buffers[op.second], target, task);
        break;
      case Kind::kQuantize:
        row_to_shorts(target, task);
        break;
      default:
        break;
    }
}

// Consecutive operations up to one after which threads synchronize, and their tasks in order. Operations of one task
// that follow are done by the thread that finishes the group, so that the others wait once.
struct Group {
  const Operation *first, *last;  // inclusive
  const Operation* next;          // after the last one, and after those of one task
  int64_t tasks = 0;

  Group(const Step& step, const Operation* begin, const Operation* end) : first(begin), last(begin) {
    while (!last->meets && last + 1 != end) last++;
    for (const Operation* op = first; op <= last; op++) tasks += n_tasks(step, *op);
    for (next = last + 1; next != end && next->meets && n_tasks(step, *next) == 1;) next++;
  }

  bool has_single_tasks() const { return next != last + 1; }
  void perform_single_tasks(const Step& step, char* scratch) const {
    for (const Operation* op = last + 1; op != next; op++) perform(step, *op, {0, 1}, scratch);
  }

  void perform_some(const Step& step, Share share, char* scratch) const {
    int64_t at = 0;
    for (const Operation* op = first; op <= last; op++) {
      int64_t n = n_tasks(step, *op), begin = share.begin - at, end = share.end - at;
      Range range{begin < 0 ? 0 : begin, end > n ? n : end};
      if (range.begin < range.end) perform(step, *op, range, scratch);
      at += n;
    }
  }

  // The share of one of `n` threads, balanced by cost.
  Share share(const Step& step, int64_t total, int thread, int n) const {
    return {task_at(step, total * thread / n), task_at(step, total * (thread + 1) / n)};
  }
  int64_t cost_of_all(const Step& step) const {
    int64_t total = 0;
    for (const Operation* op = first; op <= last; op++) total += n_tasks(step, *op) * cost(*op);
    return total;
  }

 private:
  int64_t task_at(const Step& step, int64_t paid) const {
    int64_t task = 0;
    for (const Operation* op = first; op <= last; op++) {
      int64_t n = n_tasks(step, *op), each = cost(*op), some = (paid + each / 2) / each;
      if (some < n) return task + some;
      task += n;
      paid -= n * each;
      if (paid < 0) paid = 0;
    }
    return task;
  }
};

// Tasks that a thread claims at once: half of its share, but at least as many panels as a tile has.
int64_t at_one_time(Share share) { return round_up((share.end - share.begin + 1) / 2, kChunkPanels); }

void run(const Step& step, int thread, Team& team) {
  const Operation* op = step.plan->operations.data();
  const Operation* end = op + step.plan->operations.size();
  char* scratch = step.scratch[thread];
  int n = team.n_threads();
  for (uint64_t number = 1; op != end; number++) {
    const Group group(step, op, end);
    op = group.next;
    if (n == 1) {
      group.perform_some(step, {0, group.tasks}, scratch);
      group.perform_single_tasks(step, scratch);
      continue;
    }
    int64_t total = group.cost_of_all(step), finished = 0;
    for (int i = 0; i < n; i++) {
      int owner = (thread + i) % n;
      Share all = group.share(step, total, owner, n);
      while (true) {
        Share some = team.claim(number, owner, all, at_one_time(all));
        if (some.begin == some.end) break;
        group.perform_some(step, some, scratch);
        finished += some.end - some.begin;
      }
    }
    if (finished && team.finish(number, finished) == group.tasks && group.has_single_tasks()) {
      group.perform_single_tasks(step, scratch);
      team.finish(number, 1);
    }
    team.wait(number, group.tasks + group.has_single_tasks());
  }
}

}  // namespace NATIVE_VARIANT

#define NATIVE_JOINED(a, b) a##b
#define NATIVE_NAME(a, b) NATIVE_JOINED(a, b)
Run NATIVE_NAME(run_, NATIVE_VARIANT)() { return NATIVE_VARIANT::run; }

}  // namespace native
