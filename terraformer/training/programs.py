"""The jitted functions of a run."""

import functools

import jax
from jax.sharding import Mesh

from terraformer.config import ModelConfig, TrainConfig
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split_module
from terraformer.training.clock import Clock
from terraformer.training.optimizer import make_optimizer, make_schedule
from terraformer.training.program import Program
from terraformer.training.sharding import replicated
from terraformer.training.state import State, abstract_state, init_state, step_options
from terraformer.training.step import make_eval_step, make_probe_step, make_sample_step, make_train_step


class Programs:
  """The jitted functions of a run, each created on first use and compiled on its first call.

  Attributes:
    facts: facts about the model's parameters.
    n_parameters: total number of values in the parameters.
    state: shapes, types and shardings of the train state, for restoring a checkpoint.
  """

  def __init__(self, model: ModelConfig, config: TrainConfig, mesh: Mesh, clock: Clock, sample_size: tuple[int, int]):
    """`sample_size` is the number of tokens in a sample, and the number of vocabulary ids that it may use."""
    self._model, self._microbatches = model, config.microbatches
    self._mesh, self._clock, self._sample_size = mesh, clock, sample_size
    abstract = abstract_model(model)
    self.facts = facts_of(abstract)
    self._structure, shapes = split_module(abstract)
    self.n_parameters = count(shapes)
    self._init_key, self._noise_key = jax.random.split(jax.random.key(config.seed))
    self._optimizer = make_optimizer(config.optimizer, self.facts)
    self._schedule = make_schedule(config.optimizer.schedule)
    self.state = abstract_state(shapes, self.facts, self._optimizer, mesh, config.mesh.rules)

  def fresh_state(self) -> State:
    """Returns a new state with random parameters; most of the time is compilation."""
    with self._clock.during('compile'):
      return init_state(self._model, self._optimizer, self.state, self._init_key)

  @functools.cached_property
  def train(self) -> Program:
    """One optimizer step; see `step.make_train_step`."""
    step = make_train_step(self._structure, self._optimizer, self._schedule, self._noise_key, self._microbatches)
    return Program(step, self._clock, **step_options(self.state, self._mesh))

  @functools.cached_property
  def evaluate(self) -> Program:
    """The metrics of a batch; see `step.make_eval_step`."""
    return Program(make_eval_step(self._structure), self._clock, out_shardings=replicated(self._mesh))

  @functools.cached_property
  def probe(self) -> Program:
    """The units that the model's controllers select; see `step.make_probe_step`."""
    return Program(make_probe_step(self._structure), self._clock, out_shardings=replicated(self._mesh))

  @functools.cached_property
  def sample(self) -> Program:
    """Tokens that the model generates; see `step.make_sample_step`."""
    step = make_sample_step(self._structure, *self._sample_size)
    return Program(step, self._clock, out_shardings=replicated(self._mesh))
