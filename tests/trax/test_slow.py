"""Models of other kinds than the fixtures: written as checkpoints, they give the logits of the authors' model in NumPy.

That model in turn gives the logits of trax for every fixture.
"""

import gzip
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.decode.bundle import open_bundle
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.stored import plain
from terraformer.importing import import_bundle
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten
from tests.reference.vectors import TOLERANCE
from tests.trax.slow import Spec, gin, logits, reader

FOLDER = Path(__file__).parent / 'checkpoints'
BOTH_LSH, BOTH_PLAIN, BOTH_AVERAGED = ('lsh', 'lsh'), ('plain', 'plain'), ('averaged', 'averaged')
FIXTURES = {
  'c4_medium': Spec(48, 4, 84, 40, (2, 3), ff=(60, 5, 12), sru=10, loss=4, decoder=(6, 3)),
  'c4_big': Spec(40, 5, 69, 36, (1, 3), ff=(72, 9, 7), sru=11, decoder=(8, 3), queries=('both', 'shared'), twice=True),
  'arxiv_dense': Spec(32, 4, 65, 64, (2, 2), ff=44, queries=BOTH_AVERAGED, scores=BOTH_LSH, swaps=False),
  'arxiv_lsh': Spec(
    32, 2, 72, 90, (2, 2), ff=(56, 7, 8), sru=6, loss=3, decoder=(4, 3), queries=BOTH_AVERAGED, scores=BOTH_LSH
  ),
  'arxiv_mixed': Spec(
    *(48, 3, 78, 70, (2, 2)),
    **{'ff': (66, 6, 11), 'sru': 9, 'loss': 2, 'rank': 10},
    **{'decoder': (4, 3), 'queries': BOTH_AVERAGED, 'scores': BOTH_PLAIN},
  ),
}


@pytest.mark.parametrize('name', FIXTURES)
def test_the_slow_model_has_the_logits_of_trax(name):
  weights = []
  with gzip.open(next((FOLDER / name).glob('*.weights.npy.gz'))) as file:
    while file.peek(1):
      weights.append(np.load(file))
  with np.load(FOLDER / name / 'expected.npz') as expected:
    for tok_e, tok_d, theirs in zip(expected['tok_e'], expected['tok_d'], expected['logits'], strict=True):
      take, rest = reader(weights)
      source, target = ([int(id_) for id_ in ids if id_] for ids in (tok_e, tok_d))
      np.testing.assert_allclose(logits(FIXTURES[name], take, source, target), theirs[: len(target)], atol=1e-5)
      assert next(rest, None) is None


# --- Other models ----------------------------------------------------------------------------------------------------

S, T = 9, 6
SOURCES = [[5, 9, 3, 31, 7, 8, 12, 2, 1], [20, 4, 6, 1, 0, 0, 0, 0, 0]]
TARGETS = [[7, 8, 2, 30, 9, 1], [3, 11, 1, 0, 0, 0]]
# Every field of a `Spec` with each of its values beside others; the widths differ within a model.
OTHERS = {
  'one swap, streams merged, low rank, one attention sublayer': Spec(
    *(24, 4, 40, 20, (2, 1), 1),
    **{'ff': (30, 3, 4), 'sru': 5, 'rank': 3, 'merges': True, 'swaps': False, 'decoder': (6, 3)},
  ),
  'convolutions averaged beside shared matrices, three attention sublayers': Spec(
    *(20, 5, 35, 12, (1, 1), 3),
    **{'ff': 18, 'sru': 7, 'loss': 5, 'decoder': (2, 3), 'queries': ('shared', 'averaged'), 'scores': BOTH_LSH},
  ),
  'shared convolutions over two positions, embedding twice': Spec(
    *(18, 2, 42, 15, (1, 2)),
    **{'ff': (28, 14, 3), 'loss': 6, 'decoder': (9, 2), 'queries': ('both', 'shared'), 'twice': True, 'merges': True},
  ),
  'plain queries for keys, root mean square, low rank and embedding twice': Spec(
    *(16, 1, 33, 30, (1, 1)),
    **{'ff': (16, 4, 9), 'sru': 3, 'rank': 5, 'queries': ('averaged', 'averaged'), 'scores': BOTH_PLAIN},
    **{'twice': True, 'centered': False},
  ),
  'plain in the encoder alone, convolutions of one module': Spec(
    *(15, 3, 33, 16, (3, 1), 2),
    **{'ff': 9, 'decoder': (1, 3), 'queries': BOTH_AVERAGED, 'scores': ('plain', 'lsh'), 'loss': 3, 'swaps': False},
  ),
}


def written(folder, spec, seed=0):
  """Writes a checkpoint of random weights; returns the logits of both examples, at real tokens."""
  rng, weights = np.random.default_rng(seed), []

  def draw(*sizes):
    if spec.twice and sizes == (spec.vocab, spec.d) and len(weights) == (3 if spec.rank else 2):
      weight = weights[0]
    else:
      weight = rng.normal(0, 0.3, sizes).astype(np.float32)
    weights.append(weight)
    return weight.astype(np.float64)

  expected = [logits(spec, draw, SOURCES[0], TARGETS[0])]
  take, _ = reader(weights)
  source, target = ([id_ for id_ in ids if id_] for ids in (SOURCES[1], TARGETS[1]))
  expected.append(logits(spec, take, source, target))
  (folder / 'config.gin').write_text(gin(spec, S, T))
  (folder / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps({'step': 3, 'flat_weights': weights})))
  return np.concatenate(expected)


def imported_logits(folder):
  """The same of the imported checkpoint."""
  import_bundle(folder, folder / 'bundle')
  bundle = open_bundle(folder / 'bundle')
  weights = unflatten({name: plain(value) for name, value in flatten(bundle.weights).items()})
  model = merge_module(split_module(abstract_layerwise(bundle.model))[0], weights)
  targets = np.array(TARGETS)
  return np.asarray(jax.jit(type(model).__call__)(model, jnp.array(SOURCES), jnp.array(targets)))[targets != 0]


@pytest.mark.parametrize('name', OTHERS)
def test_an_imported_model_has_the_logits_of_the_slow_model(tmp_path, name):
  expected = written(tmp_path, OTHERS[name])
  np.testing.assert_allclose(imported_logits(tmp_path), expected, atol=TOLERANCE)


@pytest.mark.parametrize('twice', [False, True])
@pytest.mark.parametrize(('positions', 'vocab'), [(20, 33), (12, 33), (20, 36), (36, 36)])
def test_a_matrix_of_full_rank_behind_a_table_is_told_from_what_follows(tmp_path, twice, positions, vocab):
  spec = Spec(vocab, 3, vocab, positions, (1, 1), 1, 8, rank=vocab, twice=twice)
  written(tmp_path, spec)
  if positions == spec.d:
    with (tmp_path / 'config.gin').open('a') as file:
      file.write(f'\nPositionalEncoding.d_feature = {spec.rank}\n')
  done = import_bundle(tmp_path, tmp_path / 'bundle')
  names = [entry.split()[1] for entry in done.entries[: 5 + twice]]
  again = ['embedding_again'] * twice
  first, second = (['encoder_pos/table', 'encoder_pos/projection'], ['decoder_pos/table', 'decoder_pos/projection'])
  assert names == ['embedding', *first, *again, *second]
