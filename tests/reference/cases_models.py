"""A decoder block and whole Terraformers, beside the reference."""

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import BlockConfig, SparseFFConfig, SparseProjectionConfig, SRUConfig, TerraformerConfig
from terraformer.models.block import Block
from terraformer.models.make import abstract_model
from terraformer.models.parameters import flatten, split_module
from terraformer.models.sublayers import SequenceMasks
from terraformer.ops.reversible import add
from tests.reference import terraformer as reference
from tests.reference.vectors import Vectors
from tests.weights import nothing_filled, shapes


def decoder_block(r: Vectors) -> None:
  """Two attentions and the feed-forward block over two streams, after each sublayer, and token by token."""
  d_model, n_blocks, block_size = r['w/ff/sparse_ff/w1'].shape
  convolution_CxExVxW = r['w/attn0/q_kernel']
  config = BlockConfig(
    d_model=d_model,
    n_heads=int(r['n_heads']),
    projection=SparseProjectionConfig(int(r['sparsity']), *convolution_CxExVxW.shape[:2]),
    feed_forward=SparseFFConfig(n_blocks * block_size, int(r['n_elements_in_block']), r['w/ff/sparse_ff/m1'].shape[1]),
    recurrence=SRUConfig(r['w/ff/sru_branch/sru/kernel'].shape[0]),
    dropout=0.0,
  )
  make = lambda key: Block(TerraformerConfig(), config, 2, causal=True, cross=False, key=key)  # noqa: E731
  block = reference.in_our_terms(r, 'w', shapes(make))
  streams = r['x1'], r['x2']
  for index in range(len(block.sublayers)):
    a, b = streams
    delta, _ = block.delta(b, None, SequenceMasks(None), None, None, number=index)
    # The reference adds first and swaps then; ours reads one stream and adds to the other. Its streams before the
    # swap are ours after it, the other way round.
    b, a = add((a, b), delta)
    streams = b, a
    for stage, (one, two) in ((2 * index, (a, b)), (2 * index + 1, (b, a))):
      r.compare(f'after{stage}_1', one)
      r.compare(f'after{stage}_2', two)
  r.compare('y1', streams[0])
  r.compare('y2', streams[1])

  step = jax.jit(lambda block, streams, caches, places: block.step(streams, caches, places))
  caches, stepped = block.init_cache(*r['x1'].shape[:2], None, SequenceMasks(None)), []
  places = nothing_filled(len(r['x1']))
  for time in range(r['x1'].shape[1]):
    y, caches = step(block, (r['x1'][:, time], r['x2'][:, time]), caches, places)
    places = places.advanced()
    stepped.append(y)
  for stream, ys in zip('12', zip(*stepped, strict=True), strict=True):
    r.compare(f'y{stream}', jnp.stack(ys, 1), label=f'y{stream}, step by step')


def _model(r: Vectors, **sparse_ff):
  return reference.in_our_terms(r, 'w', abstract_model(reference.config(r, **sparse_ff)))


def _steps(model, inputs_BxS, targets_BxT) -> jax.Array:
  tokens_TxB = jnp.pad(targets_BxT, ((0, 0), (1, 0)))[:, :-1].T

  @jax.jit
  def run(model, inputs_BxS, tokens_TxB):
    cache = model.prefill(inputs_BxS, len(tokens_TxB))
    _, logits_TxBxV = jax.lax.scan(lambda cache, token_B: model.step(token_B, cache)[::-1], cache, tokens_TxB)
    return logits_TxBxV.swapaxes(0, 1)

  return run(model, inputs_BxS, tokens_TxB)


def terraformer_eval(r: Vectors) -> None:
  """The logits at once, for the whole batch token by token, and for each example alone as the reference decodes."""
  model = _model(r)
  inputs_BxS, targets_BxT = jnp.asarray(r['tok_e']), jnp.asarray(r['tok_d'])
  r.compare('logits', jax.jit(lambda model, *tokens: model(*tokens))(model, inputs_BxS, targets_BxT))
  stepped_BxTxV = _steps(model, inputs_BxS, targets_BxT)
  r.compare('logits', stepped_BxTxV, label='logits, step by step')
  for name in r.names('predict_logits_ex'):
    example = int(name.removeprefix('predict_logits_ex'))
    rows = slice(example, example + 1)
    r.compare(name, _steps(model, inputs_BxS[rows], targets_BxT[rows]))


def terraformer_train(r: Vectors) -> None:
  """Loss, logits, and every gradient through the reversible backward pass of each."""
  soft = r.name.endswith('soft')
  model = _model(r, temperature=0.0, hard_probability=0.0 if soft else 1.0)

  @jax.jit
  def run(model, inputs_BxS, targets_BxT):
    def loss(model):
      logits_BxTxV = model(inputs_BxS, targets_BxT, key=jax.random.key(0))
      log_p_BxT = jnp.take_along_axis(jax.nn.log_softmax(logits_BxTxV), targets_BxT[..., None], axis=-1)[..., 0]
      return -log_p_BxT.mean(where=targets_BxT != 0), logits_BxTxV

    return jax.value_and_grad(loss, has_aux=True)(model)

  (loss, logits_BxTxV), gradients = run(model, jnp.asarray(r['tok_e']), jnp.asarray(r['tok_d']))
  r.compare('loss', loss)
  r.compare('logits', logits_BxTxV)
  ours = flatten(split_module(gradients)[1])
  theirs = flatten(split_module(reference.in_our_terms(r, 'grad', gradients))[1])
  for path, expected in theirs.items():
    r.compare_with(f'grad {path}', np.asarray(ours[path]), expected)
