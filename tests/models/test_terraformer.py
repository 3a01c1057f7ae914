"""B 3 examples of up to S 9 source and T 7 target tokens; D 24, H 3, V 20; 2 layers in each stack."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
  TerraformerConfig,
)
from terraformer.layers.parameter import logical_axes
from terraformer.models.parameters import flatten, split
from terraformer.models.terraformer import Terraformer, unroll
from terraformer.ops.reversible import reversible_stack, stack
from tests.reference import terraformer as reference
from tests.reference.vectors import TOLERANCE, load
from tests.weights import filled, shapes

DENSE, SPARSE = DenseProjectionConfig(), SparseProjectionConfig(4)
DENSE_FF, SPARSE_FF = DenseFFConfig(30), SparseFFConfig(30, 6, 7)


def _config(encoder, decoder, output, **changes):
  """The blocks as (projection, feed-forward, recurrence)."""
  blocks = (BlockConfig(24, 3, *mechanisms, dropout=0.1) for mechanisms in (encoder, decoder))
  names = ('encoder', 'decoder')
  return TerraformerConfig(20, 9, 2, 2, **dict(zip(names, blocks, strict=True)), output=output, **changes)


# Every mechanism in either stack, and every pair of mechanisms that meet in a block.
CONFIGS = {
  'sparse': _config((SPARSE, SPARSE_FF, SRUConfig(5)), (SPARSE, SPARSE_FF, SRUConfig(5)), SparseOutputConfig(4)),
  'dense': _config((DENSE, DENSE_FF, None), (DENSE, DENSE_FF, None), DenseOutputConfig()),
  'dense_encoder': _config((DENSE, SPARSE_FF, SRUConfig(3)), (SPARSE, DENSE_FF, None), SparseOutputConfig(2)),
  'sparse_encoder': _config(
    (SPARSE, DENSE_FF, None),
    (
      DenseProjectionConfig(bias=False),
      dataclasses.replace(SPARSE_FF, multiply_by_controller_output=True),
      SRUConfig(5),
    ),
    DenseOutputConfig(),
    n_decoder_attentions=1,
  ),
}
by_config = pytest.mark.parametrize('name', CONFIGS)


@functools.cache
def _shapes(name, **changes):
  return shapes(lambda key: Terraformer(dataclasses.replace(CONFIGS[name], **changes), key=key))


def _tokens(seed):
  """Sources of 9, 4 and 0 tokens and targets of 7, 7 and 3."""
  rng = np.random.default_rng(seed)
  inputs_BxS, targets_BxT = rng.integers(1, 20, (3, 9)), rng.integers(1, 20, (3, 7))
  inputs_BxS[np.arange(9) >= np.asarray([[9], [4], [0]])] = 0
  targets_BxT[2, 3:] = 0
  return jnp.asarray(inputs_BxS), jnp.asarray(targets_BxT)


@jax.jit
def _call(model, inputs_BxS, targets_BxT):
  return model(inputs_BxS, targets_BxT)


@jax.jit
def _steps(model, inputs_BxS, targets_BxT):
  tokens_TxB = jnp.pad(targets_BxT, ((0, 0), (1, 0)))[:, :-1].T
  cache = model.prefill(inputs_BxS, targets_BxT.shape[1])
  _, logits_TxBxV = jax.lax.scan(lambda cache, token_B: model.step(token_B, cache)[::-1], cache, tokens_TxB)
  return logits_TxBxV.swapaxes(0, 1)


@by_config
@pytest.mark.parametrize('seed', range(3))
def test_prefill_and_steps_equal_call(name, seed):
  model = filled(_shapes(name), seed)
  np.testing.assert_allclose(_steps(model, *_tokens(seed)), _call(model, *_tokens(seed)), atol=1e-4)


def test_an_unrolled_model_takes_the_same_steps():
  model = filled(_shapes('dense_encoder'), 0)
  np.testing.assert_allclose(_steps(unroll(model), *_tokens(0)), _steps(model, *_tokens(0)), atol=1e-4)


def test_the_width_of_the_padding_does_not_matter():
  model = filled(_shapes('sparse'), 0)
  inputs_BxS, targets_BxT = _tokens(0)
  wide, narrow = (_call(model, inputs_BxS[1:, :width], targets_BxT[1:]) for width in (9, 4))
  np.testing.assert_allclose(wide, narrow, atol=1e-5)


@functools.cache
def _influence(name):
  """Whether logits of target t depend on a token's embedding TxV, and on either position table TxP; 6 inputs."""
  model = filled(_shapes(name), 0)
  inputs_1xS = jnp.asarray([[1, 2, 3, 4, 5, 6, 0, 0, 0]])
  targets_1xT = jnp.arange(7, 14)[None]
  cotangent_V = jnp.asarray(np.random.default_rng(0).normal(size=20), jnp.float32)
  jacobian = jax.jit(jax.jacrev(lambda model: model(inputs_1xS, targets_1xT)[0] @ cotangent_V))(model)
  tables = jacobian.embedding.table_VxD, jacobian.encoder_positions.table_PxD, jacobian.decoder_positions.table_PxD
  return tuple(np.asarray(table[...]).any(-1) for table in tables)


by_kind = pytest.mark.parametrize('name', ['sparse', 'dense'])


@by_kind
def test_logits_see_exactly_the_target_tokens_before_them(name):
  # Tokens 7 to 13 are the targets. Shifted, token s is read at position s + 1: logits t see it if s < t.
  influence_TxV, _, _ = _influence(name)
  np.testing.assert_array_equal(influence_TxV[:, 7:14], np.tri(7, k=-1, dtype=bool))


@by_kind
def test_logits_see_exactly_the_target_positions_up_to_their_own(name):
  _, _, influence_TxP = _influence(name)
  np.testing.assert_array_equal(influence_TxP[:, :7], np.tri(7, dtype=bool))


@by_kind
def test_logits_see_exactly_the_real_source_positions(name):
  _, influence_TxP, _ = _influence(name)
  np.testing.assert_array_equal(influence_TxP, np.broadcast_to(np.arange(9) < 6, (7, 9)))


@pytest.mark.parametrize('keep_activations', [False, True])
def test_both_stacks_are_reversible_unless_activations_are_kept(keep_activations):
  # That the gradients are the same is tested with the stack.
  model = _shapes('sparse', keep_activations=keep_activations)
  expected = stack if keep_activations else reversible_stack
  assert model.encoder.run is expected and model.decoder.run is expected


@by_config
def test_every_dimension_of_every_parameter_has_a_name(name):
  axes = logical_axes(_shapes(name))
  ranks = {path: len(leaf.shape) for path, leaf in flatten(split(_shapes(name))[1]).items()}
  assert {'.'.join(path): len(names) for path, names in axes.items()} == ranks


@by_config
def test_layers_is_the_first_name_of_what_a_stack_holds_and_of_nothing_else(name):
  for path, names in logical_axes(_shapes(name)).items():
    in_stack = path[0] in ('encoder', 'decoder')
    assert names.count('layers') == in_stack and (names[:1] == ('layers',)) == in_stack, path


def test_the_paper_size_has_800_million_parameters():
  # 800M of the paper: decoder and feed-forward blocks sparse, the encoder's attention dense; 512 positions.
  def block(projection):
    return BlockConfig(1024, 16, projection, SparseFFConfig(6144, 64, 96), SRUConfig(32))

  config = TerraformerConfig(
    vocab_size=32_000,
    max_length=512,
    n_encoder_layers=24,
    n_decoder_layers=24,
    encoder=block(DenseProjectionConfig()),
    decoder=block(SparseProjectionConfig(16, 3, 3)),
    output=SparseOutputConfig(4),
  )
  model = shapes(lambda key: Terraformer(config, key=key))

  d, norm = 1024, 2 * 1024
  controller = d * 96 + 96 * 6144 + 6144
  feed_forward = norm + controller + 2 * d * 6144 + d
  recurrence = norm + (d * 32 + 32) + (32 * 96 + 96) + (32 * d + d)
  dense_attention = norm + 4 * (d * d + d)
  multiplicative = 16 * d + d * 64 + d
  convolutions = 2 * (3 * 3 * 64 * 64 + 64) + (3 * 1 * 64 * 64 + 64)
  sparse_attention = norm + multiplicative + convolutions
  encoder = 24 * (dense_attention + feed_forward + recurrence)
  decoder = 24 * (2 * sparse_attention + feed_forward + recurrence)
  output = 4 * d + d * 8000 + 32_000
  expected = 32_000 * d + 2 * 512 * d + encoder + decoder + norm + output
  assert expected == 791_974_144
  assert sum(leaf.size for leaf in jax.tree.leaves(model)) == expected


def test_logits_of_the_paper_size_have_the_shape_of_targets_and_vocabulary():
  config = TerraformerConfig(32_000, 512, 24, 24, encoder=BlockConfig(1024, 16), decoder=BlockConfig(1024, 16))
  model = shapes(lambda key: Terraformer(config, key=key))
  inputs, targets = (jax.ShapeDtypeStruct((2, length), jnp.int32) for length in (512, 256))
  logits = jax.eval_shape(lambda model, *tokens: model(*tokens), model, inputs, targets)
  assert (logits.shape, logits.dtype) == ((2, 256, 32_000), jnp.float32)


def _reference_model(r, **sparse_ff):
  model = shapes(lambda key: Terraformer(reference.config(r, **sparse_ff), key=key))
  return reference.in_our_terms(r, 'w', model)


def test_logits_are_those_of_the_reference():
  r = load('terraformer_eval_stdattn')
  np.testing.assert_allclose(_call(_reference_model(r), r['tok_e'], r['tok_d']), r['logits'], atol=TOLERANCE)


def test_decoded_logits_are_those_of_the_reference():
  # Each example on its own there; here in one batch, with the shorter source padded.
  r = load('terraformer_eval_stdattn')
  expected = np.concatenate([r['predict_logits_ex0'], r['predict_logits_ex1']])
  np.testing.assert_allclose(_steps(_reference_model(r), r['tok_e'], r['tok_d']), expected, atol=TOLERANCE)


@jax.jit
def _reference_training(model, inputs_BxS, targets_BxT):
  def loss(model):
    logits_BxTxV = model(inputs_BxS, targets_BxT, key=jax.random.key(0))
    log_p_BxT = jnp.take_along_axis(jax.nn.log_softmax(logits_BxTxV), targets_BxT[..., None], axis=-1)[..., 0]
    return -log_p_BxT.mean(where=targets_BxT != 0), logits_BxTxV

  return jax.value_and_grad(loss, has_aux=True)(model)


@functools.cache
def _reference_case():
  """What the reference recorded, and ours: loss, logits and gradients, through the reversible backward pass of each."""
  r = load('terraformer_train_quant')
  model = _reference_model(r, temperature=0.0, hard_probability=1.0)
  (loss, logits_BxTxV), gradients = _reference_training(model, r['tok_e'], r['tok_d'])
  return r, loss, logits_BxTxV, gradients


def test_the_training_loss_is_that_of_the_reference():
  r, loss, _, _ = _reference_case()
  np.testing.assert_allclose(loss, r['loss'], atol=TOLERANCE)


def test_training_logits_are_those_of_the_reference():
  r, _, logits_BxTxV, _ = _reference_case()
  np.testing.assert_allclose(logits_BxTxV, r['logits'], atol=TOLERANCE)


def test_training_gradients_are_those_of_the_reference():
  r, _, _, gradients = _reference_case()
  expected = flatten(split(reference.in_our_terms(r, 'grad', gradients))[1])
  for path, gradient in flatten(split(gradients)[1]).items():
    np.testing.assert_allclose(gradient, expected[path], atol=TOLERANCE, err_msg=path)
