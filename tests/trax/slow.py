"""The authors' Terraformer in NumPy, written from the description of their checkpoints, one example at a time.

It reads weights one by one in the order of the file, and knows no names, no padding and nothing of this library.

T time, D d_model, H heads, K head width, S modules, W width of a module, F units, M blocks, N units a block, R rank.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

Take = Callable[..., np.ndarray]  # sizes -> the next weight of the file


@dataclasses.dataclass(frozen=True)
class Spec:
  """A model.

  Attributes:
    d, heads, vocab, positions: sizes.
    layers, attentions: of encoder and decoder; attention sublayers of a decoder layer.
    ff: units, or (units, N, R).
    sru: its width; 0 for none.
    loss: modules of the output; 0 for a dense one.
    rank: of the tables of positions; 0 for full ones.
    encoder, decoder: the attention: `dense`, or (S, C) for convolutions over C positions.
    queries: what becomes of queries and keys of the encoder and the decoder: `both`, `shared`, or `averaged`.
    scores: of encoder and decoder: `full`; `plain`, with queries for keys; `lsh`, with keys of length 1, not to itself.
    merges: whether the encoder's streams are merged.
    swaps: whether the streams are exchanged a second time at the end of an encoder block.
    twice: whether the file has the embedding again.
    centered: whether the normalizations of blocks are.
  """

  d: int = 24
  heads: int = 3
  vocab: int = 40
  positions: int = 20
  layers: tuple[int, int] = (1, 2)
  attentions: int = 2
  ff: int | tuple[int, int, int] = 30
  sru: int = 0
  loss: int = 0
  rank: int = 0
  encoder: str | tuple[int, int] = 'dense'
  decoder: str | tuple[int, int] = 'dense'
  queries: tuple[str, str] = ('both', 'both')
  scores: tuple[str, str] = ('full', 'full')
  merges: bool = False
  swaps: bool = True
  twice: bool = False
  centered: bool = True


def logits(spec: Spec, take: Take, source: list[int], target: list[int]) -> np.ndarray:
  """Logits TxV of the tokens of a target, each given those before it."""
  embedding = take(spec.vocab, spec.d)
  tables = []
  for stack in range(2):
    if stack and spec.twice:
      np.testing.assert_array_equal(take(spec.vocab, spec.d), embedding)
    table = take(spec.positions, spec.rank or spec.d)
    tables.append(table @ take(spec.rank, spec.d) if spec.rank else table)
  a = b = embedding[source] + tables[0][: len(source)]
  for _ in range(spec.layers[0]):
    a = a + _attention(spec, take, 0, b)
    a, b = b, a
    a = a + _feed_forward(spec, take, b)
    a, b = (b, a) if spec.swaps else (a, b)
  if spec.merges:
    kernel, bias = take(spec.d, spec.d), take(spec.d)
    a = b = _norm(take, (a + b) / 2 @ kernel + bias)
  x = embedding[[0, *target[:-1]]] + tables[1][: len(target)]
  a, b = np.concatenate([a, x]), np.concatenate([b, x])
  for _ in range(spec.layers[1]):
    for _ in range(spec.attentions):
      a = a + _attention(spec, take, 1, b)
      a, b = b, a
    a = a + _feed_forward(spec, take, b)
    a, b = b, a
  x = _norm(take, (a + b)[len(source) :] / 2)
  if not spec.loss:
    kernel, bias = take(spec.d, spec.vocab), take(spec.vocab)
    return x @ kernel + bias
  return _multiplicative(take, x, spec.loss, spec.vocab)


def _norm(take: Take, x: np.ndarray, centered: bool = True) -> np.ndarray:
  scale, bias = take(x.shape[-1]), take(x.shape[-1])
  if not centered:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale + bias


def _multiplicative(take: Take, x: np.ndarray, n_modules: int, d_out: int) -> np.ndarray:
  gating, projection, bias = take(n_modules, x.shape[-1]), take(x.shape[-1], d_out // n_modules), take(d_out)
  return np.einsum('TD,SD,DW->TSW', x, gating, projection, optimize=True).reshape(len(x), d_out) + bias


def _attention(spec: Spec, take: Take, stack: int, x: np.ndarray) -> np.ndarray:
  kind, queries, scores = (spec.encoder, spec.decoder)[stack], spec.queries[stack], spec.scores[stack]
  x = _norm(take, x, spec.centered)
  if kind == 'dense':
    apply = lambda x: x @ take(spec.d, spec.d) + take(spec.d)  # noqa: E731
    q = apply(x)
    k = q if queries == 'shared' else apply(x)
    v = apply(x)
  else:
    n_modules, length = kind
    shared = _multiplicative(take, x, n_modules, spec.d).reshape(len(x), n_modules, -1)
    q = _convolution(take, shared, length, 3)
    k = q if queries == 'shared' else _convolution(take, shared, length, 3)
    v = _convolution(take, shared, length, 1)
  if queries == 'averaged':
    q = k = (q + k) / 2
  q, k, v = (each.reshape(len(x), spec.heads, -1) for each in (q, k, v))
  seen = np.ones((len(x), len(x)), bool) if stack == 0 else np.tri(len(x), dtype=bool)
  if scores == 'lsh':
    k = k / np.sqrt(np.square(k).mean(-1, keepdims=True) + 1e-6)
    seen = seen & ~np.eye(len(x), dtype=bool)
  score_HxTxT = np.einsum('THK,PHK->HTP', q, k) / math.sqrt(q.shape[-1])
  # A position that sees no other sees itself.
  score_HxTxT = np.where(seen, score_HxTxT, np.where(np.eye(len(x), dtype=bool), -1e5, -np.inf))
  weight_HxTxT = np.exp(score_HxTxT - score_HxTxT.max(-1, keepdims=True))
  weight_HxTxT = weight_HxTxT / weight_HxTxT.sum(-1, keepdims=True)
  y = np.einsum('HTP,PHK->THK', weight_HxTxT, v).reshape(len(x), -1)
  return y @ take(spec.d, spec.d) + take(spec.d) if kind == 'dense' else y


def _convolution(take: Take, x_TxSxW: np.ndarray, length: int, n_seen: int) -> np.ndarray:
  time, n_modules, width = x_TxSxW.shape
  kernel, bias = take(length, n_seen, width, width), take(width)
  beside = n_seen // 2
  padded = np.pad(x_TxSxW, ((length - 1, 0), (beside, beside), (0, 0)))
  y = np.zeros_like(x_TxSxW) + bias
  for before in range(length):
    for module in range(n_seen):
      y = y + padded[before : before + time, module : module + n_modules] @ kernel[before, module]
  return y


def _feed_forward(spec: Spec, take: Take, x: np.ndarray) -> np.ndarray:
  normed = _norm(take, x, spec.centered)
  if isinstance(spec.ff, int):
    hidden = np.maximum(normed @ take(spec.d, spec.ff) + take(spec.ff), 0)
    y = hidden @ take(spec.ff, spec.d) + take(spec.d)
  else:
    d_ff, n, rank = spec.ff
    blocks = d_ff // n
    controller = np.einsum('TR,RMN->TMN', normed @ take(spec.d, rank), take(rank, blocks, n)) + take(blocks, n)
    hidden = np.maximum(np.einsum('TD,DMN->TMN', normed, take(spec.d, blocks, n)), 0)
    hidden = hidden * np.eye(n)[controller.argmax(-1)]
    y = np.einsum('TMN,NMD->TD', hidden, take(n, blocks, spec.d)) + take(spec.d)
  return y + _recurrence(spec, take, x) if spec.sru else y


def _recurrence(spec: Spec, take: Take, x: np.ndarray) -> np.ndarray:
  u = spec.sru
  inner = _norm(take, x, spec.centered) @ take(spec.d, u) + take(u)
  gates = inner @ take(u, 3 * u) + take(3 * u)
  reset, forget = (1 / (1 + np.exp(-gates[:, at : at + u])) for at in (0, u))
  state, read = np.zeros(u), []
  for time in range(len(x)):
    state = forget[time] * state + (1 - forget[time]) * gates[time, 2 * u :]
    read.append(reset[time] * state + (1 - reset[time]) * inner[time] * math.sqrt(3))
  return np.stack(read) @ take(u, spec.d) + take(spec.d)


# --- Files ------------------------------------------------------------------------------------------------------------


def reader(weights: Iterable[np.ndarray]) -> tuple[Take, Iterator[np.ndarray]]:
  """Gives the weights of a file in their order, which must have the sizes that are asked for; returns the rest too."""
  rest = iter(weights)

  def take(*sizes):
    weight = next(rest)
    assert weight.shape == sizes
    return weight.astype(np.float64)

  return take, rest


def gin(spec: Spec, inputs_length: int, targets_length: int) -> str:
  """The config.gin of a model that was trained on sources and targets of these lengths."""
  model = {
    'd_model': spec.d,
    'n_heads': spec.heads,
    'd_ff': spec.ff if isinstance(spec.ff, int) else spec.ff[0],
    'ff_sparsity': 0 if isinstance(spec.ff, int) else spec.ff[1:],
    'ff_use_sru': (1, spec.sru) if spec.sru else 0,
    'loss_sparsity': spec.loss,
    'input_vocab_size': spec.vocab,
    'max_len': spec.positions,
    'pos_type': None,
    'n_encoder_layers': spec.layers[0],
    'n_decoder_layers': spec.layers[1],
    'n_decoder_attention_layers': spec.attentions,
    'reversible_encoder': not spec.merges,
    'use_two_swaps_per_encoder_block': spec.swaps,
    'center_layernorm': spec.centered,
  }
  lines = [f'ConfigurableTerraformer.{name} = {value!r}' for name, value in model.items()]
  lines.append(f'PadToLength.len_map = {{0: {inputs_length}, 1: {targets_length}}}')
  stacks = (
    ('encoder', 'encoder_attention_type', spec.encoder),
    ('decoder', 'encoder_decoder_attention_type', spec.decoder),
  )
  for at, (scope, field, kind) in enumerate(stacks):
    lines += _attention_lines(scope, field, kind, spec.queries[at], spec.scores[at])
  return '\n'.join(lines)


def _attention_lines(scope: str, field: str, kind: str | tuple[int, int], queries: str, scores: str) -> list[str]:
  wrapper, mixed = f'{scope}/PureLSHSelfAttentionWrapper', f'{scope}/MixedLSHSelfAttention'
  field = f'ConfigurableTerraformer.{field}'
  if scores != 'full':
    length = 50 if scores == 'plain' else 0
    is_dense = kind == 'dense'
    return [
      f'{field} = @{wrapper}',
      f'{wrapper}.num_weights = {2 if queries == "shared" else 3}',
      f'{wrapper}.weights_format = {"model" if is_dense else "sparse"!r}',
      f'{wrapper}.sparsity = {16 if is_dense else kind[0]}',
      f'{wrapper}.pure_lsh_implementation = @{mixed}',
      f'{mixed}.chunk_len = 64',
      f'{mixed}.std_length = {length}',
    ]
  if kind == 'dense':
    return [f'{field} = @{"Attention" if scope == "encoder" else "CausalAttention"}']
  convolutions = f'{scope}/MultiplicativeConvCausalAttention'
  return [
    f'{field} = @{convolutions}',
    f'{convolutions}.sparsity = {kind[0]}',
    f'{convolutions}.length_kernel_size = {kind[1]}',
    f'{convolutions}.share_qk = {queries == "shared"}',
  ]
