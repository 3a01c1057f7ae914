"""Small random models for serving, and requests with what they give alone."""

import dataclasses
import queue

import jax
import numpy as np

from terraformer.config import DecodeConfig
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Decoder
from terraformer.models.make import layerwise
from terraformer.models.parameters import split_module
from terraformer.serving.scheduler import Failed, Finished, Piece
from tests.models.examples import CONFIGS, LANGUAGE_MODELS, model
from tests.prepared import sentences

SOURCES = 100  # tokens


def small_decoder(name, tokenizer, engine='native'):
  """The decoder of an example model with a real vocabulary, and positions for several pages of a cache."""
  config = dataclasses.replace(CONFIGS[name], vocab_size=-(-tokenizer.size // 4) * 4, max_length=256)
  weights = jax.tree.map(np.asarray, split_module(layerwise(model(config)))[1])
  inputs_length = 0 if name in LANGUAGE_MODELS else SOURCES
  return Decoder(Bundle(config, weights, tokenizer, inputs_length, 200, origin={}), engine=engine)


class Receiver:
  """Receives the events of one request."""

  def __init__(self):
    self._events = queue.Queue()
    self.pieces, self.n_ends = [], 0

  def __call__(self, event):
    if isinstance(event, Piece):
      assert event.text and not self.n_ends
      self.pieces.append(event.text)
    else:
      self.n_ends += 1
    self._events.put(event)

  def wait_for_piece(self):
    assert isinstance(self._events.get(timeout=120), Piece)

  def end(self) -> Finished | Failed:
    """Waits for the last event and returns it."""
    while isinstance(event := self._events.get(timeout=120), Piece):
      pass
    return event

  @property
  def text(self):
    return ''.join(self.pieces)


def random_requests(count, seed=0):
  """Prompts and configs: greedy and sampled, with stops, several lengths, and blocked n-grams."""
  rng, prompts = np.random.default_rng(seed), sentences(count, seed, words=40)
  for prompt in prompts:
    sampled = {
      'temperature': float(rng.choice([0.3, 1.0, 2.5])),
      'seed': int(rng.integers(1 << 30)),
      'top_k': int(rng.choice([0, 0, 5])),
      'top_p': float(rng.choice([1, 1, 0.8])),
    }
    yield (
      prompt[: int(rng.choice([8, 60, 240]))],
      DecodeConfig(
        max_tokens=int(rng.choice([0, 1, 7, 30, 90])),
        stop=(('e ', 'st'), ())[int(rng.integers(2))],
        no_repeat_ngram=int(rng.choice([0, 0, 0, 2])),
        **(sampled if rng.integers(2) else {}),
      ),
    )
