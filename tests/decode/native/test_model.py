"""The native step beside the XLA step, token by token, for every model that the library has all kernels of."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.decode.bundle import abstract_unrolled
from terraformer.decode.native.description import NoKernelError, Types
from terraformer.decode.native.model import describe
from terraformer.decode.native.state import grown, native_state
from terraformer.decode.step import decoding_form
from terraformer.models.make import unroll
from terraformer.models.parameters import merge, split
from terraformer.native.library import STEP, library, why_missing
from terraformer.native.plan import Model
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
def unrolled(name, longest=16):
  """The decoding form's config, the model with arrays of JAX, and with those of NumPy."""
  trained = model(CONFIGS[name])
  config = decoding_form(CONFIGS[name], longest)
  structure, params = split(abstract_unrolled(config))[0], split(unroll(trained))[1]
  return config, merge(structure, params), merge(structure, jax.tree.map(np.asarray, params))


def step_of(trained, native, vocab_size):
  """(state, token_B) -> (logits, state) by the library."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, token_B):
    positions = trained.positions if hasattr(trained, 'positions') else trained.decoder_positions
    x_BxD = trained.decoder.residual.round(positions.step(trained.embedding(token_B), state.position_B))
    results = [
      (len(token_B), vocab_size, jnp.float32),
      (*state.pages.shape, jnp.uint8),
      (*state.state.shape, jnp.float32),
    ]
    call = jax.ffi.ffi_call(
      STEP, [jax.ShapeDtypeStruct(shape, dtype) for *shape, dtype in results], input_output_aliases={3: 1, 4: 2}
    )
    arguments = state.length_B, state.pages, state.state, state.memory_length_B, state.memory
    logits_BxV, pages, kept = call(jnp.int32(native.number), x_BxD, *arguments)
    advanced = {'length_B': state.length_B + 1, 'position_B': state.position_B + 1}
    return logits_BxV, dataclasses.replace(state, pages=pages, state=kept, **advanced)

  return step


def both(name, kind):
  """Logits of the library and of XLA at each token, BxV."""
  library()
  config, trained, arrays = unrolled(name)
  inputs_BxS = INPUTS if config.room_behind(9) >= N_STEPS else INPUTS[:, : config.max_length - N_STEPS]
  description = describe(arrays, Types(kind, kind))
  native = Model(description.plan, [tensor.make() for tensor in description.plan.tensors.values()])
  state = trained.prefill(inputs_BxS, N_STEPS)
  own = native_state(description, state.layers, state.filled.prompt_B, state.position_B)
  own = jax.tree.map(jnp.copy, grown(own, 1))
  step, xla_step = step_of(trained, native, config.vocab_size), jax.jit(type(trained).step)
  token_B = jnp.zeros(3, jnp.int32)
  for _ in range(N_STEPS):
    expected_BxV, state = xla_step(trained, token_B, state)
    found_BxV, own = step(own, token_B)
    yield np.asarray(found_BxV), np.asarray(expected_BxV)
    token_B = expected_BxV.argmax(1).astype(jnp.int32)


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


@pytest.mark.parametrize('name', ['plain', 'forgetful', 'lsh', 'lsh_language'])
def test_what_has_no_kernel_is_named(name):
  with pytest.raises(NoKernelError, match=r'SwitchFF|ModularProjection|LSHAttention where it hashes'):
    describe(unrolled(name, longest=18)[2], Types())
