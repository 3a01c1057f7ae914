"""What a compiled step must not do, found in programs short enough to read."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from terraformer import config as c
from terraformer.layers.parameter import Facts
from terraformer.pod.checks import float32_activations, whole_gathers
from terraformer.pod.hlo import Program

PROGRAM = """
%body (state: (f32[6,8,4])) -> (f32[6,8,4]) {
  %state = (f32[6,8,4]) parameter(0)
  %layer = f32[8,4]{1,0} all-gather(%state), dimensions={0}
  %hidden = HIDDEN fusion(%layer), kind=kLoop, calls=%fused
  ROOT %next = (f32[6,8,4]) tuple(%state)
}

ENTRY %main (x: f32[6,8,4]) -> f32[6,8,4] {
  %x = f32[6,8,4]{2,1,0} parameter(0)
  %table = GATHERED all-gather(%x), dimensions={0}
  ROOT %loop = (f32[6,8,4]) while(%x), condition=%condition, body=%body
}
"""
RUN = c.RunConfig(
  c.LanguageModelConfig(vocab_size=64, max_length=64, n_layers=6),
  c.DataConfig(inputs_length=8, targets_length=4),
  c.TrainConfig(batch_size=4),
)
FACTS = {
  'decoder.blocks.w': Facts(('layers', None, None), stack='decoder', loop='blocks'),
  'embedding.table_VxD': Facts(('vocab', 'embed')),
}
D_FF = RUN.model.decoder.feed_forward.d_ff


@pytest.fixture(scope='module')
def state():
  mesh = jax.make_mesh((1,), ('fsdp',), axis_types=(AxisType.Auto,))
  place = lambda *shape: jax.ShapeDtypeStruct(  # noqa: E731
    shape, jnp.float32, sharding=NamedSharding(mesh, P('fsdp', *[None] * (len(shape) - 1)))
  )
  return {'params': {'decoder': {'blocks': {'w': place(6, 8, 4)}}, 'embedding': {'table_VxD': place(64, 16)}}}


def program(gathered='f32[64,16]{1,0}', hidden='f32[8,4]{1,0}'):
  return Program(PROGRAM.replace('GATHERED', gathered).replace('HIDDEN', hidden))


def test_a_stack_that_is_gathered_outside_the_loop_is_found(state):
  # On one device nothing is divided, and so nothing gathered: as if it were on two.
  divided = jax.tree.map(lambda x: _Divided(x.shape), state)
  assert whole_gathers(program('bf16[6,8,4]{2,1,0}'), divided, FACTS) == ['bf16[6,8,4]{2,1,0}']
  assert whole_gathers(program(), divided, FACTS) == []  # the embedding is no stack


class _Divided:
  """An array that is divided between two devices."""

  def __init__(self, shape):
    self.shape, self.sharding = shape, self
    self.is_fully_replicated = False


@pytest.mark.parametrize(
  ('hidden', 'found'),
  [
    (f'f32[4,8,{D_FF}]', [f'f32[4, 8, {D_FF}]']),
    (f'bf16[4,8,{D_FF}]', []),
    (f'f32[4,4,{D_FF}]', []),  # in two parts of the length
    ('f32[4,12,8,8]', ['f32[4, 12, 8, 8]']),  # logits of both, the vocabulary in modules
    (f'(f32[4,4,{D_FF}], f32[4,8,64])', ['f32[4, 8, 64]']),
  ],
)
def test_wide_activations_in_float32_are_found(state, hidden, found):
  run = (
    RUN if 'f32[4,4' not in hidden else dataclasses.replace(RUN, data=c.DataConfig(inputs_length=8, targets_length=6))
  )
  assert float32_activations(program(hidden=hidden), run, state, 1, 1) == found
