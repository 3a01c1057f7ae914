"""Measures whether a model uses its source: compares its loss with the loss when sources come from other texts."""

from terraformer.training.metrics import EvalMetrics, summarize

SHUFFLED = 'loss_with_shuffled_sources'  # nats per token, one of the results of an evaluation
# Nats per token: a model that ignores its source gains less, and one that has begun to use it gains more.
_LEAST_GAIN = 0.05


def summarize_twice(metrics: list[EvalMetrics], shuffled: list[EvalMetrics]) -> dict[str, float]:
  """Returns `summarize` of an evaluation's batches, and under `SHUFFLED` the loss with shuffled sources, if any."""
  return summarize(metrics) | ({SHUFFLED: summarize(shuffled)['loss']} if shuffled else {})


def source_use(loss: float, with_shuffled: float) -> str:
  """Describes the use of the source; both losses are in nats per token of the same targets."""
  uses = 'uses' if with_shuffled - loss >= _LEAST_GAIN else 'hardly uses'
  return f"loss {loss:.2f} nats per token, {with_shuffled:.2f} with another text's source: the model {uses} its source"
