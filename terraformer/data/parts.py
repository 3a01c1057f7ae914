"""A task is prepared part by part: each is written aside, renamed when it is whole, and kept when the process dies.

A part is a function of the task and its number, so whichever processes write the parts, and however often they die,
what is assembled of them has the same bytes.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terraformer import config as config_lib
from terraformer.config import DataConfig, UserError
from terraformer.config.objectives import ObjectiveConfig
from terraformer.data import packing, shards, store
from terraformer.data.objectives import ended
from terraformer.data.progress import bar
from terraformer.data.store import SPLITS, Manifest, Origin
from terraformer.data.vocabulary import Vocabulary

LONGEST = 65_536  # tokens of a feature that are stored, unless the configuration asks for more
_FACTS = 'part.json'


@dataclasses.dataclass(frozen=True)
class Component:
  """A task of a mixture, or one alone.

  Attributes:
    task: a seqio task, which does the same every time.
    rate: of the mixture.
    objective: what its text trains when it is read, of a task that gives documents where the others give pairs.
  """

  task: Any
  rate: float = 1.0
  objective: ObjectiveConfig | None = None

  @property
  def is_text(self) -> bool:
    """Whether its records are windows of running text."""
    return 'inputs' not in self.task.output_features


@dataclasses.dataclass(frozen=True)
class Job:
  """What all parts of a task share.

  Attributes:
    folder: where the parts are, until they are assembled.
    config: what is prepared.
    components: of the mixture, or the task alone.
    features: of its examples when they are read.
    run: of the tasks module: the examples of (task, split, part, parts).
    vocabulary: the tasks'.
    origin: what is known of the text beforehand.

  Raises:
    UserError: if the task is one of running text that cannot be packed, and is to be, or whose spans want more
      sentinels than the vocabulary has.
  """

  folder: Path
  config: DataConfig
  components: Sequence[Component]
  features: Sequence[str]
  run: Callable[[Any, str, int, int], Iterator[Any]]
  vocabulary: Vocabulary
  origin: Origin

  def __post_init__(self):
    for component in self.components:
      if component.is_text:
        config = self.config_of(component)
        lengths = config.inputs_length, config.targets_length
        config.text_objective.check_lengths(*lengths, self.vocabulary.sentinels)
        if config.packing:
          config.check_packed_text()

  def config_of(self, component: Component) -> DataConfig:
    return self.config.with_objective(component.objective)

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
  counted, n_packed = _Skipped(), [0] * len(job.components)
  tally = shards.Tally(len(job.components), job.vocabulary.size, job.vocabulary.fingerprint)
  places = range(len(job.components))
  writers = {split: [shards.ShardWriter(folder, f'{split}-{at}') for at in places] for split in SPLITS}
  for split in SPLITS:
    for at, (component, writer) in enumerate(zip(job.components, writers[split], strict=True)):
      if split in component.task.splits:
        for tokens, texts in _records(job, component, split, number, counted, progress):
          record = store.pack(tokens, texts)
          writer.add(record, {name: ids for name, ids in tokens.items() if name in store.FEATURES})
          tally.add(split, record)
          if split == 'train':
            tally.count(at, tokens['targets'], ended=component.is_text or job.config.packing is not None)
            n_packed[at] += packing.n_examples(tokens)
      writer.close()
  np.save(folder / store.UNIGRAMS, tally.unigram_counts)
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


class _Skipped:
  """What was left out or cut: how often, and where first."""

  def __init__(self):
    self.numbers, self.first = {'empty': 0, 'features cut': 0, 'beyond max_examples': 0}, {}

  def add(self, reason: str, where: str) -> None:
    self.numbers[reason] += 1
    self.first.setdefault(reason, where)


def _records(
  job: Job, component: Component, split: str, number: int, skipped: _Skipped, progress: bool
) -> Iterator[tuple[dict, dict]]:
  """(tokens, texts) by feature of every record of a split."""
  config, examples = job.config_of(component), _examples(job, component, split, number, skipped, progress)
  if component.is_text:
    length, separates = config.window_length, config.text_objective.separates
    documents = (tokens['targets'] for tokens, _ in examples)
    # A window of a text that is packed has one document.
    texts = ([document] for document in documents) if config.packing else [documents]
    cut = (window for text in texts for window in shards.windows(text, length, separates))
    examples = (({'targets': window}, {}) for window in cut)
  if split == 'train' and config.max_examples:
    most, parts = config.max_examples, config.parts
    examples, count = shards.evenly(examples, most * (number + 1) // parts - most * number // parts)
    skipped.numbers['beyond max_examples'] += count - len(examples)
  if split == 'train' and config.packing:
    examples = ((pack, {}) for pack in _packs(job, component, (tokens for tokens, _ in examples)))
  yield from examples


def _packs(job: Job, component: Component, examples: Iterator[packing.Example]) -> Iterator[packing.Example]:
  room = {name: job.config.lengths[name] for name in component.task.output_features}
  if not component.is_text:
    examples = ({name: ended(ids, room[name]) for name, ids in tokens.items()} for tokens in examples)
  return map(packing.joined, packing.first_fit(examples, room, job.config.packing.max_segments))


def _examples(
  job: Job, component: Component, split: str, number: int, skipped: _Skipped, progress: bool
) -> Iterator[tuple[dict, dict]]:
  parts, task = job.config.parts, component.task
  # Nobody knows how many examples a part of a held-out split has, but its task.
  total = None if split != 'train' and parts > 1 else task.num_input_examples(split)
  of_task = f' of {task.name}' if len(job.components) > 1 else ''
  what = f'tokenising {split}{of_task}' + (f', part {number + 1} of {parts}' if parts > 1 else '')
  examples = bar(progress, what, 'example', job.run(task, split, number, parts), total and -(-total // parts))
  # What goes into packs is cut for good; else a feature is cut when it is read.
  packs = split == 'train' and job.config.packing is not None
  most = {name: job.config.lengths[name] - 1 if packs else job.longest for name in store.FEATURES}
  for position, example in enumerate(examples):
    where = example.record or f'{split}{of_task}, part {number}, example {position}'
    if empty := [name for name, ids in example.tokens.items() if not len(ids)]:
      skipped.add('empty', f'{where}: no {" and no ".join(sorted(empty))}')
      continue
    if component.is_text:
      yield example.tokens, {}
      continue
    for name, ids in example.tokens.items():
      if len(ids) > most[name]:
        skipped.add('features cut', f'{where}: {len(ids)} tokens in {name}')
    yield {name: ids[: most[name]] for name, ids in example.tokens.items()}, {} if split == 'train' else example.texts


def assemble(job: Job, folder: Path) -> Manifest:
  """Moves all parts into `folder`, which appears whole or not at all, and removes the job's.

  Raises:
    UserError: if there is no training example, of a mixture if one of its tasks has none.
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
      raise UserError(f'task {name}: expected training examples, found none')
  whole = job.folder / 'whole'
  whole.mkdir(exist_ok=True)
  names, sizes = {}, {}
  for split in SPLITS:
    # Task after task, and of each part after part.
    files = [
      (number, name, size)
      for at in range(len(job.components))
      for number, facts in enumerate(found)
      for name, size in facts['shards'][split][at].items()
    ]
    for place, (number, name, _) in enumerate(files):
      final = names[number, name] = f'{split}-{place:05d}-of-{len(files):05d}.array_record'
      if not (whole / final).exists():  # a process that was killed here may have moved it
        (job.part(number) / name).rename(whole / final)
    sizes[split] = {names[number, name]: size for number, name, size in files}
  np.save(whole / store.UNIGRAMS, sum(np.load(job.part(n) / store.UNIGRAMS) for n in range(job.config.parts)))
  (whole / store.VOCABULARY).write_bytes(job.vocabulary.model_bytes)
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
    vocabulary_size=job.vocabulary.size,
    sentinels=job.vocabulary.sentinels,
    vocabulary_fingerprint=job.vocabulary.fingerprint,
    corpus_fingerprint=job.origin.corpus_fingerprint,
    sources=job.origin.sources,
    longest=job.longest,
    dropped=job.origin.dropped | _added(facts['dropped'] for facts in found),
    first_dropped={reason: where for facts in reversed(found) for reason, where in facts['first_dropped'].items()}
    | job.origin.first_dropped,
    fingerprint=_joined([facts['fingerprint'] for facts in found] + ([json.dumps(tasks)] if len(tasks) > 1 else [])),
  )
  manifest.write(whole)
  whole.rename(folder)
  shutil.rmtree(job.folder, ignore_errors=True)
  return manifest


def _packed(job: Job, tasks: dict[str, dict], found: list[dict[str, Any]]) -> dict[str, int | float]:
  """What the manifest tells of packs."""
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
