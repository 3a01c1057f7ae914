"""Prepares a task part by part. A part gets its final name when it is complete, and survives if the process dies.

A part is a function of the task and its number. The assembled data have the same bytes, no matter which processes write
the parts and how often they die.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from terraformer import config as config_lib
from terraformer import paths
from terraformer.config import UserError
from terraformer.data import packing, store
from terraformer.data.job import Job
from terraformer.data.records import Skipped, records
from terraformer.data.scoring import Scoring
from terraformer.data.store import SPLITS, Manifest
from terraformer.data.tokenizer import EOS_ID
from terraformer.files import as_os_errors

SHARD_BYTES = 256_000_000
_FACTS = 'part.json'


def write_part(job: Job, number: int, show_progress: bool = True) -> None:
  """Writes a part of every split, unless it exists.

  Raises:
    UserError: if something is wrong with an example.
  """
  final = job.part(number)
  if final.exists():
    return
  aside = Path(tempfile.mkdtemp(prefix=f'{final.name}.', dir=job.folder))
  try:
    _write_splits(job, number, aside, show_progress)
    aside.rename(final)
  except OSError:
    if not final.exists():  # another process may have written the same bytes first
      raise
  finally:
    shutil.rmtree(aside, ignore_errors=True)


def _write_splits(job: Job, number: int, folder: Path, show_progress: bool) -> None:
  counted, n_packed = Skipped(), [0] * len(job.components)
  tally = Tally(len(job.components), job.tokenizer.size, job.tokenizer.fingerprint)
  places = range(len(job.components))
  writers = {split: [ShardWriter(folder, f'{split}-{at}') for at in places] for split in SPLITS}
  for split in SPLITS:
    for at, (component, writer) in enumerate(zip(job.components, writers[split], strict=True)):
      if split in component.task.splits:
        for tokens, texts in records(job, component, split, number, counted, show_progress):
          record = store.pack(tokens, texts)
          writer.add(record, {name: ids for name, ids in tokens.items() if name in store.FEATURES})
          tally.add(split, record)
          if split == 'train':
            tally.count(at, tokens['targets'], ended=component.is_text or job.config.packing is not None)
            n_packed[at] += packing.n_examples(tokens)
      writer.close()
  store.write_array(folder / store.UNIGRAMS, tally.unigram_counts)
  facts = {
    'examples': {split: [writer.examples for writer in writers[split]] for split in SPLITS},
    'tokens': {split: _added(writer.tokens for writer in writers[split]) for split in SPLITS},
    'packed': n_packed,
    'shards': {split: [writer.shards for writer in writers[split]] for split in SPLITS},
    'checksums': {path.name: store.sha256_of(path) for path in sorted(folder.glob('*.array_record'))},
    'dropped': counted.numbers,
    'first_dropped': counted.first,
    'fingerprint': tally.fingerprint,
  }
  (folder / _FACTS).write_text(json.dumps(facts), encoding='utf-8')


def assemble(job: Job, folder: Path) -> Manifest:
  """Moves all parts into `folder`, which appears complete or not at all, and removes the job's folder.

  Raises:
    UserError: if the task, or a task of the mixture, has no training examples.
  """
  found = [json.loads((job.part(number) / _FACTS).read_text('utf-8')) for number in range(job.config.parts)]
  tasks = {}
  for at, component in enumerate(job.components):
    tasks[component.task.name] = {
      'rate': component.rate,
      'examples': {split: sum(facts['examples'][split][at] for facts in found) for split in SPLITS},
      'packed': sum(facts['packed'][at] for facts in found),
      'objective': component.objective and config_lib.to_dict(component.objective),
    }
  for name, task in tasks.items():
    if not task['examples']['train']:
      shutil.rmtree(job.folder)
      raise UserError(f'task {name}: the train split has no examples')
  whole = job.folder / 'whole'
  whole.mkdir(exist_ok=True)
  names, sizes = {}, {}
  for split in SPLITS:
    # In the order of tasks, then of parts.
    files = [
      (number, name, size)
      for at in range(len(job.components))
      for number, facts in enumerate(found)
      for name, size in facts['shards'][split][at].items()
    ]
    for index, (number, name, _) in enumerate(files):
      final = names[number, name] = f'{split}-{index:05d}-of-{len(files):05d}.array_record'
      if not (whole / final).exists():  # a process that was killed here may have moved it already
        (job.part(number) / name).rename(whole / final)
    sizes[split] = {names[number, name]: size for number, name, size in files}
  store.write_array(whole / store.UNIGRAMS, sum(np.load(job.part(n) / store.UNIGRAMS) for n in range(job.config.parts)))
  (whole / store.VOCABULARY).write_bytes(job.tokenizer.model_bytes)
  manifest = Manifest(
    config=job.config,
    features=sorted(job.features),
    tasks=tasks,
    examples={split: sum(task['examples'][split] for task in tasks.values()) for split in SPLITS},
    tokens={split: _added(facts['tokens'][split] for facts in found) for split in SPLITS},
    packed=_packed(job, tasks, found) if job.config.packing else {},
    shards=sizes,
    checksums={names[n, name]: sha for n, facts in enumerate(found) for name, sha in facts['checksums'].items()}
    | {store.UNIGRAMS: store.sha256_of(whole / store.UNIGRAMS)},
    vocabulary_size=job.tokenizer.size,
    sentinels=job.tokenizer.sentinels,
    vocabulary_fingerprint=job.tokenizer.fingerprint,
    corpus_fingerprint=job.origin.corpus_fingerprint,
    sources=job.origin.sources,
    longest=job.longest,
    dropped=job.origin.dropped | _added(facts['dropped'] for facts in found),
    first_dropped={reason: where for facts in reversed(found) for reason, where in facts['first_dropped'].items()}
    | job.origin.first_dropped,
    fingerprint=_joined([facts['fingerprint'] for facts in found] + ([json.dumps(tasks)] if len(tasks) > 1 else [])),
    scoring={one.task.name: dataclasses.asdict(one.scoring) for one in job.components if one.scoring != Scoring()},
  )
  manifest.write(whole)
  whole.rename(folder)
  shutil.rmtree(job.folder, ignore_errors=True)
  return manifest


def _packed(job: Job, tasks: dict[str, dict], found: list[dict[str, Any]]) -> dict[str, int | float]:
  """Returns the entry of the manifest about packs."""
  examples = sum(task['packed'] for task in tasks.values())
  packs = sum(task['examples']['train'] for task in tasks.values())
  tokens = sum(sum(facts['tokens']['train'].values()) for facts in found)
  row = sum(job.config.lengths[name] for name in job.features)
  before, after = (1 - tokens / (row * rows) for rows in (examples, packs))
  return {'examples': examples, 'packs': packs, 'padding_before': before, 'padding_after': after}


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
  total: dict[str, int] = {}
  for some in counts:
    for name, number in some.items():
      total[name] = total.get(name, 0) + number
  return total


def _joined(fingerprints: list[str]) -> str:
  return fingerprints[0] if len(fingerprints) == 1 else hashlib.sha256('\n'.join(fingerprints).encode()).hexdigest()


class ShardWriter:
  """Writes records into shards; their names share a prefix, and contain the number of shards after `close`.

  Attributes:
    examples: number of records so far.
    tokens: number of tokens so far, by feature.
    shards: size in bytes by file name, after `close`.
  """

  def __init__(self, folder: Path, name: str, shard_bytes: int = SHARD_BYTES):
    self._folder, self._name, self._shard_bytes = folder, name, shard_bytes
    self._paths: list[Path] = []
    self._writer, self._written = None, 0
    self.examples, self.tokens, self.shards = 0, {}, {}

  def add(self, record: bytes, tokens: dict[str, np.ndarray]) -> None:
    if self._writer is None:
      self._paths.append(self._folder / f'{self._name}-{len(self._paths):05d}.array_record')
      self._writer, self._written = ArrayRecordWriter(str(paths.plain(self._paths[-1])), 'group_size:1,zstd:1'), 0
    with as_os_errors():
      self._writer.write(record)
    self._written += len(record)
    self.examples += 1
    for name, ids in tokens.items():
      self.tokens[name] = self.tokens.get(name, 0) + len(ids)
    if self._written >= self._shard_bytes:
      self._end_shard()

  def _end_shard(self) -> None:
    if self._writer is not None:
      with as_os_errors():
        self._writer.close()
      self._writer = None

  def close(self) -> None:
    self._end_shard()
    for number, path in enumerate(self._paths):
      final = path.with_name(f'{self._name}-{number:05d}-of-{len(self._paths):05d}.array_record')
      path.rename(final)
      self.shards[final.name] = final.stat().st_size


class Tally:
  """Counts over all splits: the unigrams of each task's training targets, and a fingerprint of all records."""

  def __init__(self, n_tasks: int, vocabulary_size: int, vocabulary_fingerprint: str):
    self.unigram_counts = np.zeros((n_tasks, vocabulary_size), np.int64)
    self._digest = hashlib.sha256(vocabulary_fingerprint.encode())

  def count(self, task: int, targets: np.ndarray, ended: bool) -> None:
    """Counts a training record; unless it is `ended`, also counts its end of sequence, which is not stored."""
    counts_V = self.unigram_counts[task]
    counts_V += np.bincount(targets, minlength=len(counts_V))
    counts_V[EOS_ID] += not ended

  def add(self, split: str, record: bytes) -> None:
    self._digest.update(f'{split} {len(record)}\n'.encode())
    self._digest.update(record)

  @property
  def fingerprint(self) -> str:
    return self._digest.hexdigest()
