"""`config.json` of a bundle, which describes its model, vocabulary and weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from terraformer.config import ModelConfig, UserError, from_dict, to_dict, unreadable
from terraformer.config.words import newer
from terraformer.decode.storage import DTYPES

FORMAT = 5
_BEFORE_PANELS = 4  # all tensors are plain arrays; those that are read by row may be bfloat16
_NAMES = {dict: 'an object', bool: 'true or false', int: 'a whole number', str: 'a string'}


@dataclasses.dataclass(frozen=True)
class Header:
  """The content of `config.json`.

  Attributes:
    model: the model's configuration.
    dtype: type of the weights, one of `storage.DTYPES`.
    layouts: parameter name -> layout as JSON, except for plain float32 arrays; None before format 5.
    sentinels, fingerprint: number of sentinels and fingerprint of the vocabulary.
    inputs_length, targets_length: maximum numbers of tokens in training; `inputs_length` is 0 for a language model that
      continues a prompt.
    origin: where the weights come from: step, gin text and fingerprints, or other JSON values.
    checksums: tensor name -> CRC-32 of its bytes.
    inputs_eos: whether a source ends in an end of sequence.
  """

  model: ModelConfig
  dtype: str
  layouts: dict[str, Any] | None
  sentinels: int
  fingerprint: str
  inputs_length: int
  targets_length: int
  origin: dict[str, Any]
  checksums: dict[str, int]
  inputs_eos: bool = True


def write_header(path: Path, header: Header) -> None:
  """Writes the header as JSON."""
  values = {
    'format': FORMAT,
    'model': to_dict(header.model),
    'dtype': header.dtype,
    'layouts': header.layouts,
    'vocabulary': {'sentinels': header.sentinels, 'fingerprint': header.fingerprint},
    'inputs_length': header.inputs_length,
    'targets_length': header.targets_length,
    'origin': header.origin,
    'checksums': header.checksums,
  }
  if not header.inputs_eos:  # an entry that most bundles do not have
    values['inputs_eos'] = False
  path.write_text(json.dumps(values, indent=2) + '\n', encoding='utf-8')


def read_header(path: Path) -> Header:
  """Returns the header that `write_header` wrote.

  Raises:
    UserError: if the file is not JSON or of another format, or a field is missing or invalid.
  """
  values = _read_json(path)
  found = values.get('format')
  if type(found) is not int:
    raise UserError(f'{path} has no format number; it does not belong to a bundle')
  if found > FORMAT:
    raise UserError(newer(path, 'bundle format', FORMAT, found))
  if found not in (FORMAT, _BEFORE_PANELS):
    raise UserError(f'{path}: expected bundle format {FORMAT} or {_BEFORE_PANELS}, found {found}; export it again')
  vocabulary = _field(path, values, 'vocabulary', dict)
  try:
    model = from_dict(_field(path, values, 'model', dict))
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  if not isinstance(model, ModelConfig):
    raise UserError(f"{path}: expected a model's configuration in the field 'model', found {type(model).__name__}")
  inputs_length = _within(path, values, 'inputs_length', int(model.needs_source), model.max_length)
  targets_length = _within(path, values, 'targets_length', 1, model.max_length)
  if model.positions_for(inputs_length, targets_length) > model.max_length:
    raise UserError(
      f"{path}: inputs_length ({inputs_length}) and targets_length ({targets_length}) exceed the model's positions "
      f'({model.max_length})'
    )
  if found == _BEFORE_PANELS:
    dtype, layouts = 'bfloat16' if _field(path, values, 'bfloat16', bool) else 'float32', None
  else:
    dtype, layouts = _field(path, values, 'dtype', str), _field(path, values, 'layouts', dict)
    if dtype not in DTYPES:
      raise UserError(f"{path}: expected one of {', '.join(DTYPES)} in the field 'dtype', found {dtype!r:.40}")
  return Header(
    model=model,
    dtype=dtype,
    layouts=layouts,
    sentinels=_within(path, vocabulary, 'sentinels', 0, model.vocab_size),
    fingerprint=_field(path, vocabulary, 'fingerprint', str),
    inputs_length=inputs_length,
    targets_length=targets_length,
    origin=_field(path, values, 'origin', dict),
    checksums=_field(path, values, 'checksums', dict),
    inputs_eos=_field(path, {'inputs_eos': True} | values, 'inputs_eos', bool),
  )


def _read_json(path: Path) -> dict[str, Any]:
  try:
    values = json.loads(path.read_text(encoding='utf-8'))
  except OSError as error:
    raise unreadable(path, error) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is not valid JSON: {error}') from error
  if not isinstance(values, dict):
    raise UserError(f'{path}: expected a JSON object, found {values!r:.80}')
  return values


def _field(path: Path, values: dict[str, Any], name: str, kind: type) -> Any:
  if name not in values:
    raise UserError(f'{path}: the field {name!r} is missing')
  if type(values[name]) is not kind:
    raise UserError(f'{path}: expected {_NAMES[kind]} in the field {name!r}, found {values[name]!r:.80}')
  return values[name]


def _within(path: Path, values: dict[str, Any], name: str, least: int, most: int) -> int:
  value = _field(path, values, name, int)
  if not least <= value <= most:
    raise UserError(f'{path}: expected {least} to {most} in the field {name!r}, found {value}')
  return value
