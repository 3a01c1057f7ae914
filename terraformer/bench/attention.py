"""LSH attention beside full attention: time and memory of one causal layer over random vectors.

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
  """One kind of attention at one length; medians.

  Attributes:
    kind: `lsh` or `full`.
    length: positions of the one sequence.
    forward_ms: of the layer, projections included.
    train_ms: forwards, and backwards to parameters and input.
    temp_bytes: what the compiled training program needs besides arguments and results.
  """

  kind: str
  length: int
  forward_ms: float
  train_ms: float
  temp_bytes: int

  @property
  def microseconds_per_token(self) -> tuple[float, float]:
    """Forwards and in training."""
    return 1000 * self.forward_ms / self.length, 1000 * self.train_ms / self.length


def bench_attention(
  lengths: tuple[int, ...], d_model: int, n_heads: int, n_rounds: int, chunk_length: int, repeats: int, max_bytes: float
) -> Iterator[AttentionTime]:
  """Measures both kinds at all lengths, one after the other in every repetition: a slow moment hits all alike.

  Args:
    lengths: of the sequence.
    d_model, n_heads: of the layer; its projections are dense.
    n_rounds, chunk_length: of LSH attention.
    repeats: measurements, of which the median counts.
    max_bytes: what would take more, or more than this machine's memory, is left out, with a note on the standard error.
  """
  kinds = {
    'lsh': (LSHAttention, LSHAttentionConfig(chunk_length, n_rounds, full_below=0)),
    'full': (Attention, FullAttentionConfig()),
  }
  max_bytes = min(max_bytes, memory_bytes())  # the compiler ends the process over what no machine has
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
  print(f'{kind} attention at {length:,} tokens is left out: {why}', file=sys.stderr)


def _compile(layer, config: BlockConfig, length: int) -> tuple[Callable, Callable, int]:
  """Compiled forward and training passes of a layer as functions without arguments, and bytes of the latter."""
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
  """Of one run. A short one is run twice, and the second counts: the first maps memory that others gave back."""
  for _ in range(2):
    begun = time.perf_counter()
    jax.block_until_ready(program())
    milliseconds = 1000 * (time.perf_counter() - begun)
    if milliseconds > 3000:
      break
  return milliseconds


def as_line(result: AttentionTime) -> str:
  """One measurement for people."""
  forward, train = result.microseconds_per_token
  return (
    f'{result.kind:5} {result.length:9,} tokens: forward {result.forward_ms:10,.1f} ms ({forward:8.2f} us a token), '
    f'training {result.train_ms:10,.1f} ms ({train:8.2f} us a token), {result.temp_bytes / 1e6:10,.1f} MB temporary'
  )
