"""What a server is told when it starts."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the HTTP layer.

  Attributes:
    name: the id of the model.
    tasks: words that the model was trained to find before a text, as in `summarize: `; the first is the usual one.
    api_key: the key that requests must carry; empty for none.
    cache_dtype: type of the KV cache.
    max_tokens: the most new tokens of one text; None for the positions of the model.
    seconds: the most time that one request may take.
    body_seconds: the most time in which the body of a request must arrive.
    body_bytes: the longest body, an uploaded file included.
    logs_text: whether the log has the texts of users.
  """

  name: str
  tasks: tuple[str, ...] = ()
  api_key: str = ''
  cache_dtype: str = 'float32'
  max_tokens: int | None = None
  seconds: float = 300.0
  body_seconds: float = 30.0
  body_bytes: int = 10_000_000
  logs_text: bool = False
