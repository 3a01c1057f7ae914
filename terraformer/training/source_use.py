"""Whether a model uses its source: its loss beside that with the source of another text for each target."""

from terraformer.training.metrics import EvalMetrics, summarize

SHUFFLED = 'loss_with_shuffled_sources'  # in nats a token, among the figures of an evaluation
# Nats a token: a model that writes the same whatever it reads gains less, and one that has begun to read gains more.
_LEAST_GAIN = 0.05


def summarize_twice(metrics: list[EvalMetrics], shuffled: list[EvalMetrics]) -> dict[str, float]:
  """`summarize` of an evaluation's batches, and under `SHUFFLED` the loss with shuffled sources where there are any."""
  return summarize(metrics) | ({SHUFFLED: summarize(shuffled)['loss']} if shuffled else {})


def source_use(loss: float, with_shuffled: float) -> str:
  """In words; both are nats a token of the same targets."""
  uses = 'uses' if with_shuffled - loss >= _LEAST_GAIN else 'hardly uses'
  return f"loss {loss:.2f} nats a token, {with_shuffled:.2f} with another text's source: the model {uses} its source"
