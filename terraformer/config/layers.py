"""Configurations of the mechanisms in a layer, except attention and positions; a config's type selects a mechanism."""

import dataclasses
from typing import ClassVar

from terraformer.config.base import Checked, Family, divides

# Noise a thousand times as large as log-probabilities hides them completely; much larger noise overflows the softmax.
_MOST_NOISE = 1000.0

# --- Feed-forward blocks ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FeedForwardConfig(Family):
  """The feed-forward block of a layer; every kind has the field `d_ff`, its total number of units.

  Attributes:
    picks_units: whether a controller picks one unit in each block of `block_size`, with the layer's method `choose`, so
      that `read_rows` reads only the weights of these units.
  """

  picks_units: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class DenseFFConfig(FeedForwardConfig):
  """A feed-forward block of `d_ff` ReLU units that reads all of them for every token."""

  made_by: ClassVar = 'terraformer.layers.dense_ff:DenseFF'

  d_ff: int = 2048

  def check(self):
    self._sizes('d_ff')


@dataclasses.dataclass(frozen=True)
class SparseFFConfig(FeedForwardConfig):
  """A feed-forward block that reads one unit in `block_size` for each token (paper, section 3.1).

  Attributes:
    d_ff: total number of units; a multiple of `block_size`.
    block_size: units per block, N in the paper; the controller picks one of them.
    rank: inner width of the controller; the paper's 800M model has d_ff / block_size.
    temperature: scale of the Gumbel noise that is added to the controller's log-softmax in training.
    hard_probability: share of training calls that use the straight-through one-hot choice instead of the soft mask.
    multiply_by_controller_output: whether the selected units are also scaled by the controller's softmax.
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
  """A mixture-of-experts baseline of the paper (section 3.1): each token uses one of `n_experts` slices of d_ff,
  selected as in SparseFF.

  Attributes:
    d_ff: total number of units; a multiple of `n_experts`.
    n_experts: number of slices; the router picks one of them.
    temperature: scale of the Gumbel noise that is added to the router's log-softmax in training.
    hard_probability: share of training calls that use the straight-through one-hot choice instead of the soft mask.
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
  """A mixture-of-experts baseline of the paper: each token uses one slice of d_ff, scaled by the router's probability.

  Attributes:
    d_ff: total number of units; a multiple of `n_experts`.
    n_experts: number of slices; the router picks one of them.
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


# --- Recurrence and normalization ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SRUConfig(Checked):
  """A narrow simple recurrent unit, parallel to the feed-forward block (paper, section 4.3).

  Attributes:
    width: width of the recurrence.
    tanh: whether the state passes through tanh; in the paper it does not.
  """

  width: int = 32
  tanh: bool = False

  def check(self):
    self._sizes('width')


@dataclasses.dataclass(frozen=True)
class NormConfig(Family):
  """The normalization of vectors."""


@dataclasses.dataclass(frozen=True)
class LayerNormConfig(NormConfig):
  """Centers vectors, divides them by their standard deviation, then scales and shifts them."""

  made_by: ClassVar = 'terraformer.layers.norm:LayerNorm'


@dataclasses.dataclass(frozen=True)
class RMSNormConfig(NormConfig):
  """Divides vectors by their root mean square and scales them; no centering, no bias."""

  made_by: ClassVar = 'terraformer.layers.norm:RMSNorm'


# --- Output layers ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OutputConfig(Family):
  """The layer from vectors to logits."""

  def check_model(self, name: str, vocab_size: int) -> None:
    """Raises UserError if the output layer does not fit the model of this name."""


@dataclasses.dataclass(frozen=True)
class DenseOutputConfig(OutputConfig):
  """An output layer with one dense matrix (d_model x vocabulary)."""

  made_by: ClassVar = 'terraformer.layers.output:dense_output'


@dataclasses.dataclass(frozen=True)
class LowRankOutputConfig(OutputConfig):
  """An output layer with two dense matrices (d_model x rank, rank x vocabulary)."""

  made_by: ClassVar = 'terraformer.layers.output:low_rank_output'

  rank: int = 64

  def check(self):
    self._sizes('rank')


@dataclasses.dataclass(frozen=True)
class SparseOutputConfig(OutputConfig):
  """A multiplicative dense output layer with `n_modules` modules (the paper's sparse loss, section 3.3)."""

  made_by: ClassVar = 'terraformer.layers.output:SparseOutput'

  n_modules: int = 4

  def check(self):
    self._sizes('n_modules')

  def check_model(self, name: str, vocab_size: int) -> None:
    """Raises UserError unless all modules have the same width."""
    divides(f'{name}.vocab_size', vocab_size, 'SparseOutputConfig.n_modules', self.n_modules)


# --- Residual streams ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ResidualConfig(Family):
  """The streams to which sublayers add their outputs.

  Attributes:
    n_streams: one, or two, which let the backward pass recompute activations.
    fixed_point, forget_every: see `ReversibleResidualConfig`.
  """

  n_streams: ClassVar[int]
  # No annotations, or else these would be the first fields of every kind that makes them fields.
  fixed_point = False
  forget_every = 0


@dataclasses.dataclass(frozen=True)
class ReversibleResidualConfig(ResidualConfig):
  """Two residual streams, from which the backward pass recomputes all activations (RevNet; paper, section 4).

  Attributes:
    keep_activations: whether training stores the activations instead; the function is the same, but memory grows with
      depth.
    fixed_point: whether the streams stay on a grid of 2^-16, where additions and subtractions are exact below 256. The
      recomputed streams then equal those of the forward pass, bit for bit, at any depth (if the compiler compiles the
      same sublayer to the same program twice, as XLA does by default). Takes a third more time.
    forget_every: number of layers after which the two streams are averaged and pass through a dense layer, so that a
      deep stack can drop what it no longer needs; 0 for never. The streams at these points are stored.
  """

  keep_activations: bool = False
  fixed_point: bool = False
  forget_every: int = 0

  n_streams: ClassVar[int] = 2

  def check(self):
    self._at_least(0, 'forget_every')


@dataclasses.dataclass(frozen=True)
class PlainResidualConfig(ResidualConfig):
  """One residual stream, to which every sublayer adds its output.

  Attributes:
    keep_activations: whether training stores the activations inside a layer; otherwise it stores only the layer's
      input, and the backward pass recomputes the rest.
  """

  keep_activations: bool = False

  n_streams: ClassVar[int] = 1
