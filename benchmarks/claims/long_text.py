"""Long texts that are on every machine: the docstrings of a module in one document."""

import itertools
import json
from pathlib import Path

from terraformer.data.docstrings import Docstring, mine
from terraformer.files import write_whole

_LEAST_CHARACTERS = 6000  # of a document; about 2,000 tokens
_DEPTH = 3  # parts of the dotted name that documents share


def write_long_text(folder: Path) -> None:
  """Writes `train.jsonl` and `validation.jsonl`, one document per line, unless they exist.

  A document is the docstrings of a module in the order of their names, so that a later part often repeats words of a
  much earlier one. No package is in both splits.
  """
  if (folder / 'validation.jsonl').exists():  # written last
    return
  folder.mkdir(parents=True, exist_ok=True)
  splits = mine().splits
  for split in ('train', 'validation'):
    lines = [json.dumps({'targets': text}) + '\n' for text in documents(splits[split])]
    write_whole(folder / f'{split}.jsonl', ''.join(lines).encode())


def documents(docstrings: list[Docstring]) -> list[str]:
  """Returns the long documents that docstrings make, in the order of their names."""
  in_order = sorted(docstrings, key=lambda doc: (doc.name, doc.text))
  together = itertools.groupby(in_order, lambda doc: doc.name.split('.')[:_DEPTH])
  texts = ('\n\n'.join(f'{doc.name}\n{doc.text}' for doc in group) for _, group in together)
  return [text for text in texts if len(text) >= _LEAST_CHARACTERS]
