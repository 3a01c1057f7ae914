"""All checkpoints of a run: the newest ones, those that are kept for good, and the best one."""

import contextlib
from pathlib import Path
from typing import Any

from terraformer.config import CheckpointConfig
from terraformer.training import checkpoint, hosts
from terraformer.training.best import Best
from terraformer.training.checkpoint import Checkpoints
from terraformer.training.state import State


def find_checkpoint(workdir: Path, older_if_damaged: bool, before: int | None = None) -> int:
  """The step to go on from, the same for all processes, or 0; newer ones are set aside.

  Args:
    workdir: of the run.
    older_if_damaged: whether damaged checkpoints are passed over.
    before: only steps before this one count; None for all.

  Raises:
    UserError: if the newest is damaged and older ones are not wanted, or none is whole.
  """

  def find() -> int:
    newest = checkpoint.latest_step(workdir, older_if_damaged, before)
    checkpoint.set_aside(workdir, newer_than=-1 if newest is None else newest)
    return 0 if newest is None else newest

  return hosts.broadcast_from_main(find)


class RunCheckpoints:
  """Open for reading and writing; what writes returns at once, and raises UnwritableError if the last time failed."""

  def __init__(self, workdir: Path, permanent: Path, config: CheckpointConfig):
    """`permanent` is the folder of those that are kept for good, if any are."""
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
    """Waits, and lets go of the folders."""
    self._stack.close()

  def restore(self, step: int, abstract: State) -> State:
    """The state of one of the newest steps; see `Checkpoints.restore`."""
    return self._newest.restore(step, abstract)

  def is_due(self, step: int) -> bool:
    """Whether a step is to be among the newest by its number."""
    return step % self._config.every == 0

  def save(self, step: int, state: State, description: dict[str, Any]) -> None:
    """Adds a step to the newest ones; the oldest of them makes room."""
    self._newest.save(step, state, description)

  def is_missing(self, step: int) -> bool:
    """Whether a step is to be kept for good, and is not; a run that went back comes by steps that are."""
    return self._permanent is not None and step % self._config.permanent_every == 0 and not self._permanent.has(step)

  def save_for_good(self, step: int, state: State, description: dict[str, Any]) -> None:
    """Keeps a step that `is_missing`."""
    self._permanent.save(step, state, description)

  def save_if_best(self, step: int, state: State, description: dict[str, Any], metrics: dict[str, float]) -> None:
    """Keeps a step as the best one if it is, and if the best one is kept."""
    if self._best is not None:
      self._best.save_if_best(step, state, description, metrics)

  def wait(self) -> None:
    """Until the newest step is on the disk."""
    self._newest.wait()

  def roll_back(self, before: int | None) -> tuple[int, list[float]]:
    """The step to go on from after a divergence, as `find_checkpoint` has it, and the losses of the steps before it."""
    self.wait()
    step = find_checkpoint(self._workdir, self._config.older_if_damaged, before)
    self._newest.reload()
    return step, checkpoint.read_run(self._workdir, step)[1]['recent_losses'] if step else []
