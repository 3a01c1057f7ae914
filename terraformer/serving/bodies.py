"""What requests say: the fields of each body, and what is refused by name."""

import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from terraformer.config import DecodeConfig

MOST_CHOICES = 32  # texts of one request
_MOST_STOPS = 16
_LONGEST_STOP = 1000
# Parameters of the API that these models do not have, and the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
  'audio': (),
  'best_of': (1,),
  'echo': (False,),
  'frequency_penalty': (0,),
  'function_call': ('none',),
  'functions': ([],),
  'logit_bias': ({},),
  'logprobs': (False,),
  'modalities': (['text'],),
  'moderation': (),
  'parallel_tool_calls': (True, False),
  'prediction': (),
  'presence_penalty': (0,),
  'prompt_cache_key': (),
  'prompt_cache_retention': (),
  'reasoning_effort': ('none',),
  'response_format': ({'type': 'text'},),
  'service_tier': ('auto', 'default'),
  'store': (False,),
  'suffix': ('',),
  'tool_choice': ('none', 'auto'),
  'tools': ([],),
  'top_logprobs': (0,),
  'verbosity': ('medium',),
  'web_search_options': (),
}


class _Body(BaseModel):
  model_config = ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)

  @model_validator(mode='before')
  @classmethod
  def _refuse_unsupported(cls, values: Any) -> Any:
    """Refuses by name what the API has and the model has not, and drops it where it asks for nothing."""
    if not isinstance(values, dict):
      return values
    for name, idle in _UNSUPPORTED.items():
      if values.get(name) is not None and not any(_same(values[name], each) for each in idle):
        raise PydanticCustomError(
          'unsupported_parameter', 'this model does not support it; leave it out', {'param': name}
        )
    return {name: value for name, value in values.items() if name not in _UNSUPPORTED}


class Sampling(_Body):
  """How texts are chosen; all requests have these fields."""

  model: str | None = Field(None, description='The id that `/v1/models` lists; it may be left out.')
  max_tokens: int | None = Field(
    None, ge=1, le=2**31 - 1, description='The largest number of new tokens; by default as in training.'
  )
  temperature: float | None = Field(
    None, ge=0, le=2, description='Temperature of sampling; 0, the default, takes the likeliest token.'
  )
  top_p: float | None = Field(None, gt=0, le=1, description='Samples from the likeliest tokens of this probability.')
  top_k: int | None = Field(None, ge=0, le=2**31 - 1, description='Samples from this many of the likeliest tokens.')
  seed: int | None = Field(None, ge=0, lt=2**32, description='Repeats the same sample; drawn if it is left out.')
  stop: str | list[str] | None = Field(None, description='Strings that end a text, which does not include them.')
  no_repeat_ngram: int | None = Field(None, ge=0, le=1000, description='Never writes this many tokens in a row twice.')
  task: str | None = Field(None, description='What the model does with the text, one of the tasks of `/v1/models`.')
  stream: bool | None = Field(None, description='Sends pieces as they are written, as server-sent events.')
  user: str | None = Field(None, description='Ignored.')
  metadata: dict[str, str] | None = Field(None, description='Ignored.')

  @field_validator('stop')
  @classmethod
  def _usable(cls, stop: str | list[str] | None) -> str | list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > _MOST_STOPS:
      raise PydanticCustomError('stops', f'expected at most {_MOST_STOPS} strings, found {len(stops)}')
    if any(not each or len(each) > _LONGEST_STOP for each in stops):
      raise PydanticCustomError('stops', f'expected strings of 1 to {_LONGEST_STOP} characters')
    return stop

  def config(self, number: int, cache_dtype: str, default_tokens: int | None) -> DecodeConfig:
    """Returns the settings of text number `number`; samples of one request have seeds that follow each other."""
    seed = secrets.randbits(32) if self.seed is None else self.seed
    stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
    return DecodeConfig(
      max_tokens=self.max_tokens or default_tokens,
      temperature=self.temperature or 0.0,
      top_k=self.top_k or 0,
      top_p=1.0 if self.top_p is None else self.top_p,
      seed=(seed + number) % 2**32,
      no_repeat_ngram=self.no_repeat_ngram or 0,
      stop=stops,
      cache_dtype=cache_dtype,
    )


class StreamOptions(BaseModel):
  """What a stream has beside texts."""

  model_config = ConfigDict(extra='forbid', strict=True)
  include_usage: bool | None = Field(None, description='Sends the token counts in a last chunk.')
  include_obfuscation: bool | None = Field(None, description='Ignored.')


class _Choices(Sampling):
  n: int | None = Field(None, ge=1, le=MOST_CHOICES, description='Number of texts for each prompt.')
  stream_options: StreamOptions | None = None


class CompletionRequest(_Choices):
  """Body of `POST /v1/completions`. The prompt is the source, or the beginning that a language model continues."""

  prompt: str | list[str]

  @field_validator('prompt')
  @classmethod
  def _some(cls, prompt: str | list[str]) -> str | list[str]:
    if isinstance(prompt, list) and not 1 <= len(prompt) <= MOST_CHOICES:
      raise PydanticCustomError('prompts', f'expected 1 to {MOST_CHOICES} prompts, found {len(prompt)}')
    return prompt

  @property
  def prompts(self) -> list[str]:
    """The prompts; a single one is a list of one."""
    return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class TextPart(BaseModel):
  """One part of a message."""

  model_config = ConfigDict(extra='forbid', strict=True)
  type: Literal['text']
  text: str


class Message(BaseModel):
  """One message of a chat."""

  model_config = ConfigDict(extra='forbid', strict=True)
  role: Literal['system', 'developer', 'user', 'assistant']
  content: str | list[TextPart] | None = None
  name: str | None = None
  refusal: str | None = None

  @property
  def text(self) -> str:
    """The text of all parts."""
    return self.content if isinstance(self.content, str) else ''.join(part.text for part in self.content or [])


class ChatRequest(_Choices):
  """Body of `POST /v1/chat/completions`. The last message of the user is the prompt; the others are not read."""

  messages: list[Message] = Field(max_length=1000)
  max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description='Another name of `max_tokens`.')

  @model_validator(mode='after')
  def _one_limit(self) -> 'ChatRequest':
    if self.max_completion_tokens is not None:
      if self.max_tokens not in (None, self.max_completion_tokens):
        raise PydanticCustomError('limits', 'expected one of max_tokens and max_completion_tokens, found both')
      self.max_tokens = self.max_completion_tokens
    return self

  @field_validator('messages')
  @classmethod
  def _has_user(cls, messages: list[Message]) -> list[Message]:
    if not any(message.role == 'user' for message in messages):
      raise PydanticCustomError('messages', "expected a message with the role 'user', found none")
    return messages

  @property
  def prompt(self) -> str:
    """The last message of the user."""
    return next(message.text for message in reversed(self.messages) if message.role == 'user')


class SummaryRequest(Sampling):
  """Body of `POST /v1/summaries`, in JSON."""

  text: str = Field(description='The text to summarize.')


class SummaryForm(Sampling):
  """The fields beside an uploaded file, which are texts in a form."""

  model_config = ConfigDict(extra='forbid', strict=False, allow_inf_nan=False)


def _same(value: Any, other: Any) -> bool:
  return value == other and isinstance(value, bool) == isinstance(other, bool)
