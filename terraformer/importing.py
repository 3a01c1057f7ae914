"""From a checkpoint of trax to a bundle, or to a run."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import (
  DataConfig,
  InitFromConfig,
  RunConfig,
  TerraformerConfig,
  TokenizerConfig,
  TrainConfig,
  UserError,
)
from terraformer.data.addresses import is_address
from terraformer.data.bare_ids import BareIds
from terraformer.data.downloads import local_copy
from terraformer.data.subwords import RESERVED_IDS, SubwordTokenizer, with_reserved_ids
from terraformer.data.tokenizer import Tokenizer
from terraformer.decode.bundle import Content, parameter_shapes, require_replaceable, write_bundle
from terraformer.gin_text import as_gin
from terraformer.paths import make_folder, target_of
from terraformer.training.params_writer import require_new, write_run
from terraformer.trax import files
from terraformer.trax.architecture import Architecture, read_architecture
from terraformer.trax.gin_values import GinValues
from terraformer.trax.pipeline import Pipeline, read_pipeline
from terraformer.trax.spill import Spill, spilling
from terraformer.trax.weights import Assignment, Weights, value_of

# A sentencepiece file is a message whose first field is a list of pieces.
_SENTENCEPIECE = b'\n'
FINE_TUNING = 'finetune.gin'
# Without the optimizer's state, and without the checkpoints with the best metrics.
_OF_CHECKPOINTS = ('config.gin', 'model*.pkl.gz', 'model*.weights.npy.gz', 'model*.pkl.gz.npy', 'model*.shard*')


@dataclasses.dataclass(frozen=True)
class Imported:
  """What became of a checkpoint.

  Attributes:
    model: the configuration of the model.
    pipeline: how examples were made.
    step: of the checkpoint; 0 if it does not say.
    entries: a line for each entry of the checkpoint: its number, its name, and the parameters that it became.
    dropped: of these lines, those of entries that became nothing, since the model does not need them.
    skipped: lines of config.gin that could not be read.
  """

  model: TerraformerConfig
  pipeline: Pipeline
  step: int
  entries: tuple[str, ...]
  dropped: tuple[str, ...]
  skipped: tuple[str, ...]


def import_bundle(
  checkpoint: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  config: str | os.PathLike[str] | None = None,
  vocabulary: str | os.PathLike[str] | None = None,
  dtype: str = 'float32',
  show_progress: bool = False,
) -> Imported:
  """Writes a checkpoint of trax as a bundle; one tensor at a time is in memory.

  Args:
    checkpoint: its main file, `BASE.pkl.gz`, or a folder with one. This and the next two may be addresses, from which
      files are downloaded once.
    output: the bundle's folder; a bundle that is there is replaced.
    config: the `config.gin`; None for the one beside the checkpoint.
    vocabulary: a sentencepiece file, or a subword file of tensor2tensor; None makes a model that reads and writes ids.
    dtype: of the weights: float32, bfloat16 or int8.
    show_progress: whether to show progress bars.

  Raises:
    UserError: if a file is missing or damaged or names anything that a checkpoint does not need, if config.gin
      describes a model that this library cannot express or another than the entries are of, or if `output` holds
      something else. Nothing is written then.
  """
  require_replaceable(target_of(Path(output).absolute()))
  with _opened(checkpoint, config, vocabulary, Path(output).absolute().parent, show_progress) as source:
    content = Content(
      model=source.weights.model,
      tokenizer=source.tokenizer,
      inputs_length=source.pipeline.inputs_length,
      targets_length=source.pipeline.targets_length,
      origin={'step': source.step, 'trax': source.name},
      dtype=dtype,
      inputs_eos=source.pipeline.inputs_eos,
    )
    write_bundle(Path(output), content, source.read, show_progress)
    return source.imported()


def import_run(
  checkpoint: str | os.PathLike[str],
  workdir: str | os.PathLike[str],
  *,
  config: str | os.PathLike[str] | None = None,
  vocabulary: str | os.PathLike[str] | None = None,
  show_progress: bool = False,
) -> Imported:
  """Writes a checkpoint of trax as a run, one layer at a time.

  The run is scored and exported like any other. Beside its checkpoint lies `finetune.gin`, with which another run
  begins with its parameters.

  Args:
    checkpoint, config, vocabulary, show_progress: as of `import_bundle`.
    workdir: the folder of the run, new or empty.

  Raises:
    UserError: as `import_bundle`.
  """
  workdir = Path(workdir).absolute()
  require_new(target_of(workdir))
  with _opened(checkpoint, config, vocabulary, workdir.parent, show_progress) as source:
    data = DataConfig(
      inputs_length=source.pipeline.inputs_length,
      targets_length=source.pipeline.targets_length,
      tokenizer=TokenizerConfig(path=str(workdir / 'vocabulary.model'), sentinels=source.tokenizer.sentinels),
      inputs_eos=source.pipeline.inputs_eos,
    )
    run = RunConfig(model=source.weights.model, data=data)
    tuned = dataclasses.replace(run, train=TrainConfig(init_from=InitFromConfig(str(workdir))))
    with tqdm(total=len(source.shapes), desc='write', unit='tensor', disable=not show_progress) as bar:

      def read(name: str) -> np.ndarray:
        bar.update()
        return source.read(name)

      others = {FINE_TUNING: as_gin(tuned).encode()}
      write_run(workdir, source.step, run, as_gin(run), source.tokenizer, read, others)
    return source.imported()


@dataclasses.dataclass(frozen=True)
class _Source:
  """A checkpoint whose entries are assigned and on disk."""

  name: str
  gin: GinValues
  weights: Weights
  pipeline: Pipeline
  tokenizer: Tokenizer
  step: int

  @functools.cached_property
  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape of each parameter of the layerwise model, by name."""
    return parameter_shapes(self.weights.model)

  def read(self, name: str) -> np.ndarray:
    """The value of a parameter of the layerwise model."""
    return value_of(self.weights.parameters[name], self.shapes[name].shape)

  def imported(self) -> Imported:
    """The report."""
    lines = list(zip(self.weights.entries, self.weights.report(), strict=True))
    return Imported(
      self.weights.model,
      self.pipeline,
      self.step,
      tuple(line for _, line in lines),
      tuple(line.strip() for entry, line in lines if not entry.part.to),
      tuple(self.gin.skipped),
    )


@contextlib.contextmanager
def _opened(
  checkpoint: str | os.PathLike[str],
  config: str | os.PathLike[str] | None,
  vocabulary: str | os.PathLike[str] | None,
  folder: Path,
  show_progress: bool,
) -> Iterator[_Source]:
  main = _local_checkpoint(checkpoint, show_progress)
  found = files.find(main, None if config is None else local_copy(config, show_progress=show_progress))
  gin = GinValues.open(found.config)
  architecture = read_architecture(gin)
  vocabulary_bytes = None if vocabulary is None else _vocabulary_bytes(vocabulary, show_progress)
  make_folder(folder)
  with spilling(folder) as spill:
    description = files.read_description(found, spill)
    weights = _assigned(found, description, architecture, spill, show_progress)
    pipeline = read_pipeline(gin, description.lengths, weights.model.max_length)
    tokenizer = _tokenizer(vocabulary_bytes, vocabulary, pipeline, weights.model.vocab_size)
    yield _Source(found.main.name, gin, weights, pipeline, tokenizer, description.step or 0)


def _assigned(
  found: files.Found, description: files.Description, architecture: Architecture, spill: Spill, show_progress: bool
) -> Weights:
  assignment = Assignment(architecture)
  total = files.stored_bytes(found.weights)
  with tqdm(total=total, desc='read', unit='B', unit_scale=True, disable=not show_progress) as bar:
    for array in files.read_weights(found, description, spill, bar.update, assignment.expect):
      assignment.add(array, f'{found.main}: entry {len(assignment.entries)}')
  return assignment.finish(str(found.weights[0] if found.weights else found.main))


def _local_checkpoint(checkpoint: str | os.PathLike[str], show_progress: bool) -> Path:
  """The main file, or its folder; of an address the files that an import needs are downloaded."""
  address = os.fspath(checkpoint)
  if not is_address(address):
    return Path(address)
  parent, _, name = address.rstrip('/').rpartition('/')
  if name.endswith('.pkl.gz'):
    base = name.removesuffix('.pkl.gz')
    names = 'config.gin', name, f'{name}.npy', f'{name}.shard*', f'{base}.weights.npy.gz'
    return local_copy(parent, names, show_progress, needed=(name,)) / name
  return local_copy(address, _OF_CHECKPOINTS, show_progress, needed=('*.pkl.gz',))


def _vocabulary_bytes(path: str | os.PathLike[str], show_progress: bool) -> bytes:
  try:
    return local_copy(path, show_progress=show_progress).read_bytes()
  except OSError as error:
    raise UserError(f'{path}: cannot read the vocabulary: {(error.strerror or str(error)).lower()}') from error


def _tokenizer(
  data: bytes | None, path: str | os.PathLike[str] | None, pipeline: Pipeline, vocab_size: int
) -> Tokenizer:
  if data is None:
    return BareIds.of_size(vocab_size)
  if data.startswith(_SENTENCEPIECE):
    tokenizer = Tokenizer.from_bytes(data, name=str(path))
  else:
    reserved = RESERVED_IDS if pipeline.reserved_ids is None else pipeline.reserved_ids
    tokenizer = SubwordTokenizer(with_reserved_ids(data, reserved), name=str(path))
  if tokenizer.size > vocab_size:
    raise UserError(
      f'{path}: the vocabulary has {tokenizer.size:,} ids, but the model has {vocab_size:,}; give the vocabulary that '
      'the model was trained with'
    )
  return tokenizer
