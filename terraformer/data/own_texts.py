"""The texts of those tasks that are small enough for the memory: the user's files, and docstrings."""

import hashlib
import json

from terraformer.config import DataConfig
from terraformer.data import corpora, local_files
from terraformer.data.progress import bar
from terraformer.data.store import FEATURES, RECORD, SPLITS, Origin, sha256_of

Examples = dict[str, list[dict[str, str]]]  # by split, then by feature, and `record`


def read(config: DataConfig, progress: bool = False) -> tuple[Examples, Origin]:
  """The examples of one of `store.HELD_TASKS`, and what is to be known of them.

  Raises:
    UserError: for whatever is wrong with a user's file.
  """
  if config.task == 'local_files':
    paths = local_files.source_paths(config.local_files)
    examples = local_files.local_files(config.local_files)
    texts = {split: [_texts(example) for example in examples[split]] for split in SPLITS}
    fingerprint = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    return examples, Origin(fingerprint, {str(path): sha256_of(path) for found in paths.values() for path in found})
  with bar(progress, 'mining docstrings', 'file') as shown:
    corpus = corpora.mine(
      progress=lambda done, total: shown.reset(total) if shown.total != total else shown.update(done - shown.n)
    )
  if config.task == 'docstring_summarization':
    read, dropped = corpus.pairs, corpus.dropped
  else:
    read, dropped = corpus.texts, {reason: n for reason, n in corpus.dropped.items() if reason != corpora.NO_PAIR}
  return {split: read(split) for split in SPLITS}, Origin(corpus.fingerprint, dropped=dropped)


def features(config: DataConfig) -> tuple[str, ...]:
  """`inputs` and `targets`, or `targets` alone.

  Raises:
    UserError: as `local_files.source_paths`.
  """
  if config.task != 'local_files':
    return FEATURES if config.task == 'docstring_summarization' else FEATURES[1:]
  is_text = local_files.source_paths(config.local_files)['train'][0].suffix == '.txt'
  return FEATURES[1:] if is_text else tuple(local_files.fields_of(config.local_files))


def training_texts(examples: Examples) -> list[str]:
  """What a vocabulary is trained on."""
  return ['\n'.join(_texts(example).values()) for example in examples['train']]


def _texts(example: dict[str, str]) -> dict[str, str]:
  return {name: text for name, text in example.items() if name != RECORD}
