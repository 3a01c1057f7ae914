"""What happens to a request, and why one is refused."""

import dataclasses
import enum
from collections.abc import Callable

from terraformer.decode.decoder import Stats


class FinishReason(enum.Enum):
  """Why a text ended: at an end of sequence or a stop string, at its maximum length, or because it was cancelled."""

  STOP = 'stop'
  LENGTH = 'length'
  CANCELLED = 'cancelled'


@dataclasses.dataclass(frozen=True)
class Piece:
  """A piece of text was written; the pieces of a request, joined, are its text."""

  text: str


@dataclasses.dataclass(frozen=True)
class Finished:
  """The text is complete, or was cancelled; the last event of a request.

  Attributes:
    reason: why it ended.
    stats: token counts, and times from `submit` on.
  """

  reason: FinishReason
  stats: Stats


@dataclasses.dataclass(frozen=True)
class Failed:
  """The text cannot be completed; the last event of a request. The message is fit for a user."""

  message: str


Event = Piece | Finished | Failed
Deliver = Callable[[Event], None]


@dataclasses.dataclass(frozen=True)
class Status:
  """What a scheduler does at this moment, and what it has done.

  Attributes:
    running: number of texts that are decoded side by side.
    reading: number of prompts that are being read, or were read and have not joined the others yet.
    queued: number of requests that wait.
    tokens: number of tokens generated so far, of all texts.
    longest_stall: longest time between two steps while a text was running, in seconds.
    memory_bytes, memory_limit: bytes that the states of the texts take at their full length, and their limit.
    is_draining: whether new requests are refused.
  """

  running: int
  reading: int
  queued: int
  tokens: int
  longest_stall: float
  memory_bytes: int
  memory_limit: int
  is_draining: bool


class ClosedError(Exception):
  """The scheduler takes no new requests."""


class QueueFullError(Exception):
  """Too many requests wait.

  Attributes:
    retry_after: estimated time until a place is free, in seconds.
  """

  def __init__(self, retry_after: float):
    super().__init__(f'too many requests wait; try again in {retry_after:.0f} s')
    self.retry_after = retry_after
