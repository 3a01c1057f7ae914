"""The native step beside the XLA step, token by token, for every model that the library has all kernels of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from terraformer.decode.native import attention, feed_forward
from terraformer.decode.native import model as describing
from terraformer.decode.native.description import NoKernelError, Types
from terraformer.decode.native.engine import NativeEngine
from terraformer.decode.native.model import describe
from terraformer.decode.prompts import Prompts
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.xla import decoding_form
from terraformer.layers.dense import Dense
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.models.make import layerwise as by_layer
from terraformer.models.parameters import merge_module, split_module
from terraformer.native.library import why_missing
from tests.models.examples import CONFIGS, model

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f'no native library: {why_missing()}')

WITH_KERNELS = [
  'sparse',
  'dense',
  'dense_encoder',
  'cross',
  'plain_cross',
  'language',
  'plain_language',
  'lsh',
  'lsh_language',
]
INPUTS = np.array([[5, 6, 7, 8, 9, 10, 1, 0, 0], [7, 8, 1, 0, 0, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0, 0, 0, 0]], np.int32)
N_STEPS = 6
# Of the largest logit's magnitude. The widths are tiny, so that what 8 bits round away does not average out.
TOLERANCES = {'bfloat16': 0.02, 'int8': 0.1}


@functools.cache
def layerwise(name, longest=16):
  """The decoding form's config, the model with arrays of JAX, and with those of NumPy."""
  trained = model(CONFIGS[name])
  config = decoding_form(CONFIGS[name], 0, longest)
  structure, params = split_module(abstract_layerwise(config))[0], split_module(by_layer(trained))[1]
  return config, merge_module(structure, params), merge_module(structure, jax.tree.map(np.asarray, params))


def prompts_of(inputs_BxS):
  n_texts = len(inputs_BxS)
  return Prompts(False, inputs_BxS, (inputs_BxS != 0).sum(1), np.zeros(n_texts, np.int32), [], [], [N_STEPS] * n_texts)


def both(name, kind):
  """Logits of the library and of XLA at each token, BxV."""
  config, trained, arrays = layerwise(name)
  inputs_BxS = INPUTS if config.room_behind(9) >= N_STEPS else INPUTS[:, : config.max_length - N_STEPS]
  engine = NativeEngine(config, split_module(arrays)[1], dtype=kind)
  state = trained.prefill(inputs_BxS, N_STEPS)
  own = engine.prefill(prompts_of(inputs_BxS), N_STEPS, kind)
  step, xla_step = jax.jit(engine.forward, donate_argnums=2), jax.jit(type(trained).step)
  token_B = jnp.zeros(3, jnp.int32)
  for _ in range(N_STEPS):
    expected_BxV, state = xla_step(trained, token_B, state)
    found_BxV, own = step(engine.arguments, token_B, own)
    yield np.asarray(found_BxV), np.asarray(expected_BxV)
    token_B = expected_BxV.argmax(1).astype(jnp.int32)


@pytest.mark.parametrize('kind', ['float32', 'bfloat16', 'int8'])
def test_a_text_does_not_depend_on_the_texts_beside_it(kind):
  config, trained, arrays = layerwise('sparse')
  engine = NativeEngine(config, split_module(arrays)[1], dtype=kind)
  step, logits = jax.jit(engine.forward, donate_argnums=2), []
  for texts in (slice(0, 3), slice(0, 1), slice(1, 3)):
    own = engine.prefill(prompts_of(INPUTS[texts]), N_STEPS, kind)
    for token in range(2, 2 + N_STEPS):
      found_BxV, own = step(engine.arguments, jnp.full(len(INPUTS[texts]), token), own)
    logits.append(np.asarray(found_BxV))
  # What XLA has read of the prompt differs in the last bits from batch to batch.
  np.testing.assert_allclose(logits[0], np.concatenate(logits[1:]), rtol=0, atol=1e-3 * np.abs(logits[0]).max())


@pytest.mark.parametrize('name', WITH_KERNELS)
def test_logits_are_those_of_the_xla_step(name):
  grid = 2**-15 if CONFIGS[name].residual.fixed_point else 0  # where a sum may be rounded to the next step
  for found_BxV, expected_BxV in both(name, 'float32'):
    np.testing.assert_allclose(found_BxV, expected_BxV, rtol=0, atol=1e-5 * np.abs(expected_BxV).max() + grid)


@pytest.mark.parametrize('kind', TOLERANCES)
@pytest.mark.parametrize('name', ['sparse', 'dense', 'plain_cross', 'language'])
def test_fewer_bits_change_the_logits_of_most_texts_little(name, kind):
  for found_BxV, expected_BxV in both(name, kind):
    error_B = np.abs(found_BxV - expected_BxV).max(1) / np.abs(expected_BxV).max()
    assert np.median(error_B) <= TOLERANCES[kind]  # in one, a controller may pick another unit of nearly equal score


@pytest.mark.parametrize('name', ['plain', 'forgetful'])
def test_what_has_no_kernel_is_named(name):
  missing = describe(layerwise(name)[2], Types()).missing
  assert set(missing) & {'SwitchFF', 'ModularProjection'}
  with pytest.raises(NoKernelError, match=missing[0]):
    NativeEngine(decoding_form(CONFIGS[name], 0, 16), split_module(layerwise(name)[2])[1])


KERNELS = [attention.attend, attention.project, feed_forward.feed_forward, describing.output]


@pytest.mark.parametrize('name', ['sparse', 'dense', 'cross', 'language', 'lsh'])
def test_a_subclass_of_what_has_a_kernel_has_none(name):
  """It may compute something else, so the kernel of its base would decode wrong texts."""
  _, _, arrays = layerwise(name)
  kinds = {kind for kernel in KERNELS for kind in kernel.registered} | {LayerNorm, RMSNorm, type(arrays)}
  in_step = [layer for path, layer in nnx.iter_modules(arrays) if not (path and str(path[0]).startswith('encoder'))]
  found = [(layer, type(layer)) for layer in in_step if type(layer) in kinds]
  found = [(layer, kind) for layer, kind in found if kind is not Dense or layer is arrays.output]
  assert {kind for _, kind in found} > {type(arrays)}
  for layer, kind in found:
    layer.__class__ = type(f'My{kind.__name__}', (kind,), {})
    try:
      assert describe(arrays, Types()).missing == [f'My{kind.__name__}']
    finally:
      layer.__class__ = kind
