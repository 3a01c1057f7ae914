"""Whatever number a field of a config is given, the config is refused in a sentence or what follows is sound."""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer import config as config_lib
from terraformer.config import (
  AdafactorConfig,
  AdamWConfig,
  BlockConfig,
  CosineScheduleConfig,
  DataConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  InitFromConfig,
  LanguageModelConfig,
  LongAdditionConfig,
  RsqrtScheduleConfig,
  RunConfig,
  SpanCorruptionConfig,
  UserError,
  from_dict,
  to_dict,
)
from terraformer.config.base import Checked, Family
from terraformer.data.source import make_source
from terraformer.layers.parameter import Facts
from terraformer.models.make import abstract_model
from terraformer.training.optimizer import make_optimizer, make_schedule

WHOLE = [0, -1, *(2**power - less for power in (20, 22, 24, 30, 31, 32, 63) for less in (0, 1)), 10**30, 16**5000]
WHOLE += [-(2**31), -(2**63), -(10**30)]
REAL = [1.797e308, 5e-324, 2.2e-308, 3.4e38, 1e-38, 1e-45, 0.99999999, math.nan, math.inf, -math.inf]
KINDS = [kind for name in config_lib.__all__ if dataclasses.is_dataclass(kind := getattr(config_lib, name))]
KINDS = [kind for kind in KINDS if Family not in kind.__bases__]  # what several kinds have in common
REQUIRED = {InitFromConfig: {'workdir': 'run'}}


def numbers_of(annotation):
  """What a field of this type is tried with; empty where it takes no numbers."""
  options = {annotation, *typing.get_args(annotation)}
  values = [*(WHOLE if options & {int, float} else ()), *(REAL if options & {int, float} else ())]
  if typing.get_origin(annotation) is tuple:
    return [row for value in values for row in ((value,), (value, value), (1, value), (value, 1))]
  return values


FIELDS = [
  (kind, name)
  for kind in KINDS
  for name, annotation in typing.get_type_hints(kind).items()
  if name in {field.name for field in dataclasses.fields(kind)} and numbers_of(annotation)
]


def accepted(kind, name):
  """The configs that are made of the numbers; of the others it is seen to that they are refused in a sentence."""
  for value in numbers_of(typing.get_type_hints(kind)[name]):
    try:
      yield kind(**REQUIRED.get(kind, {}), **{name: value})
    except UserError as error:
      said = str(error)
      assert 'expected' in said and 'found' in said and len(said) < 400 and '\n' not in said


each_field = pytest.mark.parametrize(('kind', 'name'), FIELDS, ids=lambda value: getattr(value, '__name__', value))


@each_field
def test_a_number_is_refused_in_a_sentence_or_kept(kind, name):
  for config in accepted(kind, name):
    assert from_dict(to_dict(config)) == config  # not of nan, which is not itself
    value = getattr(config, name)
    if float in (annotation := typing.get_type_hints(kind)[name], *typing.get_args(annotation)):
      assert isinstance(value, float)
    else:
      assert all(-(2**63) <= number < 2**63 for number in (value if isinstance(value, tuple) else (value,)))


# --- What follows ----------------------------------------------------------------------------------------------------


def models_of(part):
  """The smallest models of which a config is a part."""
  if isinstance(part, config_lib.ModelConfig):
    return [part]
  block = BlockConfig(16, 2, DenseProjectionConfig(share_qk=True), DenseFFConfig(32), None)
  if isinstance(part, BlockConfig):
    block = part
    return [LanguageModelConfig(64, 32, output=DenseOutputConfig(), decoder=block)]
  for owner in (block, LanguageModelConfig(64, 32, output=DenseOutputConfig(), decoder=block)):
    for name, annotation in typing.get_type_hints(type(owner)).items():
      kinds = tuple(kind for kind in typing.get_args(annotation) or (annotation,) if isinstance(kind, type))
      if isinstance(part, kinds):
        changed = dataclasses.replace(owner, **{name: part})
        return models_of(changed) if isinstance(changed, BlockConfig) else [changed]
  raise AssertionError(f'{type(part).__name__} is no part of a block or a model')


MODEL_PARTS = {f'terraformer.config.{name}' for name in ('attention', 'layers', 'model', 'positions')}


@pytest.mark.parametrize(
  ('kind', 'name'), [field for field in FIELDS if field[0].__module__ in MODEL_PARTS],
  ids=lambda value: getattr(value, '__name__', value),
)  # fmt: skip
def test_a_model_of_such_numbers_has_shapes(kind, name):
  configs = list(accepted(kind, name))
  by_size = sorted(configs, key=lambda config: str(getattr(config, name)).zfill(30))
  for part in {id(config): config for config in (*by_size[:1], *by_size[-1:])}.values():
    try:
      models = models_of(part)
    except UserError:
      continue
    for config in models:
      shapes(config)


def shapes(config):
  """Traces a training pass; nothing is computed."""
  model = abstract_model(config)
  inputs = 0 if isinstance(config, LanguageModelConfig) else min(4, config.max_length)
  tokens = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (inputs, min(4, config.max_length))]
  key = jax.eval_shape(lambda: jax.random.key(0))
  logits = jax.eval_shape(lambda model, key, *tokens: model(*tokens, key=key), model, key, *tokens)
  assert logits.shape[-1] == config.vocab_size


@pytest.mark.parametrize(
  ('kind', 'name'),
  [field for field in FIELDS if field[0] in (CosineScheduleConfig, RsqrtScheduleConfig)],
  ids=lambda value: getattr(value, '__name__', value),
)
def test_a_schedule_of_such_numbers_is_finite(kind, name):
  for config in accepted(kind, name):
    rates = np.array([make_schedule(config)(jnp.int32(step)) for step in (0, 1, 1000, 2**31 - 2)])
    assert np.isfinite(rates).all() and (rates >= 0).all()


@pytest.mark.parametrize(
  ('kind', 'name'),
  [field for field in FIELDS if field[0] in (AdafactorConfig, AdamWConfig)],
  ids=lambda value: getattr(value, '__name__', value),
)
def test_an_optimizer_of_such_numbers_moves_without_nan(kind, name):
  parameters = {'stack': {'kernel': jnp.ones((2, 4, 3))}}
  gradients = jax.tree.map(lambda x: 0.1 * x, parameters)
  for config in accepted(kind, name):
    optimizer = make_optimizer(config, {'stack.kernel': Facts((None,) * 3)})
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(updates)), getattr(config, name)


@pytest.mark.parametrize('length', WHOLE, ids=range(len(WHOLE)))
@pytest.mark.parametrize(('density', 'span'), [(0.15, 3.0), (0.99999999, 3e38), (1 - 2**-53, 1.0), (2e-38, 1.0)])
def test_spans_of_any_lengths_are_measured_at_once(length, density, span):
  objective = SpanCorruptionConfig(density, span)
  try:
    window = DataConfig(inputs_length=length, targets_length=2**31 - 1, objective=objective).window_length
  except UserError:
    return
  assert objective.lengths(window)[0] <= length < objective.lengths(window + 1)[0]


@pytest.mark.parametrize(
  'objective', [SpanCorruptionConfig(), SpanCorruptionConfig(0.5, 1.0), SpanCorruptionConfig(0.9)]
)
def test_the_window_is_the_longest_that_fits(objective):
  for inputs_length in range(3, 60):
    longest = max(n for n in range(2, 640) if n == 2 or objective.lengths(n)[0] <= inputs_length)
    assert objective.window_length(inputs_length, 0) == longest


def test_numbers_of_more_digits_than_python_reads_are_added():
  digits = LongAdditionConfig(train_digits=(5000, 5000), test_digits=(1, 1))
  made = make_source(digits).example('train', 0)
  one, other = made['inputs'].split('+')
  assert len(one) == len(other) == 5000
  carry, total = 0, []
  for a, b in zip(reversed(one), reversed(other), strict=True):
    carry, digit = divmod(int(a) + int(b) + carry, 10)
    total.append(str(digit))
  assert made['targets'] == (str(carry) if carry else '') + ''.join(reversed(total))


def test_numbers_are_written_from_their_least_significant_digit_on():
  made, reversed_ = (
    make_source(LongAdditionConfig((1, 9), (1, 9), least_first=one)).example('train', 3) for one in (False, True)
  )
  assert reversed_ == {
    'inputs': '+'.join(number[::-1] for number in made['inputs'].split('+')),
    'targets': made['targets'][::-1],
  }


def test_a_batch_of_more_places_than_32_bits_is_refused():
  with pytest.raises(UserError, match=r'TrainConfig\.batch_size: expected a batch of at most 2147483647 tokens'):
    RunConfig(train=config_lib.TrainConfig(batch_size=2**31 - 1))


def test_a_whole_number_in_the_place_of_another_is_one():
  made = config_lib.SparseFFConfig(hard_probability=1)
  assert type(made.hard_probability) is float and made == config_lib.SparseFFConfig(hard_probability=1.0)


def test_a_field_of_both_kinds_keeps_a_whole_number():
  @dataclasses.dataclass(frozen=True)
  class Both(Checked):
    number: int | float = 0

  assert type(Both(3).number) is int
