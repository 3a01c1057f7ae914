"""All checkpoints of a run: the newest, the permanent and the best."""

import contextlib
from pathlib import Path
from typing import Any

from terraformer.config import CheckpointConfig
from terraformer.training import checkpoint, hosts
from terraformer.training.best import Best
from terraformer.training.checkpoint import Checkpoints
from terraformer.training.state import State


def find_checkpoint(workdir: Path, older_if_damaged: bool, before: int | None = None) -> int:
  """Returns the step to resume from, the same for all processes, or 0; sets newer steps aside.

  Args:
    workdir: folder of the run.
    older_if_damaged: whether to skip damaged checkpoints.
    before: consider only earlier steps; None for all.

  Raises:
    UserError: if the newest is damaged and `older_if_damaged` is false, or all are damaged.
  """

  def find() -> int:
    newest = checkpoint.latest_step(workdir, older_if_damaged, before)
    checkpoint.set_aside(workdir, newer_than=-1 if newest is None else newest)
    return 0 if newest is None else newest

  return hosts.broadcast_from_main(find)


class RunCheckpoints:
  """A run's open checkpoints; writes return at once, and raise UnwritableError if the previous write failed."""

  def __init__(self, workdir: Path, permanent: Path, config: CheckpointConfig):
    """`permanent` is the folder for permanent checkpoints, if any."""
    self._workdir, self._config = workdir, config
    with contextlib.ExitStack() as stack:
      self._newest = stack.enter_context(contextlib.closing(Checkpoints(checkpoint.folder(workdir), config.keep)))
      self._permanent = self._best = None
      if config.permanent_every:
        self._permanent = stack.enter_context(contextlib.closing(Checkpoints(permanent, None)))
      if config.best:
        self._best = stack.enter_context(contextlib.closing(Best(workdir)))
      self._stack = stack.pop_all()

  def close(self) -> None:
    """Waits for writes and closes the folders."""
    self._stack.close()

  def restore(self, step: int, abstract: State) -> State:
    """Returns the state of one of the newest steps; see `Checkpoints.restore`."""
    return self._newest.restore(step, abstract)

  def is_due(self, step: int) -> bool:
    """Whether the step number calls for a regular checkpoint."""
    return step % self._config.every == 0

  def save(self, step: int, state: State, description: dict[str, Any]) -> None:
    """Saves a step among the newest; removes the oldest of them."""
    self._newest.save(step, state, description)

  def is_missing(self, step: int) -> bool:
    """Whether a step should be permanent and is not yet saved; a run that rolled back may repeat saved steps."""
    return self._permanent is not None and step % self._config.permanent_every == 0 and not self._permanent.has(step)

  def save_for_good(self, step: int, state: State, description: dict[str, Any]) -> None:
    """Saves permanently a step that `is_missing`."""
    self._permanent.save(step, state, description)

  def save_if_best(self, step: int, state: State, description: dict[str, Any], metrics: dict[str, float]) -> None:
    """Keeps a step as the best if it is, and if the config asks for the best."""
    if self._best is not None:
      self._best.save_if_best(step, state, description, metrics)

  def wait(self) -> None:
    """Waits until the newest step is on disk."""
    self._newest.wait()

  def roll_back(self, before: int | None) -> tuple[int, list[float]]:
    """Returns the step to resume from after a divergence, as `find_checkpoint` does, and the losses before it."""
    self.wait()
    step = find_checkpoint(self._workdir, self._config.older_if_damaged, before)
    self._newest.reload()
    return step, checkpoint.read_run(self._workdir, step)[1]['recent_losses'] if step else []
