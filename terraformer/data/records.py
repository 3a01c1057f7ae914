"""Turns the examples of a task into the records of a part, and counts examples that are omitted or cut."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from terraformer.config import UserError
from terraformer.data import leaks, packing
from terraformer.data.job import Component, Job
from terraformer.data.objectives import append_eos
from terraformer.data.report import bar
from terraformer.data.store import FEATURES
from terraformer.data.tokenizer import EOS_ID

T = TypeVar('T')

_REASONS = ('empty', 'features cut', 'windows of one token', 'beyond max_examples')


class Skipped:
  """Counts of omitted or cut examples.

  Attributes:
    numbers: count by reason.
    first: location of the first case by reason.
  """

  def __init__(self):
    self.numbers, self.first = dict.fromkeys(_REASONS, 0), {}

  def add(self, reason: str, where: str) -> None:
    self.numbers[reason] = self.numbers.get(reason, 0) + 1
    self.first.setdefault(reason, where)


@dataclasses.dataclass(frozen=True)
class _Example:
  """Tokens and texts by feature, and the location of the example."""

  tokens: dict[str, np.ndarray]
  texts: dict[str, str]
  where: str


def records(
  job: Job, component: Component, split: str, number: int, skipped: Skipped, show_progress: bool
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, str]]]:
  """Yields (tokens, texts) by feature for every record in a part of a split.

  Raises:
    UserError: if something is wrong with an example.
  """
  config, examples = job.config_of(component), _examples(job, component, split, number, skipped, show_progress)
  is_train = split == 'train'
  if component.is_text:
    examples = _windows(job, component, examples, f'{split}, part {number}', skipped)
  if is_train and config.max_examples:
    most, parts = config.max_examples, config.parts
    examples, count = evenly(examples, most * (number + 1) // parts - most * number // parts)
    skipped.numbers['beyond max_examples'] += count - len(examples)
  # Examples are cut permanently only if they are packed; otherwise features are cut when they are read.
  packs = is_train and config.packing is not None
  if not component.is_text:
    most = {name: config.lengths[name] - 1 if packs else job.longest for name in FEATURES}
    examples = (_cut(example, most, skipped) for example in examples)
  if packs:
    yield from ((pack, {}) for pack in _packs(job, component, (example.tokens for example in examples)))
  else:
    yield from ((example.tokens, {} if is_train else example.texts) for example in examples)


def _examples(
  job: Job, component: Component, split: str, number: int, skipped: Skipped, show_progress: bool
) -> Iterator[_Example]:
  """Yields the examples that have tokens in every feature."""
  parts, task = job.config.parts, component.task
  # Only the task itself knows how many examples a part of a held-out split has.
  total = None if split != 'train' and parts > 1 else task.num_input_examples(split)
  of_task = f' of {task.name}' if len(job.components) > 1 else ''
  what = f'tokenizing {split}{of_task}' + (f', part {number + 1} of {parts}' if parts > 1 else '')
  examples = bar(show_progress, what, 'example', job.run(task, split, number, parts), total and -(-total // parts))
  for position, example in enumerate(examples):
    where = example.record or f'{split}{of_task}, part {number}, example {position}'
    if empty := [name for name, ids in example.tokens.items() if not len(ids)]:
      skipped.add('empty', f'{where}: no {" and no ".join(sorted(empty))}')
      continue
    for name, ids in example.tokens.items():
      least, most = ids.min(), ids.max()
      if least < 0 or most >= job.tokenizer.size:
        found = least if least < 0 else most
        raise UserError(f'{where}: expected ids from 0 to {job.tokenizer.size - 1} in {name}, found {found}')
    if split == 'train' and job.held_out and leaks.key(example.texts) in job.held_out:
      skipped.add('held out as well', where)
    yield _Example(example.tokens, example.texts, where)


def _windows(
  job: Job, component: Component, examples: Iterator[_Example], where: str, skipped: Skipped
) -> Iterator[_Example]:
  """Concatenates documents and cuts them into windows; if text is packed, each window has one document."""
  config = job.config_of(component)
  objective, length = config.text_objective, config.window_length
  documents = (example.tokens['targets'] for example in examples)
  for text in ([document] for document in documents) if config.packing else [documents]:
    for window in windows(text, length, objective.separates):
      if len(window) < objective.least_window:
        skipped.add('windows of one token', f'{where}: at the end')
      else:
        yield _Example({'targets': window}, {}, where)


def _cut(example: _Example, most: dict[str, int], skipped: Skipped) -> _Example:
  for name, ids in example.tokens.items():
    if len(ids) > most[name]:
      skipped.add('features cut', f'{example.where}: {len(ids)} tokens in {name}')
  return dataclasses.replace(example, tokens={name: ids[: most[name]] for name, ids in example.tokens.items()})


def _packs(job: Job, component: Component, examples: Iterator[packing.Example]) -> Iterator[packing.Example]:
  room = {name: job.config.lengths[name] for name in component.task.output_features}
  if not component.is_text:
    examples = ({name: append_eos(ids, room[name]) for name, ids in tokens.items()} for tokens in examples)
  return map(packing.joined, packing.first_fit(examples, room, job.config.packing.max_segments))


def windows(documents: Iterable[np.ndarray], length: int, separate: bool = True) -> Iterator[np.ndarray]:
  """Yields windows of `length` tokens of concatenated documents; if `separate`, an end of sequence follows each.

  The last window may be shorter.
  """
  rest, held = [], 0
  for document in documents:
    rest.append((np.append(document, EOS_ID) if separate else document).astype(np.int32))
    held += len(rest[-1])
    if held >= length:
      joined = np.concatenate(rest)
      for start in range(0, held - length + 1, length):
        yield joined[start : start + length]
      rest = [joined[held - held % length :]]
      held %= length
  if held:
    yield np.concatenate(rest)


def evenly(items: Iterable[T], most: int) -> tuple[list[T], int]:
  """Returns at most `most` items, evenly spaced and in order, and the total number of items.

  It never holds more than twice as many items as it returns.
  """
  kept, stride, count = [], 1, 0
  for item in items:
    if most and count % stride == 0:
      kept.append(item)
      if len(kept) == 2 * most:
        kept, stride = kept[::2], 2 * stride
    count += 1
  return (kept if len(kept) <= most else [kept[i * len(kept) // most] for i in range(most)]), count
