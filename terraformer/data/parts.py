"""A task is prepared part by part: each is written aside, renamed when it is whole, and kept when the process dies.

A part is a function of the task and its number, so whichever processes write the parts, and however often they die,
what is assembled of them has the same bytes.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from terraformer.config import DataConfig, UserError
from terraformer.data import packing, shards, store
from terraformer.data.objectives import ended
from terraformer.data.store import SPLITS, Manifest
from terraformer.data.vocabulary import Vocabulary

LONGEST = 65_536  # tokens of a feature that are stored, unless the configuration asks for more
_FACTS = 'part.json'


@dataclasses.dataclass(frozen=True)
class Job:
  """What all parts of a task share.

  Attributes:
    folder: where the parts are, until they are assembled.
    config: what is prepared.
    task: a seqio task or mixture.
    run: of the tasks module: the examples of (task, split, part, parts).
    vocabulary: the task's.
    facts: `corpus_fingerprint`, `sources` and `dropped` of the manifest, as far as they are known beforehand.

  Raises:
    UserError: if the task is one of running text that cannot be packed, and is to be.
  """

  folder: Path
  config: DataConfig
  task: Any
  run: Callable[[Any, str, int, int], Iterator[Any]]
  vocabulary: Vocabulary
  facts: dict[str, Any]

  def __post_init__(self):
    if self.config.packing and self.is_text:
      self.config.check_packed_text()

  @property
  def features(self) -> list[str]:
    return sorted(self.task.output_features)

  @property
  def is_text(self) -> bool:
    return 'inputs' not in self.task.output_features

  @property
  def longest(self) -> int:
    """Tokens that a feature of a pair is cut to."""
    return max(LONGEST, self.config.inputs_length, self.config.targets_length)

  def part(self, number: int) -> Path:
    return self.folder / f'part-{number:05d}'

  def missing(self) -> list[int]:
    """Numbers of the parts that are not written yet."""
    return [number for number in range(self.config.parts) if not self.part(number).exists()]


def write_part(job: Job, number: int, progress: bool = True) -> None:
  """Writes a part of every split, unless it is there.

  Raises:
    UserError: in one sentence, for what is wrong with an example.
  """
  final = job.part(number)
  if final.exists():
    return
  aside = Path(tempfile.mkdtemp(prefix=f'{final.name}.', dir=job.folder))
  try:
    _write_splits(job, number, aside, progress)
    aside.rename(final)
  except OSError:
    if not final.exists():  # another process may have been quicker, with the same bytes
      raise
  finally:
    shutil.rmtree(aside, ignore_errors=True)


def _write_splits(job: Job, number: int, folder: Path, progress: bool) -> None:
  counted, n_packed = _Skipped(), 0
  tally = shards.Tally(job.vocabulary.size, job.vocabulary.fingerprint)
  writers = {split: shards.SplitWriter(folder, split) for split in SPLITS}
  for split in SPLITS:
    if split in job.task.splits:
      for tokens, texts in _records(job, split, number, counted, progress):
        record = store.pack(tokens, texts)
        writers[split].add(record, {name: tokens[name] for name in job.features})
        tally.add(split, record)
        if split == 'train':
          tally.count(tokens['targets'], ended=job.is_text or job.config.packing is not None)
          n_packed += packing.n_examples(tokens)
    writers[split].close()
  np.save(folder / store.UNIGRAMS, tally.unigram_counts)
  facts = {
    'examples': {split: writer.examples for split, writer in writers.items()},
    'tokens': {split: writer.tokens for split, writer in writers.items()},
    'packed': n_packed,
    'shards': {split: writer.shards for split, writer in writers.items()},
    'checksums': {name: store.sha256_of(folder / name) for writer in writers.values() for name in writer.shards},
    'dropped': counted.numbers,
    'first_dropped': counted.first,
    'fingerprint': tally.fingerprint,
  }
  (folder / _FACTS).write_text(json.dumps(facts), encoding='utf-8')


class _Skipped:
  """What was left out or cut: how often, and where first."""

  def __init__(self):
    self.numbers, self.first = {'empty': 0, 'features cut': 0}, {}

  def add(self, reason: str, where: str) -> None:
    self.numbers[reason] += 1
    self.first.setdefault(reason, where)


def _records(job: Job, split: str, number: int, skipped: _Skipped, progress: bool) -> Iterator[tuple[dict, dict]]:
  """(tokens, texts) by feature of every record of a split."""
  examples = _examples(job, split, number, skipped, progress)
  if job.is_text:
    length, separates = job.config.window_length, job.config.text_objective.separates
    documents = (tokens['targets'] for tokens, _ in examples)
    # A window of a text that is packed has one document.
    texts = ([document] for document in documents) if job.config.packing else [documents]
    cut = (window for text in texts for window in shards.windows(text, length, separates))
    examples = (({'targets': window}, {}) for window in cut)
  if split == 'train' and job.config.max_examples:
    most, parts = job.config.max_examples, job.config.parts
    examples = shards.evenly(examples, most * (number + 1) // parts - most * number // parts)
  if split == 'train' and job.config.packing:
    examples = ((pack, {}) for pack in _packs(job, (tokens for tokens, _ in examples)))
  yield from examples


def _packs(job: Job, examples: Iterator[packing.Example]) -> Iterator[packing.Example]:
  room = {name: job.config.lengths[name] for name in job.features}
  if not job.is_text:
    examples = ({name: ended(ids, room[name]) for name, ids in tokens.items()} for tokens in examples)
  return map(packing.joined, packing.first_fit(examples, room, job.config.packing.max_segments))


def _examples(job: Job, split: str, number: int, skipped: _Skipped, progress: bool) -> Iterator[tuple[dict, dict]]:
  parts = job.config.parts
  # Of a mixture nobody knows how many examples it has, of a part of a held-out split only its task.
  unknown = hasattr(job.task, 'tasks') or (split != 'train' and parts > 1)
  total = None if unknown else job.task.num_input_examples(split)
  what = f'tokenising {split}' + (f', part {number + 1} of {parts}' if parts > 1 else '')
  examples = bar(progress, what, 'example', job.run(job.task, split, number, parts), total and -(-total // parts))
  # What goes into packs is cut for good; else a feature is cut when it is read.
  packs = split == 'train' and job.config.packing is not None
  most = {name: job.config.lengths[name] - 1 if packs else job.longest for name in job.features}
  for position, example in enumerate(examples):
    where = example.record or f'{split}, part {number}, example {position}'
    if empty := [name for name, ids in example.tokens.items() if not len(ids)]:
      skipped.add('empty', f'{where}: no {" and no ".join(sorted(empty))}')
      continue
    if job.is_text:
      yield example.tokens, {}
      continue
    for name, ids in example.tokens.items():
      if len(ids) > most[name]:
        skipped.add('features cut', f'{where}: {len(ids)} tokens in {name}')
    yield {name: ids[: most[name]] for name, ids in example.tokens.items()}, {} if split == 'train' else example.texts


def assemble(job: Job, folder: Path) -> Manifest:
  """Moves all parts into `folder`, which appears whole or not at all, and removes the job's.

  Raises:
    UserError: if there is no training example.
  """
  found = [json.loads((job.part(number) / _FACTS).read_text('utf-8')) for number in range(job.config.parts)]
  if not any(facts['examples']['train'] for facts in found):
    shutil.rmtree(job.folder)
    raise UserError(f'task {job.config.task}: expected training examples, found none')
  whole = job.folder / 'whole'
  whole.mkdir(exist_ok=True)
  names = {}
  for split in SPLITS:
    files = [(number, name) for number, facts in enumerate(found) for name in facts['shards'][split]]
    for at, (number, name) in enumerate(files):
      final = names[number, name] = f'{split}-{at:05d}-of-{len(files):05d}.array_record'
      if not (whole / final).exists():  # a process that was killed here may have moved it
        (job.part(number) / name).rename(whole / final)
  np.save(whole / store.UNIGRAMS, sum(np.load(job.part(n) / store.UNIGRAMS) for n in range(job.config.parts)))
  (whole / store.VOCABULARY).write_bytes(job.vocabulary.model_bytes)
  manifest = Manifest(
    config=job.config,
    features=job.features,
    examples={split: sum(facts['examples'][split] for facts in found) for split in SPLITS},
    tokens={split: _added(facts['tokens'][split] for facts in found) for split in SPLITS},
    packed=_packed(job, found) if job.config.packing else {},
    shards={
      split: {names[n, name]: size for n, facts in enumerate(found) for name, size in facts['shards'][split].items()}
      for split in SPLITS
    },
    checksums={names[n, name]: sha for n, facts in enumerate(found) for name, sha in facts['checksums'].items()}
    | {store.UNIGRAMS: store.sha256_of(whole / store.UNIGRAMS)},
    vocabulary_size=job.vocabulary.size,
    sentinels=job.vocabulary.sentinels,
    vocabulary_fingerprint=job.vocabulary.fingerprint,
    corpus_fingerprint=job.facts['corpus_fingerprint'],
    sources=job.facts['sources'],
    longest=job.longest,
    dropped=job.facts['dropped'] | _added(facts['dropped'] for facts in found),
    first_dropped={reason: where for facts in reversed(found) for reason, where in facts['first_dropped'].items()},
    fingerprint=_joined([facts['fingerprint'] for facts in found]),
  )
  manifest.write(whole)
  whole.rename(folder)
  shutil.rmtree(job.folder, ignore_errors=True)
  return manifest


def _packed(job: Job, found: list[dict[str, Any]]) -> dict[str, int | float]:
  """What the manifest tells of packs."""
  examples, packs = sum(facts['packed'] for facts in found), sum(facts['examples']['train'] for facts in found)
  tokens = sum(sum(facts['tokens']['train'].values()) for facts in found)
  row = sum(job.config.lengths[name] for name in job.features)
  before, after = (1 - tokens / (row * rows) for rows in (examples, packs))
  return {'examples': examples, 'packs': packs, 'padding_before': before, 'padding_after': after}


def _added(counts: Iterator[dict[str, int]]) -> dict[str, int]:
  total: dict[str, int] = {}
  for some in counts:
    for name, number in some.items():
      total[name] = total.get(name, 0) + number
  return total


def _joined(fingerprints: list[str]) -> str:
  return fingerprints[0] if len(fingerprints) == 1 else hashlib.sha256('\n'.join(fingerprints).encode()).hexdigest()


def bar(progress: bool, what: str, unit: str = 'step', items=None, total: int | None = None) -> tqdm:
  """A progress bar on the standard error; a `step` shows its time alone."""
  return tqdm(
    items,
    desc=what,
    unit=unit,
    total=total,
    disable=not progress,
    bar_format='{desc} [{elapsed}]' if unit == 'step' else None,
    mininterval=0.2 if sys.stderr.isatty() else 10,
  )
