"""Measures llama.cpp for comparison: a dense model with as many parameters, random weights, and each of its types.

This module writes the GGUF files, since speed does not depend on the weights. llama.cpp's KV cache is float16.
"""

import ctypes
import dataclasses
import importlib.util
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from terraformer.bench.decode_case import TURN, Spec
from terraformer.config import ModelConfig, UserError

# Name of a type in llama.cpp -> the scales of a block: byte offset and value, stored as float16.
_SCALES = {
  'F32': {},
  'Q8_0': {0: 3e-4},
  'Q4_0': {0: 4e-3},
  'Q4_K': {0: 1e-4, 2: 1e-3},
  'TQ2_0': {64: 2e-2},
}
TYPES = tuple(_SCALES)
_POOL_BYTES = 1 << 24
_SPECIAL = 3  # <unk>, <s>, </s>
_BYTES = 256  # tokens for single bytes, which this kind of vocabulary must have


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a dense decoder with gated feed-forward blocks in llama.cpp."""

  n_layers: int
  d_model: int
  d_ff: int
  n_heads: int
  vocab_size: int

  @property
  def params(self) -> int:
    """Number of parameters, including embedding and output layer."""
    layer = 4 * self.d_model**2 + 3 * self.d_model * self.d_ff + 2 * self.d_model
    return 2 * self.vocab_size * self.d_model + self.n_layers * layer + self.d_model


def sizes_like(config: ModelConfig, params: int) -> Sizes:
  """Returns sizes with a model's width and depth, and a number of parameters as close to `params` as blocks allow.

  Raises:
    UserError: if no feed-forward width gives so few parameters.
  """
  n_layers, d, vocab = config.decoder_shape[0], config.d_model, config.vocab_size
  wanted = (params - 2 * vocab * d - n_layers * (4 * d**2)) / (n_layers * 3 * d)
  d_ff = round(wanted / 256) * 256  # llama.cpp's blocks have at most 256 weights
  if d_ff < 256 or d % 256:
    raise UserError(f'--peers: llama.cpp has no dense model of {params:,} parameters at this width; use a larger model')
  return Sizes(n_layers, d, d_ff, config.blocks['decoder'].n_heads, vocab)


def require_peers() -> None:
  """Raises UserError if the extra is not installed."""
  for module in ('llama_cpp', 'gguf'):
    if importlib.util.find_spec(module) is None:
      raise UserError("--peers: llama.cpp is not installed; run pip install 'terraformer-jax[peers]'")


@contextmanager
def gguf_file(sizes: Sizes, kind: str, folder: str | None) -> Iterator[Path]:
  """Yields a temporary file of random weights in a type of llama.cpp."""
  with tempfile.TemporaryDirectory(dir=folder) as scratch:
    path = Path(scratch) / f'{kind}.gguf'
    _write(path, sizes, kind)
    yield path


def _write(path: Path, sizes: Sizes, kind: str) -> None:
  import gguf

  quantization = gguf.GGMLQuantizationType[kind]
  block, n_bytes = gguf.GGML_QUANT_SIZES[quantization]
  rng = np.random.default_rng(0)
  pool = _random_blocks(rng, kind, n_bytes)
  writer = gguf.GGUFWriter(path, 'llama')
  _describe(writer, sizes)

  def add(name: str, *shape: int) -> None:
    rows = np.resize(np.roll(pool, n_bytes * int(rng.integers(1000))), math.prod(shape) // block * n_bytes)
    if kind == 'F32':
      writer.add_tensor(name, rows.view(np.float32).reshape(shape))
    else:
      writer.add_tensor(name, rows.reshape(*shape[:-1], -1), raw_dtype=quantization)

  def add_norm(name: str) -> None:
    writer.add_tensor(name, np.ones(sizes.d_model, np.float32))

  d, ff = sizes.d_model, sizes.d_ff
  add('token_embd.weight', sizes.vocab_size, d)
  for layer in range(sizes.n_layers):
    for name in ('attn_norm', 'ffn_norm'):
      add_norm(f'blk.{layer}.{name}.weight')
    matrices = dict.fromkeys(('attn_q', 'attn_k', 'attn_v', 'attn_output'), (d, d))
    matrices |= {'ffn_gate': (ff, d), 'ffn_up': (ff, d), 'ffn_down': (d, ff)}
    for name, shape in matrices.items():
      add(f'blk.{layer}.{name}.weight', *shape)
  add_norm('output_norm.weight')
  add('output.weight', sizes.vocab_size, d)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _random_blocks(rng: np.random.Generator, kind: str, n_bytes: int) -> np.ndarray:
  """Returns random blocks of a type as bytes, with scales that keep the weights small."""
  if kind == 'F32':
    return rng.uniform(-0.03, 0.03, _POOL_BYTES // 4).astype(np.float32).view(np.uint8)
  blocks = rng.integers(0, 256, (_POOL_BYTES // n_bytes, n_bytes), np.uint8)
  for offset, scale in _SCALES[kind].items():
    blocks[:, offset : offset + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
  return blocks.reshape(-1)


def _describe(writer: Any, sizes: Sizes) -> None:
  """Writes the architecture, and a vocabulary of meaningless words."""
  writer.add_context_length(1 << 17)
  writer.add_embedding_length(sizes.d_model)
  writer.add_feed_forward_length(sizes.d_ff)
  writer.add_block_count(sizes.n_layers)
  writer.add_head_count(sizes.n_heads)
  writer.add_head_count_kv(sizes.n_heads)
  writer.add_layer_norm_rms_eps(1e-6)
  writer.add_rope_dimension_count(sizes.d_model // sizes.n_heads)
  writer.add_vocab_size(sizes.vocab_size)
  n_words = sizes.vocab_size - _SPECIAL - _BYTES
  tokens = ['<unk>', '<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(_BYTES)), *(f'w{i}' for i in range(n_words))]
  writer.add_tokenizer_model('llama')
  writer.add_token_list(tokens)
  writer.add_token_scores([0.0] * len(tokens))
  writer.add_token_types([2, 3, 3, *[6] * _BYTES, *[1] * n_words])


class LlamaCase:
  """A model of llama.cpp that is being measured; see `decode_case.Case`."""

  def __init__(self, path: Path, sizes: Sizes, kind: str, context: int, batch: int, n_threads: int):
    """Loads the model and reads `context` random tokens for each of `batch` texts."""
    import llama_cpp

    self._llama = llama_cpp
    self.spec, self.sizes = Spec('dense', 'llama.cpp', kind, 'float16'), sizes
    self.context, self.batch = context, batch
    self.about = f'llama.cpp ({llama_cpp.__version__}, {n_threads} thread{"s" if n_threads > 1 else ""})'
    self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not self._model:
      raise UserError(f'--peers: llama.cpp cannot load a model in {kind}; install another version of llama-cpp-python')
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = -(-batch * (context + 2 * TURN) // 256) * 256
    parameters.n_seq_max = batch
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = n_threads
    self._context = llama_cpp.llama_init_from_model(self._model, parameters)
    if not self._context:
      raise UserError(f'--peers: llama.cpp has too little memory for {batch} texts of {context:,} tokens')
    self._memory = llama_cpp.llama_get_memory(self._context)
    self._batch = llama_cpp.llama_batch_init(max(512, batch), 0, 1)
    rng = np.random.default_rng(0)
    for text in range(batch):
      tokens = rng.integers(_SPECIAL + _BYTES, sizes.vocab_size, context).tolist()
      for first in range(0, context, 512):
        chunk = tokens[first : first + 512]
        self._decode([(token, first + i, text) for i, token in enumerate(chunk)])
    self.seconds: list[float] = []
    self.take_turn()
    self.seconds.clear()

  def _decode(self, entries: list[tuple[int, int, int]]) -> None:
    """Runs the model on tokens, each with its position and text; computes logits for the last token of each text."""
    batch = self._batch
    batch.n_tokens = len(entries)
    last = {text: i for i, (_, _, text) in enumerate(entries)}
    for i, (token, position, text) in enumerate(entries):
      batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, text
      batch.logits[i] = last[text] == i
    if self._llama.llama_decode(self._context, batch):
      raise UserError('--peers: llama.cpp failed to decode; use a smaller --batch or --context')

  def take_turn(self) -> None:
    """Generates tokens after the context, overwriting those of the last turn, and records the time of each step."""
    for text in range(self.batch):
      self._llama.llama_memory_seq_rm(self._memory, text, self.context, -1)
    tokens = np.random.default_rng(len(self.seconds)).integers(_SPECIAL + _BYTES, self.sizes.vocab_size, self.batch)
    for step in range(TURN + 1):
      begun = time.perf_counter()
      self._decode([(int(token), self.context + step, text) for text, token in enumerate(tokens)])
      logits = [self._llama.llama_get_logits_ith(self._context, text) for text in range(self.batch)]
      tokens = [np.ctypeslib.as_array(each, (self.sizes.vocab_size,)).argmax() for each in logits]
      if step:  # in the first step, the processor's caches hold other programs' data
        self.seconds.append(time.perf_counter() - begun)

  @property
  def params(self) -> int:
    """Number of parameters."""
    return self.sizes.params

  @property
  def layers(self) -> int:
    """Number of layers."""
    return self.sizes.n_layers

  @property
  def bytes_per_step(self) -> int:
    """Bytes that a step must read: all matrices but the embedding, and keys and values."""
    import gguf

    block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.spec.dtype]]
    weights = (self.sizes.params - self.sizes.vocab_size * self.sizes.d_model) * n_bytes // block
    return weights + 2 * 2 * self.sizes.n_layers * self.sizes.d_model * self.context * self.batch

  def close(self) -> None:
    """Frees the model's memory."""
    self._llama.llama_batch_free(self._batch)
    self._llama.llama_free(self._context)
    self._llama.llama_model_free(self._model)
