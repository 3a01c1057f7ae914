"""The model that comes with the package, and the scripts that gather its data and score it."""

import dataclasses
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from terraformer.decode.bundle import SHIPPED, open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.storage import layouts_for
from terraformer.decode.stored import PackedMatrix, plain
from terraformer.models.parameters import flatten, unflatten

SCRIPTS = Path(__file__).parents[1] / 'pretrained'
BUNDLES = sorted(path for path in SHIPPED.iterdir() if path.is_dir() and (path / 'config.json').exists())
TEXT = 'The package manager reads the configuration file, and then installs all dependencies of Debian.'


@pytest.fixture
def scripts(monkeypatch):
  monkeypatch.syspath_prepend(str(SCRIPTS))
  yield
  for name in ('gather', 'mistakes', 'score'):
    sys.modules.pop(name, None)


@pytest.mark.parametrize('bundle', BUNDLES, ids=lambda path: path.name)
def test_a_shipped_bundle_is_small_and_has_a_card(bundle):
  assert sum(path.stat().st_size for path in bundle.iterdir()) <= 12_000_000
  assert bundle.with_suffix('.md').read_text(encoding='utf-8').startswith(f'# {bundle.name}\n')


def test_the_shipped_model_mends_and_summarises():
  decoder = Decoder.open('technical_english')
  sources = [
    'fix: this libary provides a simple interace for python programs to acces the database.',
    'summarize: Foobar is a library for reading and writing audio files in many formats from Python. '
    'This package contains the documentation.',
  ]
  mended, summary = decoder.generate_batch(sources)
  assert mended == 'This library provides a simple interface for Python programs to access the database.'
  assert 'Foobar' in summary and 'documentation' in summary


def test_losses_do_not_depend_on_how_a_bundle_stores_its_weights(scripts):
  from score import losses

  bundle = open_bundle(SHIPPED / 'technical_english')
  arrays = {name: plain(value).astype(np.float32) for name, value in flatten(bundle.weights).items()}
  layouts = layouts_for(bundle.model, 'float32')
  packed = {name: layouts[name].value(name, x.shape, layouts[name].encode(name, x)) for name, x in arrays.items()}
  assert any(isinstance(value, PackedMatrix) for value in packed.values())
  pairs = [{'inputs': 'fix: this libary is samll', 'targets': 'This library is small.'}] * 2
  found = [losses(dataclasses.replace(bundle, weights=unflatten(each)), pairs, 2) for each in (arrays, packed)]
  assert found[0] == found[1]
  assert found[0]['loss'] < 1


def test_mistakes_are_the_same_for_a_seed_and_others_for_another(scripts):
  from mistakes import spoil

  made = [spoil(TEXT, str(seed)) for seed in range(50)]
  assert made == [spoil(TEXT, str(seed)) for seed in range(50)]
  assert len(set(made)) > 30
  assert TEXT in made  # some texts have none


def test_a_typing_error_changes_a_word_and_leaves_short_ones_alone(scripts):
  from mistakes import mistype

  rng = random.Random(0)
  assert all(mistype('package', rng) != 'package' for _ in range(200))
  assert all(mistype(word, rng) == word for word in ('a', 'of', 'all', '3.11', '--') for _ in range(50))


def test_packages_of_one_source_in_several_versions_are_in_one_split(scripts):
  from gather import split_of

  for name in ('gcc', 'python', 'llvm-toolchain', 'postgresql'):
    versions = {split_of(f'{name}{end}') for end in ('', '-12', '-13', '3.11', '-3.12')}
    assert len(versions) == 1
  splits = [split_of(f'{first}{second}') for first in 'abcdefghij' for second in 'klmnopqrst']
  assert 85 <= splits.count('train') < 100 and {*splits} == {'train', 'validation', 'test'}


def test_docstrings_become_sources_of_sentences_with_their_summaries(scripts, tmp_path):
  from gather import docstring_rows, split_of

  (tmp_path / 'pack').mkdir()
  (tmp_path / 'pack' / '__init__.py').write_text(f'''def read(path):
  """Reads the packages of a file.

  {TEXT} {TEXT}

  >>> read('x')
  """
''')
  (row,) = docstring_rows([tmp_path])
  assert row == {
    'kind': 'docstring',
    'package': 'pack',
    'split': split_of('pack'),
    'body': f'{TEXT} {TEXT}',
    'summary': 'Reads the packages of a file.',
  }


def test_passages_are_prose_of_the_text_and_of_a_fair_length(scripts):
  from gather import PASSAGE, passages

  text = ' '.join(f'{TEXT} It has number {number}.' for number in range(20)) + ' x = {1: 2, 3: 4}; y = [5, 6] ** 7 / 8'
  found = passages(text)
  assert found and all(one in text and PASSAGE[0] <= len(one) <= PASSAGE[1] for one in found)
  assert not any('**' in one for one in found)


@pytest.mark.parametrize(
  ('reference', 'text', 'errors', 'right'),
  [
    ('a b c', 'a b c', 0, {0, 1, 2}),
    ('a b c', 'a x c', 1, {0, 2}),
    ('a b c', 'a c', 1, {0, 2}),
    ('a b c', 'a b b c', 1, {0, 1, 2}),
    ('a b c', '', 3, set()),
    ('A b.', 'a b', 2, set()),
    ('a b c d', 'ab c d', 2, {2, 3}),
  ],
)
def test_word_errors_are_the_fewest_edits(scripts, reference, text, errors, right):
  from score import word_errors

  assert word_errors(reference, text) == (errors, right)


def test_fix_scores_count_what_was_mended_and_what_was_spoilt(scripts):
  from score import fix_scores

  pairs = [{'inputs': 'fix: teh cat, Sat', 'targets': 'The cat sat.'}]
  scores = fix_scores(pairs, ['The cat set.'])
  assert (scores['wrong_words_before'], scores['wrong_words_after']) == (3, 1)
  assert (scores['misspelt_words_before'], scores['misspelt_words_after']) == (1, 1)
  assert (scores['right_words_before'], scores['right_words_spoilt']) == (0, 0)
  scores = fix_scores([{'inputs': 'fix: the cat set', 'targets': 'the cat sat'}], ['the dog sat'])
  assert (scores['right_words_before'], scores['right_words_spoilt']) == (2, 1)
