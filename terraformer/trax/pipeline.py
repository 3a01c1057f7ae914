"""How the authors' input pipeline made examples of texts, as a `config.gin` states it."""

import dataclasses
from typing import Any

from terraformer.trax.gin_values import GinValues

_SECTIONS_OF_IDS = ('Tokenize', 'tokenize')
_USUAL_LENGTH = 512  # where neither the file nor the checkpoint says


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """What becomes of a pair of texts.

  Attributes:
    inputs_length, targets_length: tokens of sources and targets, as `DataConfig` has them.
    inputs_eos: whether a source ends in an end of sequence.
    reserved_ids: by which the ids of subwords are shifted; None if the file does not say.
  """

  inputs_length: int
  targets_length: int
  inputs_eos: bool
  reserved_ids: int | None


def read_pipeline(gin: GinValues, lengths: tuple[int, int] | None, max_length: int) -> Pipeline:
  """Returns the pipeline of a file.

  Sources and targets are padded to a length, and cut before so that an end of sequence fits. A file that appends
  nothing to sources, or padding, has sources without an end of sequence.

  Args:
    gin: the file.
    lengths: of sources and targets that the checkpoint was written with; None if it does not say.
    max_length: positions that the model has.
  """
  padded, cut = gin.anywhere('PadToLength', 'len_map'), gin.anywhere('TruncateToLength', 'len_map')
  found = []
  for feature in (0, 1):
    known = lengths[feature] if lengths else _USUAL_LENGTH
    length = _whole(_entry(padded, feature)) or known
    if shorter := _whole(_entry(cut, feature)):
      length = min(length, shorter + 1)
    found.append(max(2, min(length, max_length)))
  reserved = [gin.anywhere(section, 'n_reserved_ids') for section in _SECTIONS_OF_IDS]
  return Pipeline(
    *found,
    inputs_eos=_entry(gin.anywhere('AppendValue', 'val'), 0) == [1],
    reserved_ids=next((each for each in map(_whole, reserved) if each is not None), None),
  )


def _entry(value: Any, feature: int) -> Any:
  return value.get(feature) if isinstance(value, dict) else None


def _whole(value: Any) -> int | None:
  """A whole number, or the only one of a tuple."""
  if isinstance(value, (list, tuple)) and len(value) == 1:
    value = value[0]
  return value if type(value) is int and value >= 0 else None
