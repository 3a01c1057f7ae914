"""A scheduler that writes the words of its prompt, in place of a model."""

import threading
import types

from terraformer.config import UserError
from terraformer.decode.decoder import Stats
from terraformer.decode.source import require_text
from terraformer.serving.scheduler import ClosedError, Failed, Finished, FinishReason, Piece, QueueFullError

BUNDLE = types.SimpleNamespace(continues=False, inputs_length=256, targets_length=144)


class Scripted:
  """Writes each word of a prompt as a token. A prompt `endless` goes on until it is cancelled, `broken` fails."""

  def __init__(self, places=10):
    self.configs, self.prompts, self.running, self.n_cancelled, self.places = [], [], [], 0, places
    self.is_closed = False

  def submit(self, prompt, config, deliver):
    require_text(prompt)
    if prompt == 'refused':
      raise UserError('the prompt is refused')
    if self.is_closed:
      raise ClosedError
    if len(self.running) >= self.places:
      raise QueueFullError(7.4)
    self.prompts.append(prompt)
    self.configs.append(config)
    return _Request(self, prompt, config, deliver)

  def status(self):
    return types.SimpleNamespace(running=len(self.running), reading=0, queued=0, longest_stall=0.5)

  def warm_up(self):
    pass


class _Request:
  def __init__(self, scheduler, prompt, config, deliver):
    self._scheduler, self._deliver = scheduler, deliver
    words = prompt.split()
    kept = words[: config.max_tokens]
    self._stats = Stats(len(words), 2, tokens=len(kept), first_token_seconds=0.25, seconds=0.5)
    scheduler.running.append(self)
    if prompt == 'broken':
      self._end(Failed('it broke'))
    elif 'endless' in words:
      deliver(Piece('on and on'))
    else:
      reason = FinishReason.LENGTH if len(kept) < len(words) else FinishReason.STOP
      threading.Thread(target=self._write, args=(kept, reason)).start()

  def _write(self, words, reason):
    for number, word in enumerate(words):
      self._deliver(Piece(f' {word}' if number else word))
    self._end(Finished(reason, self._stats))

  def _end(self, event):
    self._scheduler.running.remove(self)
    self._deliver(event)

  def cancel(self):
    if self in self._scheduler.running:
      self._scheduler.n_cancelled += 1
      self._end(Finished(FinishReason.CANCELLED, self._stats))
