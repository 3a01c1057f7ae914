import random
import re

import numpy as np
import pytest

from terraformer.data import docstrings, duplicates, store
from tests.prepared import WORDS

STDLIB = docstrings.installed_roots()[0]

_MODULE = '''"""Says what {name} is for.

{words}, which is a long enough body for a pair of twenty words, and then some more of it.
"""

def f():
  """Short."""

class C:
  if True:
    def g(self):
      """Finds {name} in a list without blank line
      after a first line that goes on, so that it is no summary: {words}."""
'''


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  root = tmp_path_factory.mktemp('site-packages-like')
  rng = np.random.default_rng(0)
  for i in range(60):
    folder = root / f'pkg{i}'
    (folder / 'tests').mkdir(parents=True)
    source = _MODULE.format(name=f'thing{i}', words=' '.join(rng.choice(WORDS, 30)))
    (folder / '__init__.py').write_text(source)
    (folder / 'tests' / 'x.py').write_text(source.replace('thing', 'tested'))
  (root / 'broken.py').write_text('"""' + 'x ' * 50 + '"""\ndef (')
  (root / 'latin.py').write_bytes(b'"""caf\xe9 ' + b'x ' * 50 + b'"""')
  (root / 'copy.py').write_text((root / 'pkg3' / '__init__.py').read_text().replace('Says what', 'Says  WHAT'))
  return root


@pytest.fixture(scope='module')
def corpus(tree):
  return docstrings.mine([tree])


def test_modules_classes_and_methods_are_found_and_the_rest_is_passed_over(corpus):
  names = {doc.name for docs in corpus.splits.values() for doc in docs}
  assert 'pkg0' in names or 'pkg1' in names
  assert any(name.endswith('.C.g') for name in names)
  assert not any('tests' in name or name.endswith('.f') or name in ('broken', 'latin') for name in names)


def test_only_pep_257_summaries_make_pairs(corpus):
  docs = [doc for docs in corpus.splits.values() for doc in docs]
  assert all(doc.summary.lower().startswith('says what') for doc in docs if not doc.name.endswith('.g'))
  assert all(not doc.summary for doc in docs if doc.name.endswith('.g'))
  assert all('Says what' not in doc.body for doc in docs)


def test_no_package_is_in_two_splits_and_all_have_some(corpus):
  packages = [{doc.package for doc in corpus.splits[split]} for split in store.SPLITS]
  assert all(packages)
  assert sum(map(len, packages)) == len(set.union(*packages))
  assert len(packages[0]) > 40


def test_a_copy_in_another_package_is_dropped(corpus):
  packages = {doc.package for docs in corpus.splits.values() for doc in docs}
  assert ('copy' in packages) != ('pkg3' in packages)
  assert corpus.dropped['docstrings that are near duplicates'] >= 2


def test_fingerprint_does_not_depend_on_the_order_of_files(tree, corpus, monkeypatch):
  listed = list(docstrings.source_files(tree))
  monkeypatch.setattr(docstrings, 'source_files', lambda root: iter(random.Random(1).sample(listed, len(listed))))
  assert docstrings.mine([tree]).fingerprint == corpus.fingerprint


def test_fingerprint_depends_on_the_text(tree, corpus, tmp_path):
  (tmp_path / 'one.py').write_text(_MODULE.format(name='one', words='some words'))
  assert docstrings.mine([tree, tmp_path]).fingerprint != corpus.fingerprint


def test_the_standard_library_has_good_pairs():
  files = [
    (str(STDLIB), f'{folder}/{file.name}') for folder in ('json', 'email') for file in (STDLIB / folder).glob('*.py')
  ]
  pairs = [doc for doc in docstrings._read_files(files)[0] if doc.summary]
  assert len(pairs) >= 20
  for doc in pairs:
    assert 3 <= len(doc.summary.split()) <= 30 and len(doc.body.split()) >= 20
    assert doc.package in ('json', 'email') and doc.summary.rstrip('.') not in doc.body


@pytest.mark.parametrize(
  'text, good',
  [
    ('Opens a file.\n\n' + 'word ' * 20, True),
    ('Opens a file\n\nReads ' + 'word ' * 20, True),
    ('Opens a file\n\nand reads ' + 'word ' * 20, False),
    ('Opens a file\nand ' + 'word ' * 20, False),
    ('Opens a file.\n\n' + 'word ' * 19, False),
    ('Opens it.\n\n' + 'word ' * 20, False),
    ('Opens a file.\n\nThis opens  a\nfile. ' + 'word ' * 20, False),
    ('Deprecated: use that one.\n\n' + 'word ' * 20, False),
    ('See the base class.\n\n' + 'word ' * 20, False),
    ('>>> not a summary.\n\n' + 'word ' * 20, False),
  ],
)
def test_pairs(text, good):
  assert bool(docstrings._pair(text)) == good


def test_half_a_surrogate_pair_is_not_prose():
  assert docstrings._is_prose('word ' * 20) and not docstrings._is_prose('word ' * 20 + '\ud800')


def _jaccard(a, b):
  def shingles(text):
    words = re.findall(r'\w+', text.lower())
    return {tuple(words[i : i + duplicates.SHINGLE]) for i in range(len(words) - duplicates.SHINGLE + 1)}

  a, b = shingles(a), shingles(b)
  return len(a & b) / len(a | b)


def test_near_duplicates_are_those_of_an_exact_comparison():
  rng = np.random.default_rng(0)
  texts = []
  for _ in range(60):
    words = [f'{word}{rng.integers(9)}' for word in rng.choice(WORDS, 80)]
    texts.append(' '.join(words))
    for changes in rng.choice([0, 1, 3, 12, 40], 2):
      copy = list(words)
      for at in rng.choice(80, changes, replace=False):
        copy[at] = 'changed'
      texts.append(' '.join(copy))
  texts = [texts[i] for i in rng.permutation(len(texts))]
  kept = duplicates.keep_first(texts)
  for i, text in enumerate(texts):
    closest = max([_jaccard(text, other) for j, other in enumerate(texts[:i]) if kept[j]], default=0)
    if kept[i]:
      assert closest < 0.9
    else:
      assert max(_jaccard(text, other) for other in texts[:i]) > 0.5


def test_near_duplicates_of_few_and_short_texts():
  assert duplicates.keep_first([]).tolist() == []
  assert duplicates.keep_first(['', 'a', 'A!', 'b', 'a b']).tolist() == [True, True, False, True, True]
