"""Objectives: how a stored window of running text becomes inputs and targets when it is read."""

import dataclasses
from typing import ClassVar

from terraformer.config.base import Checked, expect


@dataclasses.dataclass(frozen=True)
class PrefixLMConfig(Checked):
  """Splits a window at a random point into inputs (before it) and targets (after it)."""

  separates: ClassVar[bool] = True  # whether an end of sequence separates the documents of a window
  least_window: ClassVar[int] = 2  # minimum number of tokens for an example

  def window_length(self, inputs_length: int, targets_length: int) -> int:
    """Returns the number of tokens in a stored window."""
    return inputs_length + targets_length

  def check_lengths(self, inputs_length: int, targets_length: int, sentinels: int) -> None:
    """Raises UserError unless windows can give examples of these lengths with this number of sentinels."""
    expect(inputs_length >= 2, f'DataConfig.inputs_length: expected at least 2, found {inputs_length}')


@dataclasses.dataclass(frozen=True)
class LMConfig(Checked):
  """Uses the whole window as targets; there are no inputs, and `DataConfig.inputs_length` is 0."""

  separates: ClassVar[bool] = True
  least_window: ClassVar[int] = 1

  def window_length(self, inputs_length: int, targets_length: int) -> int:
    return targets_length

  def check_lengths(self, inputs_length: int, targets_length: int, sentinels: int) -> None:
    expect(
      inputs_length == 0,
      f'DataConfig.inputs_length: expected 0 for language modeling (LMConfig), found {inputs_length}',
    )


@dataclasses.dataclass(frozen=True)
class SpanCorruptionConfig(Checked):
  """T5's objective (Raffel et al. 2020, section 3.1.4): cuts random spans out of a window, for the model to fill in.

  In the inputs a sentinel replaces each span; the targets are the spans, each after its sentinel. Nothing separates
  documents, as in T5.

  Attributes:
    noise_density: share of tokens that are cut out.
    mean_span_length: mean number of tokens per span.
  """

  noise_density: float = 0.15
  mean_span_length: float = 3.0

  separates: ClassVar[bool] = False
  least_window: ClassVar[int] = 2

  def check(self):
    expect(
      0 < self.noise_density < 1,
      f'SpanCorruptionConfig.noise_density: expected a number between 0 and 1, found {self.noise_density}',
    )
    self._at_least(1, 'mean_span_length')

  def noise(self, length: int) -> tuple[int, int]:
    """Returns how many tokens are cut out of a window of two or more tokens, and in how many spans."""
    n_noise = min(max(round(length * self.noise_density), 1), length - 1)
    n_spans = min(max(round(n_noise / self.mean_span_length), 1), length - n_noise)
    return n_noise, n_spans

  def lengths(self, length: int) -> tuple[int, int]:
    """Returns the numbers of input and target tokens for a window of `length`, including ends of sequence."""
    n_noise, n_spans = self.noise(length)
    return length - n_noise + n_spans + 1, n_noise + n_spans + 1

  def window_length(self, inputs_length: int, targets_length: int) -> int:
    """Returns the longest window whose inputs fit: with T5's settings, 568 tokens become 512 and 114."""
    fits, too_long = 2, 3
    while self.lengths(too_long)[0] <= inputs_length:
      fits, too_long = too_long, 2 * too_long
    # Binary search, since a window has billions of tokens if nearly all of them are noise.
    while too_long - fits > 1:
      middle = (fits + too_long) // 2
      fits, too_long = (middle, too_long) if self.lengths(middle)[0] <= inputs_length else (fits, middle)
    return fits

  def check_lengths(self, inputs_length: int, targets_length: int, sentinels: int) -> None:
    least = self.lengths(2)[0]
    expect(
      inputs_length >= least,
      f'DataConfig.inputs_length: expected at least {least} for span corruption, found {inputs_length}',
    )
    window = self.window_length(inputs_length, targets_length)
    needed, n_spans = self.lengths(window)[1], self.noise(window)[1]
    expect(
      targets_length >= needed,
      f'DataConfig.targets_length: expected at least {needed} for the spans of {inputs_length} inputs, '
      f'found {targets_length}',
    )
    expect(sentinels >= n_spans, f'TokenizerConfig.sentinels: expected one per span ({n_spans}), found {sentinels}')


ObjectiveConfig = PrefixLMConfig | LMConfig | SpanCorruptionConfig
