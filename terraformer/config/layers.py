"""The mechanisms of a layer other than attention and positions; which one a layer has is a matter of type."""

import dataclasses
from typing import ClassVar

from terraformer.config.base import Checked, Family, divides

# Noise that is a thousand times as loud as log-probabilities is noise alone; far more overflows in the softmax.
_MOST_NOISE = 1000.0

# --- Feed-forward blocks ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig(Family):
  """The feed-forward block of a layer; every kind has the field `d_ff`, its units in all.

  Attributes:
    picks_units: whether a controller picks one unit of each block of `block_size`, by the layer's method `choose`, and
      `read_rows` then reads the weights of these alone.
  """

  picks_units: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class DenseFFConfig(FeedForwardConfig):
  """Feed-forward block of `d_ff` ReLU units, all of them read for every token."""

  made_by: ClassVar = 'terraformer.layers.dense_ff:DenseFF'

  d_ff: int = 2048

  def check(self):
    self._sizes('d_ff')


@dataclasses.dataclass(frozen=True)
class SparseFFConfig(FeedForwardConfig):
  """Feed-forward block of which one unit in `block_size` is read for a token (paper, section 3.1).

  Attributes:
    d_ff: units in all; a multiple of `block_size`.
    block_size: units a block, N in the paper; the controller picks one of them.
    rank: inner width of the controller; the paper's 800M model has d_ff / block_size.
    temperature: scale of the Gumbel noise that is added to the controller's log-softmax in training.
    hard_probability: share of the training calls that use the straight-through one-hot choice, not the soft mask.
    multiply_by_controller_output: whether the chosen units are also scaled by the controller's softmax.
  """

  made_by: ClassVar = 'terraformer.layers.sparse_ff:SparseFF'

  d_ff: int = 2048
  block_size: int = 64
  rank: int = 32
  temperature: float = 0.1
  hard_probability: float = 0.3
  multiply_by_controller_output: bool = False

  picks_units: ClassVar[bool] = True

  def check(self):
    self._sizes('d_ff', 'block_size', 'rank')
    self._between(0, _MOST_NOISE, 'temperature')
    self._probability('hard_probability')
    divides('SparseFFConfig.d_ff', self.d_ff, 'block_size', self.block_size)

  @property
  def n_blocks(self) -> int:
    return self.d_ff // self.block_size


@dataclasses.dataclass(frozen=True)
class BlockSparseFFConfig(FeedForwardConfig):
  """Mixture baseline of the paper (section 3.1): one of `n_experts` slices of d_ff serves a token, as in SparseFF.

  Attributes:
    d_ff: units in all; a multiple of `n_experts`.
    n_experts: slices; the router picks one of them.
    temperature: scale of the Gumbel noise that is added to the router's log-softmax in training.
    hard_probability: share of the training calls that use the straight-through one-hot choice, not the soft mask.
  """

  made_by: ClassVar = 'terraformer.layers.mixture_of_experts:BlockSparseFF'

  d_ff: int = 2048
  n_experts: int = 64
  temperature: float = 0.7
  hard_probability: float = 0.5

  def check(self):
    self._sizes('d_ff', 'n_experts')
    self._between(0, _MOST_NOISE, 'temperature')
    self._probability('hard_probability')
    divides('BlockSparseFFConfig.d_ff', self.d_ff, 'n_experts', self.n_experts)


@dataclasses.dataclass(frozen=True)
class SwitchFFConfig(FeedForwardConfig):
  """Mixture baseline of the paper: one slice of d_ff serves a token, scaled by the router's probability for it.

  Attributes:
    d_ff: units in all; a multiple of `n_experts`.
    n_experts: slices; the router picks one of them.
    temperature: scale of the Gumbel noise that is added to the router's log-softmax in training.
  """

  made_by: ClassVar = 'terraformer.layers.mixture_of_experts:SwitchFF'

  d_ff: int = 2048
  n_experts: int = 64
  temperature: float = 0.1

  def check(self):
    self._sizes('d_ff', 'n_experts')
    self._between(0, _MOST_NOISE, 'temperature')
    divides('SwitchFFConfig.d_ff', self.d_ff, 'n_experts', self.n_experts)


# --- Recurrence and normalisation ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SRUConfig(Checked):
  """Simple recurrent unit of a small width beside the feed-forward block (paper, section 4.3).

  Attributes:
    width: of the recurrence.
    tanh: whether its state passes through tanh; the paper's does not.
  """

  width: int = 32
  tanh: bool = False

  def check(self):
    self._sizes('width')


@dataclasses.dataclass(frozen=True)
class NormConfig(Family):
  """The normalisation of vectors."""


@dataclasses.dataclass(frozen=True)
class LayerNormConfig(NormConfig):
  """Centred, divided by the standard deviation, scaled and shifted."""

  made_by: ClassVar = 'terraformer.layers.norm:LayerNorm'


@dataclasses.dataclass(frozen=True)
class RMSNormConfig(NormConfig):
  """Divided by the root of the mean square and scaled; not centred, no bias."""

  made_by: ClassVar = 'terraformer.layers.norm:RMSNorm'


# --- Output layers ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OutputConfig(Family):
  """The layer from vectors to logits."""

  def check_model(self, name: str, vocab_size: int) -> None:
    """Raises UserError where it does not fit the model of this name."""


@dataclasses.dataclass(frozen=True)
class DenseOutputConfig(OutputConfig):
  """Output layer of one dense matrix (d_model x vocabulary)."""

  made_by: ClassVar = 'terraformer.layers.output:dense_output'


@dataclasses.dataclass(frozen=True)
class LowRankOutputConfig(OutputConfig):
  """Output layer of two dense matrices (d_model x rank, rank x vocabulary)."""

  made_by: ClassVar = 'terraformer.layers.output:low_rank_output'

  rank: int = 64

  def check(self):
    self._sizes('rank')


@dataclasses.dataclass(frozen=True)
class SparseOutputConfig(OutputConfig):
  """Output layer by a multiplicative dense layer of `n_modules` modules (paper's sparse loss, section 3.3)."""

  made_by: ClassVar = 'terraformer.layers.output:SparseOutput'

  n_modules: int = 4

  def check(self):
    self._sizes('n_modules')

  def check_model(self, name: str, vocab_size: int) -> None:
    """The modules must be of one width."""
    divides(f'{name}.vocab_size', vocab_size, 'SparseOutputConfig.n_modules', self.n_modules)


# --- Residual streams ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ResidualConfig(Family):
  """The streams to which sub-layers add their outputs.

  Attributes:
    n_streams: one, or two of which the backward pass recomputes one from the other.
    fixed_point, forget_every: as `ReversibleResidualConfig` has them.
  """

  n_streams: ClassVar[int]
  # Without annotations, with which they would be the first fields of every kind that makes fields of them.
  fixed_point = False
  forget_every = 0


@dataclasses.dataclass(frozen=True)
class ReversibleResidualConfig(ResidualConfig):
  """Two residual streams, of which the backward pass recomputes all activations (RevNet; paper, section 4).

  Attributes:
    keep_activations: whether training stores what the backward pass needs instead; the function is the same, the memory
      grows with depth.
    fixed_point: whether the streams stay on a grid of 2^-16, on which adding and subtracting are exact below 256: the
      recomputed streams are then those of the forward pass, bit for bit, at any depth (where the compiler makes one
      program of the same half-residual twice, as XLA does by default). Takes a third more time.
    forget_every: layers after which the two streams are averaged and pass a dense layer, so that a long stack can
      drop what it no longer needs; 0 for never. The streams at these places are stored.
  """

  keep_activations: bool = False
  fixed_point: bool = False
  forget_every: int = 0

  n_streams: ClassVar[int] = 2

  def check(self):
    self._at_least(0, 'forget_every')


@dataclasses.dataclass(frozen=True)
class PlainResidualConfig(ResidualConfig):
  """One residual stream, to which every sub-layer adds its output.

  Attributes:
    keep_activations: whether training stores what is inside a layer; else only its input, from which the backward pass
      recomputes the rest.
  """

  keep_activations: bool = False

  n_streams: ClassVar[int] = 1
