"""Each operation, in the code of every kind of processor, beside float64."""

import numpy as np
import pytest

from terraformer.native import layout
from terraformer.native.plan import INPUT, OUTPUT, Plan
from tests.native.plans import add_matrix, add_rows, close, dense_plan, kept, opened, random, run

# Sizes that fill no vector, no panel, no pair, and several stretches.
SIZES = [(1, 1), (7, 5), (48, 33), (600, 20), (300, 300)]
BATCHES = [1, 3, 17]
TYPES = {
  'float32': 2e-6,
  'bfloat16': 2e-6,
  'int8': 4e-4,
}  # beside the rounded weights, for 8 bits with activations in 16


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('size', SIZES)
def test_a_product_is_that_of_the_rounded_weights(variant, kind, size):
  weights_KxN, x_BxK = random(*size), random(5, size[0], seed=1)
  plan = dense_plan(weights_KxN, kind)
  matrix = layout.Matrix(kind, *size, layout.stretch_of(size[0]))
  rounded = layout.unpack(layout.pack(weights_KxN, matrix), matrix).astype(np.float64)
  close(run(opened(plan, variant), x_BxK, size[1]), x_BxK.astype(np.float64) @ rounded, TYPES[kind])


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('size', SIZES)
def test_a_row_does_not_depend_on_its_batch_nor_on_the_threads(variant, kind, size):
  x_BxK = random(17, size[0], seed=1)
  plan = dense_plan(random(*size), kind)
  alone = np.concatenate([run(opened(plan, variant, 1), x_1xK[None], size[1]) for x_1xK in x_BxK])
  for n_rows in BATCHES:
    np.testing.assert_array_equal(run(opened(plan, variant, 2), x_BxK[:n_rows], size[1]), alone[:n_rows])


def test_a_product_is_followed_by_what_its_columns_say(variant):
  weights_KxN, x_BxK = random(24, 21), random(4, 24, seed=1)
  bias_N = random(21, seed=2)
  for relu, to_grid in [(0, 0), (1, 0), (0, 1), (1, 1)]:
    plan = dense_plan(weights_KxN, relu=relu, to_grid=to_grid, bias=0)
    plan.vector('bias', 21, lambda: bias_N)
    y = x_BxK.astype(np.float64) @ weights_KxN + bias_N
    y = np.maximum(y, 0) if relu else y
    found = run(opened(plan, variant), x_BxK, 21)
    close(found, y, 1e-5 if to_grid else 2e-6)
    if to_grid:
      np.testing.assert_array_equal(found * 2**16, np.rint(found * 2**16))


@pytest.mark.parametrize('width', [1, 24, 100, 1024])
@pytest.mark.parametrize('root_mean_square', [0, 1])
def test_normalisation_is_of_the_mean_of_two_streams(variant, width, root_mean_square):
  plan = Plan(width, width)
  double = plan.buffer(width)
  plan.add('mix', source=INPUT, second=INPUT, target=double)
  plan.add('dense', source=double, target=double, addend=INPUT, matrix=_identity(plan, width))  # 2 x
  scale, bias = random(width, seed=3), random(width, seed=4)
  columns = {'scale': plan.vector('scale', width, lambda: scale), 'bias': plan.vector('bias', width, lambda: bias)}
  plan.add('norm', source=INPUT, second=double, target=OUTPUT, root_mean_square=root_mean_square, **columns)
  x = random(3, width)
  mean = 1.5 * x.astype(np.float64)
  centered = mean if root_mean_square else mean - mean.mean(1, keepdims=True)
  expected = centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-6) * scale + bias
  close(run(opened(plan, variant), x, width), expected, 1e-5)


def _identity(plan: Plan, width: int) -> int:
  identity = layout.Matrix('float32', width, width, width)
  return add_matrix(plan, 'identity', identity, np.eye(width, dtype=np.float32))


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize(('block', 'n_blocks', 'width'), [(6, 5, 24), (16, 4, 33), (64, 9, 256)])
@pytest.mark.parametrize('by_gain', [0, 1])
def test_a_sparse_block_reads_the_rows_that_it_picks(variant, kind, block, n_blocks, width, by_gain):
  rank, n_units = 10, block * n_blocks
  padded = -(-block // 16) * 16
  control1, control2 = random(width, rank) / 5, random(rank, n_blocks, block, seed=1)
  w1, w2, bias = random(n_units, width, seed=2), random(n_units, width, seed=3), random(width, seed=4)
  plan = Plan(width, width)
  segment = kind == 'int8'
  x, low = plan.buffer(width, segment=width * segment), plan.buffer(rank, segment=rank * segment)
  hidden = plan.buffer(n_blocks)
  padding = ((0, 0), (0, 0), (0, padded - block))
  first = add_matrix(plan, '1', layout.Matrix('float32', width, rank, width), control1)
  second = add_matrix(
    plan, '2', layout.Matrix(kind, rank, n_blocks * padded, rank), np.pad(control2, padding).reshape(rank, -1)
  )
  rows1, rows2 = add_rows(plan, 'w1', kind, w1), add_rows(plan, 'w2', kind, w2)
  no_bias = plan.vector('no bias', n_blocks * padded, lambda: np.zeros(n_blocks * padded))
  blocks = {'n_blocks': n_blocks, 'block': block, 'pick': 0}
  plan.add('mix', source=INPUT, second=INPUT, target=x)
  plan.add('dense', source=x, target=low, matrix=first)
  if segment:
    plan.add('quantize', target=x)
    plan.add('quantize', target=low)
  plan.add(
    'pick', source=low, second=x, target=hidden, matrix=second, bias=no_bias, table=rows1, by_gain=by_gain, **blocks
  )
  plan.add('gather', source=hidden, target=OUTPUT, table=rows2, bias=plan.vector('bias', width, lambda: bias), **blocks)
  x_BxD, units_BxM = random(7, width, seed=5), np.zeros((7, n_blocks), np.int32)
  found = run(opened(plan, variant), x_BxD, width, units=units_BxM)
  logits = np.einsum('BR,RMN->BMN', x_BxD.astype(np.float64) @ control1, control2)
  chosen = np.take_along_axis(logits, units_BxM[..., None], -1)[..., 0]
  assert (logits.max(-1) - chosen <= (0.05 if kind != 'float32' else 1e-5) * np.abs(logits).max()).all()
  soft = np.exp(chosen) / np.exp(logits).sum(-1)
  index = np.arange(n_blocks) * block + units_BxM
  one, two = (layout.unpack_rows(*layout.pack_rows(w, kind)).astype(np.float64)[index] for w in (w1, w2))
  expected = np.maximum(np.einsum('BD,BMD->BM', x_BxD, one), 0)
  expected *= soft if by_gain else 1
  tolerance = TYPES[kind] if not by_gain or kind == 'float32' else 0.05  # the gain is that of rounded logits
  close(found, np.einsum('BM,BMD->BD', expected, two) + bias, tolerance * 3)
  given = random(7, n_blocks).astype(np.int32) % block
  run(opened(plan, variant), x_BxD, width, given_units=given, units=units_BxM)
  np.testing.assert_array_equal(units_BxM, given)


def _parts(plan: Plan, n_parts: int, width: int) -> list[int]:
  """Buffers with equal parts of the input."""
  parts = [plan.buffer(width) for _ in range(n_parts)]
  for i, part in enumerate(parts):
    choose = np.eye(n_parts * width, dtype=np.float32)[:, i * width : (i + 1) * width]
    matrix = add_matrix(plan, f'{i}', layout.Matrix('float32', n_parts * width, width, n_parts * width), choose)
    whole = plan.buffer(n_parts * width)
    plan.add('mix', source=INPUT, second=INPUT, target=whole)
    plan.add('dense', source=whole, target=part, matrix=matrix)
  return parts


HEADS = [(3, 8), (2, 64), (1, 17)]


@pytest.mark.parametrize(('kind', 'tolerance'), [('float32', 2e-6), ('bfloat16', 2e-2), ('int8', 2e-2)])
@pytest.mark.parametrize(('n_heads', 'width'), HEADS)
def test_attention_sees_the_positions_of_each_text(variant, kind, tolerance, n_heads, width):
  d, n_steps = n_heads * width, 70
  plan = Plan(3 * d, d)
  parts = _parts(plan, 3, d)
  columns = {'heads': n_heads, 'head_width': width, 'cache_type': layout.TYPES.index(kind)}
  at = plan.page(kind, n_heads, width)
  plan.add('attend', source=parts[0], key=parts[1], value=parts[2], target=OUTPUT, page_offset=at, **columns)
  x_TxBxD = random(n_steps, 2, 3 * d)
  cache, model = kept(plan, 2, 2), opened(plan, variant)
  begun = np.array([0, -5])  # the second text joins five positions later
  for t in range(n_steps):
    texts = np.flatnonzero(t + begun >= 0)
    if len(texts) < 2:  # alone, in memory of its own
      pages = np.ascontiguousarray(cache['pages'][:, :1])
      found = run(model, x_TxBxD[t, :1], d, pages=pages, state=cache['state'], lengths=np.array([t], np.int32))
      cache['pages'][:, :1] = pages
    else:
      found = run(model, x_TxBxD[t], d, lengths=(t + begun).astype(np.int32), **cache)
  for row, text in enumerate([0, 1]):
    seen = x_TxBxD[-begun[text] :, text].reshape(-1, 3, n_heads, width).astype(np.float64)
    q, k, v = seen[-1, 0], seen[:, 1], seen[:, 2]
    weight = np.exp(np.einsum('HK,THK->TH', q, k) / np.sqrt(width))
    expected = np.einsum('TH,THK->HK', weight / weight.sum(0), v).reshape(-1)
    close(found[row], expected, tolerance)


def _bucket(q_K: np.ndarray, directions_DxK: np.ndarray, factors: tuple[int, ...]) -> int:
  """The bucket of a query, as the definition has it."""
  bucket, scale, first = 0, 1, 0
  for factor in factors:
    near = directions_DxK[first : first + factor // 2] @ q_K
    bucket += scale * int(np.argmax(np.concatenate([near, -near])))
    scale, first = scale * factor, first + factor // 2
  return bucket


@pytest.mark.parametrize(('kind', 'tolerance'), [('float32', 5e-6), ('bfloat16', 2e-2), ('int8', 2e-2)])
@pytest.mark.parametrize(('n_heads', 'width'), HEADS)
@pytest.mark.parametrize('factors', [(4,), (2, 4)])
def test_hashed_attention_sees_the_last_positions_of_its_buckets(variant, kind, tolerance, n_heads, width, factors):
  d, n_steps, n_rounds, window = n_heads * width, 140, 2, 6
  directions_HxRxDxK = random(n_heads, n_rounds, sum(factors) // 2, width, seed=1)
  plan = Plan(2 * d, d)
  query, value = _parts(plan, 2, d)
  plan.add(
    'attend_hashed',
    source=query,
    value=value,
    target=OUTPUT,
    heads=n_heads,
    head_width=width,
    cache_type=layout.TYPES.index(kind),
    page_offset=plan.page(kind, n_heads, width, by_record=True),
    directions=plan.vector('directions', directions_HxRxDxK.size, lambda: directions_HxRxDxK.swapaxes(2, 3)),
    factors=plan.vector('factors', len(factors), lambda: np.array(factors)),
    rounds=n_rounds,
    slots=window + 1,
    table_offset=plan.table(n_heads * n_rounds * int(np.prod(factors)) * (window + 2)),
  )
  x_TxBxD = random(n_steps, 2, 2 * d, seed=2)
  cache, model = kept(plan, 2, 3), opened(plan, variant)
  found_TxBxD = np.stack(
    [run(model, x_BxD, d, lengths=np.full(2, t, np.int32), **cache) for t, x_BxD in enumerate(x_TxBxD)]
  )
  for text in range(2):
    q_TxHxK, v_TxHxK = x_TxBxD[:, text].reshape(n_steps, 2, n_heads, width).astype(np.float64).swapaxes(0, 1)
    k_TxHxK = q_TxHxK / np.linalg.norm(q_TxHxK, axis=-1, keepdims=True)
    expected = np.zeros_like(v_TxHxK)
    for h in range(n_heads):
      buckets = [[_bucket(q_K, rotation, factors) for q_K in q_TxHxK[:, h]] for rotation in directions_HxRxDxK[h]]
      for t in range(n_steps):
        seen = [i for of_T in buckets for i in [j for j in range(t) if of_T[j] == of_T[t]][-window:]]
        weight = np.exp(k_TxHxK[seen, h] @ q_TxHxK[t, h])
        expected[t, h] = weight @ v_TxHxK[seen, h] / weight.sum() if seen else v_TxHxK[t, h]
    close(found_TxBxD[:, text], expected.reshape(n_steps, d), tolerance)
