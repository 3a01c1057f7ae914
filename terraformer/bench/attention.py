"""Compares LSH attention with full attention: time and memory of one causal layer on random vectors.

T time, D d_model.
"""

import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from terraformer.bench.machine import memory_bytes
from terraformer.config import BlockConfig, DenseProjectionConfig, FullAttentionConfig, LSHAttentionConfig
from terraformer.layers.attention import Attention
from terraformer.layers.lsh_attention import LSHAttention


@dataclasses.dataclass(frozen=True)
class AttentionTime:
  """Measurements of one kind of attention at one length; times are medians.

  Attributes:
    kind: `lsh` or `full`.
    length: number of positions of the single sequence.
    forward_ms: milliseconds of the layer's forward pass, including projections.
    train_ms: milliseconds of the forward pass, and the backward pass to parameters and input.
    temp_bytes: memory that the compiled training program needs besides arguments and results.
  """

  kind: str
  length: int
  forward_ms: float
  train_ms: float
  temp_bytes: int

  @property
  def microseconds_per_token(self) -> tuple[float, float]:
    """Microseconds per token of the forward pass, and of training."""
    return 1000 * self.forward_ms / self.length, 1000 * self.train_ms / self.length


def bench_attention(
  lengths: tuple[int, ...], d_model: int, n_heads: int, n_rounds: int, chunk_length: int, repeats: int, max_bytes: float
) -> Iterator[AttentionTime]:
  """Measures both kinds at all lengths, and yields the results. Each repetition measures all cases in turn, so that a
  slow moment affects all of them.

  Args:
    lengths: lengths of the sequence.
    d_model, n_heads: width and heads of the layer; its projections are dense.
    n_rounds, chunk_length: settings of LSH attention.
    repeats: number of measurements, of which the median is taken.
    max_bytes: cases that need more memory than this, or than the machine has, are skipped, with a note on the standard
      error.
  """
  kinds = {
    'lsh': (LSHAttention, LSHAttentionConfig(chunk_length, n_rounds, full_below=0)),
    'full': (Attention, FullAttentionConfig()),
  }
  max_bytes = min(max_bytes, memory_bytes())  # the compiler ends the process if it runs out of memory
  programs: dict[tuple[str, int], tuple[Callable, Callable, int]] = {}
  for length, kind in itertools.product(lengths, kinds):
    layer, attention = kinds[kind]
    projection = DenseProjectionConfig(share_qk=kind == 'lsh')
    config = BlockConfig(d_model, n_heads, projection, attention=attention)
    if 4 * d_model * max(d_model, length) > max_bytes:
      _say_left_out(kind, length, 'its projections or its input alone exceed --max_bytes or the memory')
      continue
    if kind == 'full' and 4 * n_heads * length**2 > max_bytes:
      _say_left_out(kind, length, 'its scores alone exceed --max_bytes or the memory')
      continue
    forward, train, temp_bytes = _compile(layer, config, length)
    if temp_bytes > max_bytes:
      _say_left_out(kind, length, f'{temp_bytes / 1e9:.1f} GB exceed --max_bytes or the memory')
    else:
      programs[kind, length] = forward, train, temp_bytes
  times = {which: [] for which in programs}
  for _ in range(repeats):
    for which, (forward, train, _) in programs.items():
      times[which].append((_milliseconds(forward), _milliseconds(train)))
  for (kind, length), measured in times.items():
    forward_ms, train_ms = map(statistics.median, zip(*measured, strict=True))
    yield AttentionTime(kind, length, forward_ms, train_ms, programs[kind, length][2])


def _say_left_out(kind: str, length: int, why: str) -> None:
  print(f'{kind} attention at {length:,} tokens is skipped: {why}', file=sys.stderr)


def _compile(layer, config: BlockConfig, length: int) -> tuple[Callable, Callable, int]:
  """Returns the compiled forward and training passes of a layer as functions without arguments, and the temporary bytes
  of the training pass."""
  module = jax.jit(lambda key: layer(config, True, key=key))(jax.random.key(0))
  x_1xTxD = jax.random.normal(jax.random.key(1), (1, length, config.d_model), jnp.float32)
  # A random cotangent, so that no part of the backward pass is trivial.
  cotangent_1xTxD = jax.random.normal(jax.random.key(2), x_1xTxD.shape, jnp.float32)

  def forward(module, x_1xTxD):
    return module(x_1xTxD)[0]

  def loss(module, x_1xTxD, cotangent_1xTxD):
    return (forward(module, x_1xTxD) * cotangent_1xTxD).sum()

  arguments = module, x_1xTxD
  compiled_forward = jax.jit(forward).lower(*arguments).compile()
  compiled_train = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments, cotangent_1xTxD).compile()
  temp_bytes = compiled_train.memory_analysis().temp_size_in_bytes
  return lambda: compiled_forward(*arguments), lambda: compiled_train(*arguments, cotangent_1xTxD), temp_bytes


def _milliseconds(program: Callable) -> float:
  """Returns the time of one run. A short program runs twice, and only the second run counts, since the first one maps
  memory that other programs released."""
  for _ in range(2):
    begun = time.perf_counter()
    jax.block_until_ready(program())
    milliseconds = 1000 * (time.perf_counter() - begun)
    if milliseconds > 3000:
      break
  return milliseconds


def as_line(result: AttentionTime) -> str:
  """Returns one measurement as a line of text."""
  forward, train = result.microseconds_per_token
  return (
    f'{result.kind:5} {result.length:9,} tokens: forward {result.forward_ms:10,.1f} ms ({forward:8.2f} us per token), '
    f'training {result.train_ms:10,.1f} ms ({train:8.2f} us per token), {result.temp_bytes / 1e6:10,.1f} MB temporary'
  )
