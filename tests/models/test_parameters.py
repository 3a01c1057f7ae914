import jax
import numpy as np

from terraformer.config import BlockConfig, DenseFFConfig, DenseProjectionConfig, SRUConfig, TerraformerConfig
from terraformer.models.block import Block
from terraformer.models.parameters import (
  combine_stacks,
  count,
  flatten,
  merge_module,
  partition_stacks,
  split_module,
  unflatten,
)
from tests.weights import build


def _block():
  config = BlockConfig(8, 2, DenseProjectionConfig(), DenseFFConfig(6), SRUConfig(3))
  return build(lambda key: Block(TerraformerConfig(), config, 2, causal=True, cross=False, key=key))


def test_a_merged_module_equals_the_one_that_was_split():
  block = _block()
  assert jax.tree.structure(merge_module(*split_module(block))) == jax.tree.structure(block)
  for one, other in zip(jax.tree.leaves(merge_module(*split_module(block))), jax.tree.leaves(block), strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_path_leads_to_its_parameter():
  block = _block()
  found = flatten(split_module(block)[1])['attentions.1.attention.projection.query.kernel_DxF']
  np.testing.assert_array_equal(found, block.attentions[1].attention.projection.query.kernel_DxF[...])


def test_unflatten_reverts_flatten():
  _, params = split_module(_block())
  assert jax.tree.structure(unflatten(flatten(params))) == jax.tree.structure(params)


def test_count_adds_up_all_arrays():
  assert count({'a': np.zeros((2, 3)), 'b': {'c': np.zeros(5)}}) == 11


def test_stacks_are_partitioned_and_combined():
  params = {'norm': {'scale_D': 1}, 'decoder': {'blocks': {'norm': {'scale_D': 2}}, 'forgets': {'bias_D': 3}}}
  stacks, rest = partition_stacks(params, ('decoder.blocks', 'decoder.forgets'))
  assert stacks == {'decoder.blocks': {'norm': {'scale_D': 2}}, 'decoder.forgets': {'bias_D': 3}}
  assert rest == {'norm': {'scale_D': 1}}
  assert combine_stacks(stacks, rest) == params
