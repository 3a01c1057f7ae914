"""What `/metrics` says, in the format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from terraformer.decode.decoder import Stats
from terraformer.serving.scheduler import Status

_FIRST_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
  """The metrics of one server, in a registry of their own."""

  def __init__(self, status: Callable[[], Status], lost_lines: Callable[[], int]):
    """Makes the metrics; `status` is that of the scheduler, `lost_lines` counts lines that the log has lost."""
    self.registry = CollectorRegistry()
    self._requests = Counter(
      'terraformer_requests', 'Requests by route and HTTP status.', ('route', 'status'), registry=self.registry
    )
    self._first_token = Histogram(
      'terraformer_time_to_first_token_seconds',
      'Time from a request to its first token, waiting included.',
      buckets=_FIRST_TOKEN_SECONDS,
      registry=self.registry,
    )
    self._per_token = Histogram(
      'terraformer_time_per_token_seconds',
      'Mean time of the tokens of a text after the first.',
      buckets=_TOKEN_SECONDS,
      registry=self.registry,
    )
    self._tokens = Counter(
      'terraformer_tokens',
      'Tokens of prompts that were read and dropped, and tokens that were written.',
      ('kind',),
      registry=self.registry,
    )
    self._texts = Counter('terraformer_texts', 'Texts by how they ended.', ('reason',), registry=self.registry)
    for name, what, value in (
      ('running', 'Texts that are being written.', lambda: status().running),
      ('reading', 'Prompts that are being read.', lambda: status().reading),
      ('queued', 'Texts that wait.', lambda: status().queued),
      ('longest_stall_seconds', 'Longest pause between two steps of running texts.', lambda: status().longest_stall),
      ('lost_log_lines', 'Lines of the log that could not be written.', lost_lines),
    ):
      Gauge(f'terraformer_{name}', what, registry=self.registry).set_function(value)

  def count_request(self, route: str, status: int) -> None:
    """Counts one answered request."""
    self._requests.labels(route, str(status)).inc()

  def count_text(self, reason: str, stats: Stats | None) -> None:
    """Counts one text that ended for this reason; `stats` is None if it failed."""
    self._texts.labels(reason).inc()
    if stats is None or not stats.tokens:
      return
    self._first_token.observe(stats.first_token_seconds)
    if stats.tokens > 1:
      self._per_token.observe((stats.seconds - stats.first_token_seconds) / (stats.tokens - 1))
    self._tokens.labels('read').inc(stats.input_tokens)
    self._tokens.labels('dropped').inc(stats.dropped_tokens)
    self._tokens.labels('written').inc(stats.tokens)

  def page(self) -> bytes:
    """Returns the text for Prometheus."""
    return generate_latest(self.registry)
