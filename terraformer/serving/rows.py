"""What the scheduler asks of the texts that are decoded side by side, whichever engine computes their steps."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from terraformer.config import DecodeConfig
from terraformer.decode.prompts import Prompts


class Rows(Protocol):
  """Texts that are decoded side by side; others join and leave between steps.

  A text is named by a key of the caller. Only `read` may be called beside another method, by one other thread.
  """

  def read(self, prompts: Prompts, config: DecodeConfig) -> Any:
    """Reads the prompt of one text, and returns what `join` takes."""
    ...

  def join(self, key: Hashable, read: Any) -> None:
    """Adds a text whose prompt was read."""
    ...

  def leave(self, key: Hashable) -> None:
    """Removes a text, if it is there."""
    ...

  def step(self) -> list[tuple[Any, int]]:
    """Returns a token of each text; a text that joined may not be among them before the next call."""
    ...

  def clear(self) -> None:
    """Removes all texts, also after an error."""
    ...

  def bytes_of(self, prompts: Sequence[Prompts]) -> int:
    """Returns the bytes that the states of these texts take side by side, each at its full length."""
    ...

  def warm_up(self) -> None:
    """Compiles the programs of the steps. No text may be there."""
    ...
