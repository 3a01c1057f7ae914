"""A simple model of V 6: token x is followed by the source token at index x."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.models.generate import generate


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Cache:
  successor_BxS: jax.Array
  read_B: jax.Array


class _Lookup:
  def prefill(self, inputs_BxS, n_tokens):
    return _Cache(inputs_BxS, jnp.zeros(inputs_BxS.shape[0], jnp.int32))

  def step(self, token_B, cache):
    following_B = jnp.take_along_axis(cache.successor_BxS, token_B[:, None], axis=1)[:, 0]
    return jax.nn.one_hot(following_B, 6), _Cache(cache.successor_BxS, cache.read_B + 1)


# 0 -> 2 -> 3 -> 1 (the end); 0 -> 5 -> 4 -> 5 -> 4 ...; 0 -> 1.
SUCCESSORS = jnp.asarray([[2, 0, 3, 1, 0, 0], [5, 0, 0, 0, 5, 4], [1, 0, 0, 0, 0, 0]])


def test_each_token_is_read_to_generate_the_next():
  np.testing.assert_array_equal(generate(_Lookup(), SUCCESSORS[1:2], 5, 6), [[5, 4, 5, 4, 5]])


def test_zeros_follow_the_end():
  np.testing.assert_array_equal(
    generate(_Lookup(), SUCCESSORS, 5, 6), [[2, 3, 1, 0, 0], [5, 4, 5, 4, 5], [1, 0, 0, 0, 0]]
  )


def test_generation_stops_when_all_have_ended():
  # After the third step, all texts have ended, and no other step may follow.
  def count(_):
    steps.append(1)

  class _Counting(_Lookup):
    def step(self, token_B, cache):
      jax.debug.callback(count, token_B)
      return super().step(token_B, cache)

  steps = []
  generate(_Counting(), SUCCESSORS[::2], 5, 6).block_until_ready()
  jax.effects_barrier()
  assert len(steps) == 3


def test_ids_outside_the_vocabulary_are_never_generated():
  # V is 6, but only 5 ids are tokens. The model's 5 is masked, so the first of the others is taken.
  assert (np.asarray(generate(_Lookup(), SUCCESSORS[1:2], 5, 5)) < 5).all()
