"""The bundle: a folder with all that decoding needs.

It holds `config.json` (format, model, vocabulary, origin and storage layouts), `model.safetensors` (the parameters of
each layer in the layouts of `decode.stored`; several files for a large model) and `vocabulary.model` (sentencepiece).
"""

import dataclasses
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import ModelConfig, UserError, refused
from terraformer.data.tokenizer import Tokenizer
from terraformer.decode.header import Header, read_header, write_header
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts
from terraformer.decode.storage import layouts_before_panels, layouts_for
from terraformer.decode.stored import ArrayLayout, Layout, from_json, to_json
from terraformer.decode.tensors import checksum, files_of, map_tensors, tensor_files, write_tensors
from terraformer.models.parameters import Params, describe, flatten, split_module, unflatten
from terraformer.paths import make_folder, target_of

# The checksums of a bundle of at most this many bytes are always verified when it is opened.
_VERIFIED_BYTES = 1 << 28
_FILES = {'config.json', 'vocabulary.model'}
FILE_PATTERNS = (*sorted(_FILES), 'model.safetensors', 'model*.safetensors', 'model.safetensors.index.json')
# Bundles that come with the package, each with a model card next to it.
SHIPPED = Path(__file__).parents[1] / 'pretrained'


@dataclasses.dataclass(frozen=True)
class Content:
  """The content of a bundle except its weights.

  Attributes:
    model, tokenizer, inputs_length, targets_length, origin: as in `Bundle`; the origin holds the step, the gin text and
      fingerprints, or other JSON values.
    dtype: type of the weights, one of `storage.DTYPES`.
    inputs_eos: as in `Bundle`.
  """

  model: ModelConfig
  tokenizer: Tokenizer
  inputs_length: int
  targets_length: int
  origin: dict[str, Any]
  dtype: str = 'float32'
  inputs_eos: bool = True


@dataclasses.dataclass(frozen=True)
class Bundle:
  """An open bundle.

  Attributes:
    model: the model's configuration.
    weights: nested dicts of arrays and other values of `decode.stored`, for each layer, mapped from the files.
    tokenizer: the model's tokenizer.
    inputs_length, targets_length: maximum numbers of tokens in training; `inputs_length` is 0 for a language model that
      continues a prompt.
    origin: where the weights come from, as stored in the bundle.
    dtype: type of the stored matrices, one of `storage.DTYPES`.
    inputs_eos: whether a source ends in an end of sequence.
  """

  model: ModelConfig
  weights: Params
  tokenizer: Tokenizer
  inputs_length: int
  targets_length: int
  origin: dict[str, Any]
  dtype: str = 'float32'
  inputs_eos: bool = True

  @property
  def continues(self) -> bool:
    """Whether the model continues a prompt; otherwise it reads a source."""
    return not self.inputs_length


def write_bundle(
  output: Path, content: Content, read: Callable[[str], np.ndarray], show_progress: bool = False
) -> None:
  """Writes a bundle. The folder appears complete or not at all, and only one tensor at a time is in memory.

  Args:
    output: a new folder, or a bundle to replace; a symbolic link is kept, and its target replaced.
    content: everything but the weights.
    read: returns a float32 tensor of the layerwise model by name; called once for each name.
    show_progress: whether to show a progress bar.

  Raises:
    UserError: if `output` holds anything but a bundle, or cannot be written.
  """
  output = target_of(Path(output).absolute())
  model = dataclasses.replace(content.model, bfloat16=False)  # a CPU computes slowly in bfloat16
  require_replaceable(output)
  layouts, shapes = layouts_for(model, content.dtype), parameter_shapes(model)
  stored = stored_shapes(model, layouts)
  try:
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=output.parent) as folder:
      new, replaced = Path(folder) / 'new', Path(folder) / 'replaced'
      new.mkdir()
      with tqdm(total=len(shapes), desc='export', unit='tensor', disable=not show_progress) as bar:
        encoded: dict[str, np.ndarray] = {}  # remaining tensors of the current parameter

        def read_one(name: str) -> np.ndarray:
          if name not in encoded:
            bar.update()
            array = np.asarray(read(name), np.float32)
            if array.shape != shapes[name].shape:
              raise ValueError(f'{name}: expected {list(shapes[name].shape)}, found {list(array.shape)}')
            encoded.update(layouts[name].encode(name, array))
          return encoded.pop(name)

        checksums = write_tensors(new, stored, read_one)
      (new / 'vocabulary.model').write_bytes(content.tokenizer.model_bytes)
      header = Header(
        model=model,
        dtype=content.dtype,
        layouts={name: to_json(layout) for name, layout in layouts.items() if layout != ArrayLayout()},
        sentinels=content.tokenizer.sentinels,
        fingerprint=content.tokenizer.fingerprint,
        inputs_length=content.inputs_length,
        targets_length=content.targets_length,
        origin=content.origin,
        checksums=checksums,
        inputs_eos=content.inputs_eos,
      )
      write_header(new / 'config.json', header)
      try:
        if output.exists():
          output.rename(replaced)
        new.rename(output)
      finally:
        if replaced.exists() and not output.exists():  # interrupted between the renames: restore the old bundle
          replaced.rename(output)
  except OSError as error:
    raise refused(output, 'write', error) from error


def parameter_shapes(model: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shape of every parameter of the layerwise model, by name."""
  return flatten(split_module(abstract_layerwise(model))[1])


def stored_shapes(model: ModelConfig, layouts: dict[str, Layout]) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shape and type of every tensor of a bundle, by name."""
  parts = [layouts[name].parts(name, x.shape) for name, x in parameter_shapes(model).items()]
  return {name: part for each in parts for name, part in each.items()}


def require_replaceable(output: Path) -> None:
  """Raises UserError unless `output` is missing, empty, or holds only the files of a bundle."""
  if not output.exists():
    return
  if not output.is_dir():
    raise UserError(f'{output} is a file; give a new folder, or a bundle to replace')
  names = [path.name for path in output.iterdir()]
  others = sorted({*names} - _FILES - {*tensor_files(names)})
  if others:
    raise UserError(f'{output} holds {others[0]}, which is not part of a bundle; give a new folder')


def open_bundle(path: Path, verify: bool | None = None) -> Bundle:
  """Opens a bundle and maps its weights into memory without reading them.

  Args:
    path: the bundle's folder, or the name of a bundle in `SHIPPED`; a file or folder of that name takes precedence.
    verify: whether to read all weights and compare them with their checksums; None does so up to 256 MB.

  Raises:
    UserError: if the bundle is missing or of another format, or its files are damaged or do not belong together.
  """
  path = Path(path)
  if len(path.parts) == 1 and not path.exists() and (SHIPPED / path).is_dir():
    path = SHIPPED / path
  if not path.is_dir():
    problem = 'is a file, not a bundle' if path.exists() else 'does not exist'
    shipped = ', '.join(sorted(each.stem for each in SHIPPED.glob('*.md')))
    raise UserError(f'{path} {problem}; give the folder of a bundle, or {shipped}')
  if not (path / 'config.json').exists() and (path / 'checkpoints').is_dir():
    export = f'terraformer export --workdir={shlex.quote(str(path))} --output=BUNDLE'
    raise UserError(f'{path} is a run, not a bundle; first: {export}')
  if not (path / 'config.json').exists():
    raise UserError(f'{path} is not a bundle: it has no config.json')
  header = read_header(path / 'config.json')
  tensors, layouts = _map_weights(path, header)
  n_bytes = sum(tensor.nbytes for tensor in tensors.values())
  if n_bytes <= _VERIFIED_BYTES if verify is None else verify:
    _verify(path, tensors, header.checksums)
  tokenizer = Tokenizer.open(path / 'vocabulary.model', header.sentinels)
  if tokenizer.fingerprint != header.fingerprint:
    raise UserError(f'{path / "vocabulary.model"} does not match config.json; export the bundle again')
  lengths = header.inputs_length, header.targets_length
  shapes = parameter_shapes(header.model)
  weights = {name: layout.value(name, shapes[name].shape, tensors) for name, layout in layouts.items()}
  dtype = 'float32' if header.layouts is None else header.dtype
  return Bundle(header.model, unflatten(weights), tokenizer, *lengths, header.origin, dtype, header.inputs_eos)


def _map_weights(path: Path, header: Header) -> tuple[dict[str, np.ndarray], dict[str, Layout]]:
  """Returns the tensors of the files, and the layout of every parameter."""
  tensors = map_tensors(path)
  # Computing shapes layer by layer would take hours for a config with billions of layers, so this comes first.
  if header.model.n_sublayers > len(tensors):
    found = f'{len(tensors):,} tensors in {_names(path, tensors)}'
    raise UserError(
      f'{path / "config.json"}: expected at least {header.model.n_sublayers:,} tensors, one per sublayer, found {found}'
    )
  layouts, facts = _layouts(path, header), layerwise_facts(header.model)
  expected = stored_shapes(header.model, layouts)
  # Mapped again, now that the facts are known; this reads nothing. Extra tensors are reported below.
  tensors = map_tensors(path, rows=lambda name: name in facts and facts[name].row_axis is not None)
  for name, shape in expected.items():
    if name not in tensors:
      raise UserError(f'{path}: the tensor {name} is missing from {_names(path, tensors)}; export the bundle again')
    if describe(tensors[name]) != describe(shape):
      where = files_of(path, tensors)[name]
      raise UserError(f'{where}: expected the tensor {name} of {describe(shape)}, found {describe(tensors[name])}')
  for name in tensors:
    if name not in expected:
      where = files_of(path, tensors).get(name, path)
      raise UserError(f'{where} has the tensor {name}, which the model in config.json does not have')
  return {name: tensors[name] for name in expected}, layouts


def _layouts(path: Path, header: Header) -> dict[str, Layout]:
  """Returns the layout of every parameter."""
  if header.layouts is None:
    return layouts_before_panels(header.model, header.dtype == 'bfloat16')
  layouts: dict[str, Layout] = {}
  for name, shape in parameter_shapes(header.model).items():
    try:
      layouts[name] = from_json(header.layouts.get(name, to_json(ArrayLayout())), shape.shape)
    except ValueError as error:
      found = header.layouts[name]
      raise UserError(f'{path / "config.json"}: {name} cannot be stored as {found!r:.80}; export it again') from error
  for name in header.layouts:
    if name not in layouts:
      raise UserError(f'{path / "config.json"} has a layout for {name!r:.80}, which is no parameter of the model')
  return layouts


def _names(path: Path, tensors: dict[str, np.ndarray]) -> str:
  names = sorted({file.name for file in files_of(path, tensors).values()}) or ['no file']  # if the index is empty
  return names[0] if len(names) == 1 else f'{names[0]} to {names[-1]}'


def _verify(path: Path, tensors: dict[str, np.ndarray], checksums: dict[str, int]) -> None:
  for name, tensor in tensors.items():
    if checksum(tensor) != checksums.get(name):
      where = files_of(path, tensors)[name]
      raise UserError(f'{where}: the tensor {name} does not match its checksum; export the bundle again')
