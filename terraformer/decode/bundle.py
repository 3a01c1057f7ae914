"""The bundle: a folder with all that decoding needs.

`config.json` (format, model, vocabulary, where it comes from), `model.safetensors` (one tensor a parameter, the layers
taken apart; of large models several files) and `vocabulary.model` (sentencepiece).
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from terraformer.config import ModelConfig, UserError, from_dict, to_dict
from terraformer.data.vocabulary import Vocabulary
from terraformer.decode.tensors import map_tensors, tensor_files, write_tensors
from terraformer.models.make import abstract_model, unroll
from terraformer.models.parameters import Params, describe, flatten, merge, split, unflatten

FORMAT = 2
_FILES = {'config.json', 'vocabulary.model'}


@dataclasses.dataclass(frozen=True)
class Bundle:
  """An open bundle.

  Attributes:
    model: its configuration.
    weights: nested dicts of arrays, layers apart, mapped from the files.
    vocabulary: its tokens.
    inputs_length, targets_length: tokens that the model was trained on.
    origin: where it comes from, as it was written.
  """

  model: ModelConfig
  weights: Params
  vocabulary: Vocabulary
  inputs_length: int
  targets_length: int
  origin: dict[str, Any]


def abstract_unrolled(config: ModelConfig):
  """The decoder's form of a model, with shapes in the place of arrays."""
  return jax.eval_shape(unroll, abstract_model(config))


def write_bundle(
  output: Path,
  model: ModelConfig,
  params: Params,
  vocabulary: Vocabulary,
  inputs_length: int,
  targets_length: int,
  origin: dict[str, Any],
) -> None:
  """Writes a bundle; the folder appears whole or not at all.

  Args:
    output: a folder that does not exist, or holds a bundle that is replaced.
    model: the configuration.
    params: of the trained model, layers stacked.
    vocabulary: its tokens.
    inputs_length, targets_length: tokens that it was trained on.
    origin: JSON values to keep: step, gin text, fingerprints.

  Raises:
    UserError: if `output` holds anything but a bundle, or cannot be written.
  """
  output = Path(output).absolute()
  model = dataclasses.replace(model, bfloat16=False)  # which a CPU is slow at; the parameters are float32 anyway
  _require_replaceable(output)
  structure, _ = split(abstract_model(model))
  _, weights = split(unroll(merge(structure, params)))
  tensors = flatten(weights)
  config = {
    'format': FORMAT,
    'model': to_dict(model),
    'vocabulary': {'sentinels': vocabulary.sentinels, 'fingerprint': vocabulary.fingerprint},
    'inputs_length': inputs_length,
    'targets_length': targets_length,
    'origin': origin,
  }
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{output.name}-', dir=output.parent) as folder:
      new, replaced = Path(folder) / 'new', Path(folder) / 'replaced'
      new.mkdir()
      write_tensors(new, tensors, lambda name: np.asarray(tensors[name]))
      (new / 'vocabulary.model').write_bytes(vocabulary.model_bytes)
      (new / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
      try:
        if output.exists():
          output.rename(replaced)
        new.rename(output)
      finally:
        if replaced.exists() and not output.exists():  # interrupted between the two: the old one comes back
          replaced.rename(output)
  except OSError as error:
    raise UserError(f'{output}: expected a folder that can be written, found {error.strerror.lower()}') from error


def _require_replaceable(output: Path) -> None:
  """Only an empty folder, or one with a bundle's files and no others, makes way."""
  if not output.exists():
    return
  if not output.is_dir():
    raise UserError(f'{output}: expected a bundle to replace or a new folder, found a file')
  names = [path.name for path in output.iterdir()]
  others = sorted({*names} - _FILES - {*tensor_files(names)})
  if others:
    raise UserError(f'{output}: expected a bundle to replace or a new folder, found one with {others[0]}')


def open_bundle(path: Path) -> Bundle:
  """Reads a bundle.

  Raises:
    UserError: if it is missing, of another format, or its files are damaged or do not belong together.
  """
  path = Path(path)
  config = _read_config(path)
  try:
    model = from_dict(config['model'])
    sentinels, fingerprint = config['vocabulary']['sentinels'], config['vocabulary']['fingerprint']
    lengths = config['inputs_length'], config['targets_length']
    origin = config['origin']
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path / "config.json"}: expected the fields of a bundle, found no {error}') from error
  except UserError as error:
    raise UserError(f'{path / "config.json"}: {error}') from error
  weights = _map_weights(path, model)
  vocabulary = Vocabulary.open(path / 'vocabulary.model', sentinels)
  if vocabulary.fingerprint != fingerprint:
    raise UserError(f'{path / "vocabulary.model"}: expected the vocabulary of config.json, found another')
  return Bundle(model, weights, vocabulary, *lengths, origin)


def _read_config(path: Path) -> dict[str, Any]:
  if not path.is_dir():
    raise UserError(f'{path}: expected the folder of a bundle, found {"a file" if path.exists() else "nothing"}')
  try:
    config = json.loads((path / 'config.json').read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(f'{path}: expected a bundle, found a folder without config.json') from None
  except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
    raise UserError(f'{path / "config.json"}: expected JSON, found {error}') from error
  found = config.get('format') if isinstance(config, dict) else None
  if found != FORMAT:
    raise UserError(f'{path}: expected a bundle of format {FORMAT}, found format {found}; export it again')
  return config


def _map_weights(path: Path, model: ModelConfig) -> Params:
  expected = flatten(split(abstract_unrolled(model))[1])
  tensors = map_tensors(path)
  for name, shape in expected.items():
    found = tensors.pop(name, None)
    if describe(found) != describe(shape):
      raise UserError(f'{path}: expected the tensor {name} of {describe(shape)}, found {describe(found)}')
    expected[name] = found
  if tensors:
    raise UserError(f'{path}: expected the tensors of config.json alone, found {min(tensors)} as well')
  return unflatten(expected)
