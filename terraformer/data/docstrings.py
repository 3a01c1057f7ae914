"""Real English text that is on every machine: the docstrings of the standard library and of installed packages.

Source files are parsed, never imported, and their text is copied only into the user's own prepared data. One pass gives
two corpora: the docstrings as text, and pairs of a docstring's body and its one-line summary (PEP 257). The result
depends on the installed packages; compare `Corpus.fingerprint` to see whether two environments gave the same corpus.
"""

import ast
import concurrent.futures
import dataclasses
import hashlib
import inspect
import multiprocessing
import os
import re
import signal
import string
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from terraformer.data import duplicates
from terraformer.data.report import bar
from terraformer.data.source import Example, HeldSource
from terraformer.data.store import FEATURES, RECORD, SPLITS, Origin

NO_PAIR = 'docstrings without a summary and a body'  # a reason to omit a docstring from the pairs
HELD_OUT = 0.05  # share of the text in each of validation and test
QUOTED = 0.1  # least share of a file in triple quotes to parse it: saves a fifth of the time, costs 3% of the pairs
LEAST_WORDS, MOST_CHARACTERS = 12, 50_000  # of a docstring
SUMMARY_WORDS, BODY_WORDS = (3, 30), 20

# Tests, vendored packages and generated files, whose docstrings are poor or duplicates.
SKIPPED_FOLDERS = frozenset(
  {'test', 'tests', 'testing', '_test', '_tests', 'idle_test', 'testdata', '__pycache__', 'site-packages'}
  | {'_vendor', 'vendor', '_vendored_packages', 'third_party', 'externals', 'extern', '_api', '_legacy'}
)
_SKIPPED_FILE = re.compile(
  r'(^test_|_test\.py$|_tests\.py$|^conftest\.py$|_pb2(_grpc)?\.py$|_gen\.py$|_generated\.py$)'
)
# Lines that are not summaries.
_STUB = re.compile(
  r'deprecated|see (also )?(the )?(:|`|base class|docs|documentation)|please refer to|inherited from|todo|fixme'
  r'|^(same as|equivalent to|alias (of|for)|see|refer to|copyright|usage|example)\b',
  re.IGNORECASE,
)
_SURROGATE = re.compile('[\ud800-\udfff]')  # half a character, which cannot be written as UTF-8
_LETTERS = string.ascii_letters.encode() + b' \n'


@dataclasses.dataclass(frozen=True)
class Docstring:
  """A docstring.

  Attributes:
    package: the top-level package; in the standard library, the top-level module.
    name: dotted name of the module, class or function, starting with the package.
    text: the whole docstring without indentation.
    summary, body: its first line and the rest; both are empty if they make no good pair (see `_pair`).
  """

  package: str
  name: str
  text: str
  summary: str = ''
  body: str = ''


class Summaries(HeldSource):
  """Pairs of body and summary."""

  def _load(self, show_progress: bool) -> tuple[dict[str, list[Example]], Origin]:
    corpus = _mine_here(show_progress)
    return {split: corpus.pairs(split) for split in SPLITS}, Origin(corpus.fingerprint, dropped=corpus.dropped)


class Text(HeldSource):
  """Whole docstrings."""

  @property
  def features(self) -> tuple[str, ...]:
    return FEATURES[1:]

  def _load(self, show_progress: bool) -> tuple[dict[str, list[Example]], Origin]:
    corpus = _mine_here(show_progress)
    dropped = {reason: count for reason, count in corpus.dropped.items() if reason != NO_PAIR}
    return {split: corpus.texts(split) for split in SPLITS}, Origin(corpus.fingerprint, dropped=dropped)


def _mine_here(show_progress: bool) -> 'Corpus':
  with bar(show_progress, 'mining docstrings', 'file') as shown:
    return mine(
      show_progress=lambda done, total: shown.reset(total) if shown.total != total else shown.update(done - shown.n)
    )


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The mined docstrings.

  Attributes:
    splits: docstrings by split, in the order of a hash of their text.
    fingerprint: sha256 of all docstrings; it does not depend on the order of files on disk.
    dropped: number of omitted docstrings, by reason.
  """

  splits: dict[str, list[Docstring]]
  fingerprint: str
  dropped: dict[str, int]

  def texts(self, split: str) -> list[dict[str, str]]:
    """Returns language-modeling examples, each with the dotted name of the documented object."""
    return [{'targets': doc.text, RECORD: doc.name} for doc in self.splits[split]]

  def pairs(self, split: str) -> list[dict[str, str]]:
    """Returns summarization examples, body to summary, each with the dotted name of the documented object."""
    docs = (doc for doc in self.splits[split] if doc.summary)
    return [{'inputs': doc.body, 'targets': doc.summary, RECORD: doc.name} for doc in docs]


def installed_roots() -> list[Path]:
  """Returns the folders to mine: those of the standard library and of installed packages."""
  paths = sysconfig.get_paths()
  return [Path(path) for path in dict.fromkeys([paths['stdlib'], paths['purelib'], paths['platlib']])]


def mine(
  roots: list[Path] | None = None,
  show_progress: Callable[[int, int], None] = lambda done, total: None,
  wanted: Callable[[str], bool] = lambda package: True,
) -> Corpus:
  """Mines docstrings, removes near duplicates across all packages, and splits the rest by package.

  Args:
    roots: folders with top-level packages and modules; those of this environment if None.
    show_progress: called with the number of files done and the total number of files.
    wanted: says whether to mine a package, given its top-level name.
  """
  files = sorted({file for root in roots or installed_roots() for file in source_files(root)})
  files = [(root, path) for root, path in files if wanted(Path(path).parts[0].removesuffix('.py'))]
  found, read, seen = [], 0, 0
  for chunk, docstrings, number in _in_processes(files):
    found += docstrings
    seen += number
    read += chunk
    show_progress(read, len(files))
  found.sort(key=lambda doc: (doc.package, doc.name, doc.text))
  kept = duplicates.keep_first([doc.text for doc in found])
  dropped = {
    'docstrings that are short, long or no prose': seen - len(found),
    'docstrings that are near duplicates': int((~kept).sum()),
  }
  found = [doc for doc, keep in zip(found, kept, strict=True) if keep]
  dropped[NO_PAIR] = sum(not doc.summary for doc in found)
  digest = hashlib.sha256()
  for doc in found:
    digest.update('\0'.join(dataclasses.astuple(doc)).encode() + b'\0\0')
  return Corpus(split_by_package(found), digest.hexdigest(), dropped)


def source_files(root: Path) -> Iterator[tuple[str, str]]:
  """Yields the Python files under a folder that are worth mining, as (folder, path in it)."""
  for folder, folders, files in os.walk(root):
    folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and f.isidentifier()]
    if folder == str(root) and 'terraformer' in folders:
      folders.remove('terraformer')  # otherwise the corpus would change with this library
    for file in files:
      if file.endswith('.py') and not _SKIPPED_FILE.search(file):
        yield str(root), os.path.relpath(Path(folder, file), root)


def _in_processes(files: list[tuple[str, str]], chunk: int = 64) -> Iterator[tuple[int, list[Docstring], int]]:
  """Yields, for each chunk, the number of files, the docstrings kept and the number of docstrings seen."""
  chunks = [files[i : i + chunk] for i in range(0, len(files), chunk)]
  workers = min(os.cpu_count() or 1, len(chunks))
  if workers <= 1:
    yield from ((len(part), *_read_files(part)) for part in chunks)
    return
  # Not `fork`: the caller may have threads.
  pool = concurrent.futures.ProcessPoolExecutor(
    workers, multiprocessing.get_context('spawn'), signal.signal, (signal.SIGINT, signal.SIG_IGN)
  )
  try:
    for part, (docstrings, number) in zip(chunks, pool.map(_read_files, chunks), strict=True):
      yield len(part), docstrings, number
  finally:
    pool.shutdown(cancel_futures=True)


def _read_files(files: list[tuple[str, str]]) -> tuple[list[Docstring], int]:
  found = [doc for root, path in files for doc in read_docstrings(Path(root), path)]
  return [dataclasses.replace(doc, **_pair(doc.text)) for doc in found if _is_prose(doc.text)], len(found)


def read_docstrings(root: Path, path: str) -> Iterator[Docstring]:
  """Yields the docstrings of one file; none if it is not UTF-8, does not parse, or is mostly code."""
  try:
    source = Path(root, path).read_text(encoding='utf-8')
    if sum(map(len, source.split('"""')[1::2])) < QUOTED * len(source):
      return
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of invalid escapes in others' code
      tree = ast.parse(source)
  except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
    return
  module = path.removesuffix('.py').replace(os.sep, '.').removesuffix('.__init__')
  package = module.split('.')[0]
  stack: list[tuple[str, ast.AST]] = [(module, tree)]
  while stack:
    name, node = stack.pop()
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
      text = ast.get_docstring(node, clean=False)
      if text:
        yield Docstring(package, name, inspect.cleandoc(text))
    for child in getattr(node, 'body', []) + getattr(node, 'orelse', []):
      if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        stack.append((f'{name}.{child.name}', child))
      elif isinstance(child, ast.If | ast.Try | ast.With):
        stack.append((name, child))


def _is_prose(text: str) -> bool:
  """Whether a docstring has a sensible length and consists mostly of letters and spaces, unlike a table or drawing."""
  if len(text) > MOST_CHARACTERS or len(text.split()) < LEAST_WORDS:
    return False
  if _SURROGATE.search(text):
    return False
  others = text.encode('ascii', 'replace').translate(None, _LETTERS)
  return len(others) <= 0.25 * len(text)


def _pair(text: str) -> dict[str, str]:
  """Returns the summary line and the body of a docstring (PEP 257); both empty if they make no good pair.

  The summary is one line of 3 to 30 words that ends in a period or precedes a blank line. The body has at least 20
  words and does not contain the summary. Neither is a stub that refers the reader elsewhere.
  """
  first, _, rest = text.partition('\n')
  summary, body = ' '.join(first.split()), inspect.cleandoc(rest)
  alone = summary.endswith('.') or not rest.split('\n', 1)[0].strip()
  sized = SUMMARY_WORDS[0] <= len(summary.split()) <= SUMMARY_WORDS[1] and len(body.split()) >= BODY_WORDS
  if not alone or not sized or not summary[0].isalpha() or not summary.isascii():
    return {}
  if body[0].islower() and not summary.endswith('.'):  # the first line continues in the body
    return {}
  if _STUB.search(summary) or _STUB.match(body) or summary.rstrip('.').lower() in ' '.join(body.split()).lower():
    return {}
  return {'summary': summary, 'body': body}


def split_by_package(docstrings: list[Docstring]) -> dict[str, list[Docstring]]:
  """Splits the docstrings so that no package is in two splits.

  Packages are taken in the order of a hash of their names, first for test, then for validation, until each has a
  twentieth of the characters. A package that would exceed that size by a third is skipped. The rest is for training.
  """
  sizes: dict[str, int] = {}
  for doc in docstrings:
    sizes[doc.package] = sizes.get(doc.package, 0) + len(doc.text)
  wanted = HELD_OUT * sum(sizes.values())
  split_of, filled = {}, {'test': 0, 'validation': 0}
  for package in sorted(sizes, key=_hash):
    for split in filled:
      if filled[split] < wanted and filled[split] + sizes[package] <= 4 / 3 * wanted:
        split_of[package] = split
        filled[split] += sizes[package]
        break
  splits = {split: [] for split in SPLITS}
  for doc in sorted(docstrings, key=lambda doc: _hash(doc.text)):
    splits[split_of.get(doc.package, 'train')].append(doc)
  return splits


def _hash(text: str) -> bytes:
  return hashlib.sha256(text.encode()).digest()
