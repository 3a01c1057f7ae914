"""Texts of 200 tokens by the library and by XLA, for every model of the examples that the library has all kernels of.

A controller's two best units may be so close that sums in another order choose the other one, after which the logits
have nothing in common. So the library chooses by itself first, and then computes the step with XLA's choices.

B batch, M blocks, N units per block, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import AxialPositionsConfig, LSHAttentionConfig
from terraformer.decode.native.engine import NativeEngine, embed
from terraformer.decode.prompts import Prompts
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.xla import decoding_form
from terraformer.layers.sparse_ff import SparseFF
from terraformer.models.make import layerwise
from terraformer.models.parameters import merge_module, split_module
from terraformer.native.library import why_missing
from tests.decode.native.test_model import WITH_KERNELS
from tests.models.examples import CONFIGS, model

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f'no native library: {why_missing()}')

NAMES = [*WITH_KERNELS, 'lsh hashed', 'lsh_language hashed']
INPUTS = np.array([[5, 6, 7, 8, 9, 10, 1, 0, 0], [7, 8, 1, 0, 0, 0, 0, 0, 0]], np.int32)
N_STEPS = 200
# Of the largest logit's magnitude, or of a controller's largest output.
TOLERANCE = 1e-5


def config_of(name):
  """The example, with enough positions for 200 tokens. A hashed one has two factors, and buckets that overflow."""
  config = CONFIGS[name.removesuffix(' hashed')]
  if name.endswith(' hashed'):
    attention = LSHAttentionConfig(chunk_length=2, full_below=0, window=5)
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.blocks['decoder'], attention=attention))
  axial = isinstance(config.positions, AxialPositionsConfig)
  positions = dataclasses.replace(config.positions, shape=(16, 16)) if axial else config.positions
  return dataclasses.replace(config, max_length=224, positions=positions)


def step_with_choices(monkeypatch):
  """XLA's step, which also returns the logits_BxMxN and the selected units_BxM of each controller, in their order."""
  choices, choose = [], SparseFF.choose

  def choose_and_tell(layer, x_BxD):
    units_BxM, gain_BxM = choose(layer, x_BxD)
    choices.append((layer.logits(x_BxD), units_BxM.astype(jnp.int32)))
    return units_BxM, gain_BxM

  monkeypatch.setattr(SparseFF, 'choose', choose_and_tell)

  @jax.jit
  def step(model, token_B, state):
    choices.clear()
    logits_BxV, state = model.step(token_B, state)
    return logits_BxV, state, tuple(choices)

  return step


class Library:
  """A text's state in the library, whose calls take and return units."""

  def __init__(self, config, params, prompts):
    engine = NativeEngine(config, jax.tree.map(np.asarray, params))
    state = engine.prefill(prompts, N_STEPS, 'float32')
    self._model = next(one for one, *_ in engine._opened.values() if one.number == state.number)
    self.own_step = jax.jit(engine.forward), engine.arguments, state
    names = ('pages', 'state', 'tables', 'memory')
    self._memory = {name: np.array(getattr(state, name)) for name in names}
    self._lengths, self._memory_lengths = np.array(state.length_B), np.array(state.memory_length_B)

  def run(self, x_BxD, n_outputs, units, given=None):
    """The logits BxV after a token; only a call with given units moves on to the next position."""
    memory = self._memory if given is not None else {name: array.copy() for name, array in self._memory.items()}
    logits_BxV, optional = np.zeros((len(x_BxD), n_outputs), np.float32), {}
    if given is not None:
      optional['given_units'] = given
    self._model.run(
      len(x_BxD),
      input=np.ascontiguousarray(x_BxD),
      output=logits_BxV,
      lengths=self._lengths,
      memory_lengths=self._memory_lengths,
      units=units,
      **memory,
      **optional,
    )
    self._lengths = self._lengths + (given is not None)
    return logits_BxV


def flat(units):
  """Units of all controllers, [controller][text, block]."""
  return np.concatenate([np.zeros(0, np.int32), *(np.ravel(units_BxM) for units_BxM in units)]).astype(np.int32)


def by_controller(units, choices):
  """The inverse of `flat`."""
  sizes = np.cumsum([units_BxM.size for _, units_BxM in choices])[:-1]
  parts = np.split(units, sizes) if choices else []
  return [part.reshape(np.shape(units_BxM)) for part, (_, units_BxM) in zip(parts, choices, strict=True)]


def ties(choices, own):
  """Fails where the library chose a unit that is not as good as XLA's; returns the texts of which a choice differs."""
  differ_B = np.zeros(len(INPUTS), bool)
  for (logits_BxMxN, units_BxM), own_BxM in zip(choices, own, strict=True):
    logits_BxMxN, units_BxM = np.asarray(logits_BxMxN), np.asarray(units_BxM)
    score_BxM, own_score_BxM = (
      np.take_along_axis(logits_BxMxN, each[..., None], -1)[..., 0] for each in (units_BxM, own_BxM)
    )
    # After another choice, the later controllers of a text read something else.
    gap_B = (score_BxM - own_score_BxM).max(1)[~differ_B]
    assert (gap_B <= TOLERANCE * np.abs(logits_BxMxN).max()).all()
    differ_B |= (units_BxM != own_BxM).any(1)
  return differ_B


@pytest.mark.parametrize('name', NAMES)
def test_logits_are_those_of_xla_where_both_choose_the_same_units(name, monkeypatch):
  config = decoding_form(config_of(name), 0, 16)
  params = split_module(layerwise(model(config_of(name))))[1]
  trained = merge_module(split_module(abstract_layerwise(config))[0], params)
  n_texts = len(INPUTS)
  prompts = Prompts(False, INPUTS, (INPUTS != 0).sum(1), np.zeros(n_texts, np.int32), [], [], [N_STEPS] * n_texts)
  library, state = Library(config, params, prompts), trained.prefill(INPUTS, N_STEPS)
  own_step, arguments, own_state = library.own_step
  step, enter, token_B = step_with_choices(monkeypatch), jax.jit(embed), jnp.zeros(n_texts, jnp.int32)
  grid = 2**-15 if config.residual.fixed_point else 0  # where a sum may be rounded to the next step
  same_B, own_token_B = np.ones(n_texts, bool), token_B
  for _ in range(N_STEPS):
    x_BxD = np.asarray(enter(trained, token_B, state.position_B))
    expected_BxV, state, choices = step(trained, token_B, state)
    units = flat(units_BxM for _, units_BxM in choices)
    own = np.zeros_like(units)
    library.run(x_BxD, config.vocab_size, own)
    differ_B = ties(choices, by_controller(own, choices))
    found_BxV = library.run(x_BxD, config.vocab_size, own, given=units)
    np.testing.assert_array_equal(own, units)
    expected_BxV = np.asarray(expected_BxV)
    largest = np.abs(expected_BxV).max()
    np.testing.assert_allclose(found_BxV, expected_BxV, rtol=0, atol=TOLERANCE * largest + grid)
    # The engine's own text is the same, up to a choice that is a tie.
    own_BxV, own_state = own_step(arguments, own_token_B, own_state)
    two_BxV = np.sort(expected_BxV)[:, -2:]
    same_B &= ~differ_B & (two_BxV[:, 1] - two_BxV[:, 0] > 2 * (TOLERANCE * largest + grid))
    token_B, own_token_B = expected_BxV.argmax(1).astype(np.int32), np.asarray(own_BxV).argmax(1).astype(np.int32)
    np.testing.assert_array_equal(own_token_B[same_B], token_B[same_B])
  assert same_B.any() or grid  # on a grid, some two logits are soon a tie
