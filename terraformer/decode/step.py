"""The compiled functions of decoding; weights and cache are arguments, the cache is donated."""

import functools

import jax

from terraformer.config import ModelConfig
from terraformer.decode.bundle import abstract_unrolled
from terraformer.decode.sample import sample
from terraformer.models.parameters import merge, split


@functools.lru_cache(maxsize=8)
def compile_decoder(config: ModelConfig, n_tokens: int, n_ids: int):
  """The jitted functions `prefill` and `step` of one model, compiled at their first call for each shape.

  Args:
    config: of the model.
    n_tokens: target tokens that the cache has room for.
    n_ids: size of the vocabulary.

  Returns:
    prefill(weights, inputs_BxS) -> cache, and
    step(weights, cache, token_B, temperature, key) -> (next_B, cache), which samples as well.
  """
  structure, _ = split(abstract_unrolled(config))

  @jax.jit
  def prefill(weights, inputs_BxS):
    return merge(structure, weights).prefill(inputs_BxS, n_tokens)

  @functools.partial(jax.jit, donate_argnames='cache')
  def step(weights, cache, token_B, temperature, key):
    logits_BxV, cache = merge(structure, weights).step(token_B, cache)
    return sample(logits_BxV, n_ids, temperature, key), cache

  return prefill, step
