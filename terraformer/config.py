"""Configuration: frozen dataclasses, checked when built, bound by gin, stored as JSON with every checkpoint and bundle.

A config names a mechanism by its type: `SparseFFConfig` in the place of `DenseFFConfig` makes the layer sparse, so
every dense baseline is another value of the same field and no layer reads a mode string.
"""

import dataclasses
import types
import typing
from typing import Any


class UserError(ValueError):
  """Bad input: its message is one sentence that says what was expected and what was found."""


def _expect(condition: bool, message: str) -> None:
  if not condition:
    raise UserError(message)


def _admits(annotation: Any, value: Any) -> bool:
  """Whether `value` is of the annotated type; an int is taken for a float, a bool for neither."""
  origin = typing.get_origin(annotation)
  if origin in (typing.Union, types.UnionType):
    return any(_admits(option, value) for option in typing.get_args(annotation))
  if origin is tuple:
    return isinstance(value, tuple) and all(_admits(typing.get_args(annotation)[0], item) for item in value)
  if annotation is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if annotation is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, annotation)


class _Checked:
  """A config whose fields are checked against their annotations before its own `check`."""

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if typing.get_origin(field.type) is tuple and isinstance(value, list):
        value = tuple(value)
        object.__setattr__(self, field.name, value)
      if not _admits(field.type, value):
        expected = getattr(field.type, '__name__', None) if isinstance(field.type, type) else str(field.type)
        expected = expected.replace(f'{__name__}.', '')
        raise UserError(f'{type(self).__name__}.{field.name}: expected {expected}, found {value!r}')
    self.check()

  def check(self) -> None:
    """Raises UserError where the fields contradict each other."""

  def _at_least(self, least: float, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      _expect(value >= least, f'{type(self).__name__}.{name}: expected at least {least}, found {value}')

  def _probability(self, *names: str) -> None:
    for name in names:
      value = getattr(self, name)
      _expect(0 <= value <= 1, f'{type(self).__name__}.{name}: expected a number from 0 to 1, found {value}')


# --- The model -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DenseFFConfig(_Checked):
  """Feed-forward block of `d_ff` ReLU units, all of them read for every token."""

  d_ff: int = 2048

  def check(self):
    self._at_least(1, 'd_ff')


@dataclasses.dataclass(frozen=True)
class SparseFFConfig(_Checked):
  """Feed-forward block of which one unit in `block_size` is read for a token (paper, section 3.1).

  Attributes:
    d_ff: units in all; a multiple of `block_size`.
    block_size: units a block, N in the paper; the controller picks one of them.
    rank: inner width of the controller; the paper's 800M model has d_ff / block_size.
    temperature: scale of the Gumbel noise that is added to the controller's log-softmax in training.
    hard_probability: share of the training calls that use the straight-through one-hot choice, not the soft mask.
    multiply_by_controller_output: whether the chosen units are also scaled by the controller's softmax.
  """

  d_ff: int = 2048
  block_size: int = 64
  rank: int = 32
  temperature: float = 0.1
  hard_probability: float = 0.3
  multiply_by_controller_output: bool = False

  def check(self):
    self._at_least(1, 'd_ff', 'block_size', 'rank')
    self._at_least(0, 'temperature')
    self._probability('hard_probability')
    _expect(
      self.d_ff % self.block_size == 0,
      f'SparseFFConfig.d_ff: expected a multiple of block_size ({self.block_size}), found {self.d_ff}',
    )

  @property
  def n_blocks(self) -> int:
    return self.d_ff // self.block_size


@dataclasses.dataclass(frozen=True)
class DenseProjectionConfig(_Checked):
  """Queries, keys, values and the attention's output by four dense matrices (d_model x d_model)."""

  bias: bool = True


@dataclasses.dataclass(frozen=True)
class SparseProjectionConfig(_Checked):
  """Queries, keys and values by one multiplicative dense layer and a small convolution each (paper, section 3.2).

  Attributes:
    n_modules: S in the paper; must divide d_model.
    length_kernel: positions that the convolutions see, the current one included; they look to the left only.
    module_kernel: neighbouring modules that the convolutions of queries and keys see; odd. That of values sees one.
  """

  n_modules: int = 16
  length_kernel: int = 3
  module_kernel: int = 3

  def check(self):
    self._at_least(1, 'n_modules', 'length_kernel', 'module_kernel')
    _expect(
      self.module_kernel % 2 == 1, f'SparseProjectionConfig.module_kernel: expected odd, found {self.module_kernel}'
    )


@dataclasses.dataclass(frozen=True)
class SRUConfig(_Checked):
  """Simple recurrent unit of a small width beside the feed-forward block (paper, section 4.3)."""

  width: int = 32

  def check(self):
    self._at_least(1, 'width')


@dataclasses.dataclass(frozen=True)
class DenseOutputConfig(_Checked):
  """Output layer of one dense matrix (d_model x vocabulary)."""


@dataclasses.dataclass(frozen=True)
class SparseOutputConfig(_Checked):
  """Output layer by a multiplicative dense layer of `n_modules` modules (paper's sparse loss, section 3.3)."""

  n_modules: int = 4

  def check(self):
    self._at_least(1, 'n_modules')


@dataclasses.dataclass(frozen=True)
class BlockConfig(_Checked):
  """What a layer of a stack is made of.

  Attributes:
    d_model: width of the residual streams.
    n_heads: attention heads; must divide d_model.
    projection: dense or sparse queries, keys and values.
    feed_forward: dense or sparse feed-forward block.
    recurrence: the SRU branch beside the feed-forward block, or None.
    dropout: probability that an entry of a branch's output is dropped in training.
  """

  d_model: int = 256
  n_heads: int = 4
  projection: DenseProjectionConfig | SparseProjectionConfig = SparseProjectionConfig()
  feed_forward: DenseFFConfig | SparseFFConfig = SparseFFConfig()
  recurrence: SRUConfig | None = SRUConfig()
  dropout: float = 0.1

  def check(self):
    self._at_least(1, 'd_model', 'n_heads')
    self._probability('dropout')
    _divides('BlockConfig.d_model', self.d_model, 'n_heads', self.n_heads)
    if isinstance(self.projection, SparseProjectionConfig):
      _divides('BlockConfig.d_model', self.d_model, 'SparseProjectionConfig.n_modules', self.projection.n_modules)


def _divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
  _expect(value % divisor == 0, f'{name}: expected a multiple of {divisor_name} ({divisor}), found {value}')


@dataclasses.dataclass(frozen=True)
class TerraformerConfig(_Checked):
  """Terraformer (paper, section 4): an encoder whose output is the prefix of one causal decoder stack.

  Attributes:
    vocab_size: rows of the embedding and columns of the output layer; at least the vocabulary's size.
    max_length: positions that the encoder and the decoder each have.
    n_encoder_layers, n_decoder_layers: layers of the two stacks.
    n_decoder_attentions: attention sub-layers in one decoder layer.
    keep_activations: whether training stores what the backward pass needs instead of recomputing it from the output of
      each reversible stack; the function is the same, the memory grows with depth.
    encoder, decoder: what a layer of either stack is made of; of one d_model.
    output: dense or sparse output layer.
  """

  vocab_size: int = 8192
  max_length: int = 1024
  n_encoder_layers: int = 2
  n_decoder_layers: int = 2
  n_decoder_attentions: int = 2
  keep_activations: bool = False
  encoder: BlockConfig = BlockConfig()
  decoder: BlockConfig = BlockConfig()
  output: DenseOutputConfig | SparseOutputConfig = SparseOutputConfig()

  def check(self):
    self._at_least(2, 'vocab_size')
    self._at_least(1, 'max_length', 'n_encoder_layers', 'n_decoder_layers', 'n_decoder_attentions')
    _expect(
      self.encoder.d_model == self.decoder.d_model,
      f'TerraformerConfig.decoder: expected the d_model of the encoder ({self.encoder.d_model}), '
      f'found {self.decoder.d_model}',
    )
    if isinstance(self.output, SparseOutputConfig):
      _divides('TerraformerConfig.vocab_size', self.vocab_size, 'SparseOutputConfig.n_modules', self.output.n_modules)

  @property
  def d_model(self) -> int:
    return self.encoder.d_model


# --- The data --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(_Checked):
  """A sentencepiece vocabulary, read from a file or trained on the task's own text.

  Attributes:
    path: a sentencepiece model to use; empty trains one while the task is prepared.
    size: ids in all, the sentinels included, of a vocabulary that is trained.
    sentinels: ids kept at the end of the vocabulary for span corruption, counted downwards from the last one.
  """

  path: str = ''
  size: int = 8192
  sentinels: int = 100

  def check(self):
    self._at_least(0, 'sentinels')
    _expect(
      self.size >= 300 + self.sentinels,
      f'VocabularyConfig.size: expected at least {300 + self.sentinels} (sentinels included), found {self.size}',
    )


@dataclasses.dataclass(frozen=True)
class LocalFilesConfig(_Checked):
  """A user's own files: `.txt` (language modelling) or `.jsonl` (one object a line, with named fields).

  Attributes:
    train, validation, test: paths or glob patterns of each split, all of one kind. Where `validation` or `test` is
      empty, a twentieth of the training examples, chosen by a hash of their text, takes its place.
    inputs_field: the source's field in `.jsonl`; empty makes a language-modelling task of `targets_field`.
    targets_field: the target's field in `.jsonl`.
  """

  train: tuple[str, ...] = ()
  validation: tuple[str, ...] = ()
  test: tuple[str, ...] = ()
  inputs_field: str = 'inputs'
  targets_field: str = 'targets'


@dataclasses.dataclass(frozen=True)
class DataConfig(_Checked):
  """A task and where its prepared form lies.

  Attributes:
    task: name of a registered seqio task or mixture; `docstring_summarization`, `docstring_text` and `local_files`
      are this library's.
    directory: the prepared shards are in `directory/task`.
    inputs_length, targets_length: tokens that a training example is cut and padded to, end-of-sequence included.
    vocabulary: the tokens.
    local_files: where the task `local_files` reads.
    max_examples: training examples that are kept at most, taken evenly over the corpus; 0 keeps all.
  """

  task: str = 'docstring_summarization'
  directory: str = 'prepared'
  inputs_length: int = 128
  targets_length: int = 32
  vocabulary: VocabularyConfig = VocabularyConfig()
  local_files: LocalFilesConfig = LocalFilesConfig()
  max_examples: int = 0

  def check(self):
    self._at_least(2, 'inputs_length', 'targets_length')
    self._at_least(0, 'max_examples')
    _expect(bool(self.task), 'DataConfig.task: expected the name of a task, found an empty string')
    _expect(bool(self.directory), 'DataConfig.directory: expected a folder, found an empty string')


# --- The run ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RsqrtScheduleConfig(_Checked):
  """Linear warm-up to `peak`, then decay by the inverse square root of the step (the paper's schedule)."""

  peak: float = 1e-2
  warmup_steps: int = 10_000

  def check(self):
    self._at_least(0, 'peak')
    self._at_least(1, 'warmup_steps')


@dataclasses.dataclass(frozen=True)
class CosineScheduleConfig(_Checked):
  """Linear warm-up to `peak`, then a half cosine down to `floor` at step `decay_steps`."""

  peak: float = 1e-3
  warmup_steps: int = 100
  decay_steps: int = 1000
  floor: float = 0.0

  def check(self):
    self._at_least(0, 'peak', 'floor')
    self._at_least(1, 'warmup_steps')
    _expect(
      self.decay_steps > self.warmup_steps,
      f'CosineScheduleConfig.decay_steps: expected more than warmup_steps ({self.warmup_steps}), '
      f'found {self.decay_steps}',
    )


ScheduleConfig = RsqrtScheduleConfig | CosineScheduleConfig


@dataclasses.dataclass(frozen=True)
class AdafactorConfig(_Checked):
  """Adafactor with the paper's settings: no momentum, factored, steps scaled by the parameter's size."""

  schedule: RsqrtScheduleConfig | CosineScheduleConfig = RsqrtScheduleConfig()
  decay: float = 0.8
  clip: float = 1.0
  epsilon: float = 1e-16
  weight_decay: float = 1e-5

  def check(self):
    self._probability('decay')
    self._at_least(0, 'clip', 'epsilon', 'weight_decay')


@dataclasses.dataclass(frozen=True)
class AdamWConfig(_Checked):
  """AdamW with gradients clipped to a global norm; biases and normalisation are not decayed."""

  schedule: RsqrtScheduleConfig | CosineScheduleConfig = CosineScheduleConfig()
  beta1: float = 0.9
  beta2: float = 0.98
  clip: float = 1.0
  weight_decay: float = 0.01

  def check(self):
    self._probability('beta1', 'beta2')
    self._at_least(0, 'clip', 'weight_decay')


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Checked):
  """A training run.

  Attributes:
    steps: optimiser steps in all.
    batch_size: examples a step, over all devices.
    seed: of parameters, noise and the order of examples.
    optimizer: Adafactor or AdamW.
    log_every, eval_every, sample_every, checkpoint_every: steps between two of each; 0 turns evaluation or samples off.
    eval_batches: batches of the validation split that an evaluation reads at most.
    keep_checkpoints: newest checkpoints that are kept.
  """

  steps: int = 1000
  batch_size: int = 32
  seed: int = 0
  optimizer: AdafactorConfig | AdamWConfig = AdafactorConfig()
  log_every: int = 10
  eval_every: int = 200
  eval_batches: int = 8
  sample_every: int = 500
  checkpoint_every: int = 200
  keep_checkpoints: int = 3

  def check(self):
    self._at_least(1, 'steps', 'batch_size', 'log_every', 'eval_batches', 'checkpoint_every', 'keep_checkpoints')
    self._at_least(0, 'eval_every', 'sample_every', 'seed')


@dataclasses.dataclass(frozen=True)
class RunConfig(_Checked):
  """Everything that a run is: the model, its data and its training."""

  model: TerraformerConfig = TerraformerConfig()
  data: DataConfig = DataConfig()
  train: TrainConfig = TrainConfig()

  def check(self):
    longest = max(self.data.inputs_length, self.data.targets_length)
    _expect(
      self.model.max_length >= longest,
      f'TerraformerConfig.max_length: expected at least the longest example ({longest}), found {self.model.max_length}',
    )


@dataclasses.dataclass(frozen=True)
class DecodeConfig(_Checked):
  """How text is generated.

  Attributes:
    max_tokens: tokens that are generated at most.
    temperature: of the softmax that tokens are drawn from; 0 takes the likeliest.
    seed: of the draws.
  """

  max_tokens: int = 64
  temperature: float = 0.0
  seed: int = 0

  def check(self):
    self._at_least(0, 'max_tokens', 'temperature', 'seed')


# --- JSON ------------------------------------------------------------------------------------------------------------

_KINDS = {kind.__name__: kind for kind in _Checked.__subclasses__()}


def to_dict(config: _Checked) -> dict[str, Any]:
  """The config as plain JSON values; `kind` names each dataclass."""

  def encode(value):
    if isinstance(value, _Checked):
      return to_dict(value)
    return list(value) if isinstance(value, tuple) else value

  return {'kind': type(config).__name__} | {f.name: encode(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(values: dict[str, Any]) -> Any:
  """The config that `to_dict` wrote.

  Raises:
    UserError: if a kind or a field is not known, or a value is not valid.
  """
  fields = dict(values)
  kind = _KINDS.get(fields.pop('kind', None))
  _expect(kind is not None, f'config: expected a kind of this version, found {values.get("kind")!r}')
  known = {f.name for f in dataclasses.fields(kind)}
  for name in fields:
    _expect(name in known, f'{kind.__name__}: expected fields {sorted(known)}, found {name!r}')
  return kind(**{name: from_dict(v) if isinstance(v, dict) else v for name, v in fields.items()})


def differences(stored: _Checked, given: _Checked, prefix: str = '') -> list[str]:
  """One `path: stored -> given` for every field in which two configs of one kind differ."""
  found = []
  for field in dataclasses.fields(stored):
    path, old, new = f'{prefix}{field.name}', getattr(stored, field.name), getattr(given, field.name)
    if isinstance(old, _Checked) and type(old) is type(new):
      found += differences(old, new, f'{path}.')
    elif old != new:
      found.append(f'{path}: {old!r} -> {new!r}')
  return found
