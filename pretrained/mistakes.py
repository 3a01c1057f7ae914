"""Typing mistakes sampled from a seed, which turn the targets of the task `fix:` into its sources.

A text gets few, many or no mistakes: a model that never saw a text without mistakes would change correct text.
"""

import random
import string

_ROWS = ('qwertyuiop', 'asdfghjkl', 'zxcvbnm')
_NEAR = {key: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in _ROWS for at, key in enumerate(row)}
_RATES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)  # share of words with a typing error; each text gets one rate
_SHORT = 4  # a word with fewer letters would be unrecognizable with another error


def spoil(text: str, seed: str) -> str:
  """Returns the text with mistakes in spelling, case, punctuation and spacing; deterministic for a seed.

  Args:
    text: words with single spaces between them.
    seed: seed for all random choices.
  """
  rng = random.Random(seed)
  rate = rng.choice(_RATES)
  words = [mistype(word, rng) if rng.random() < rate else word for word in text.split(' ')]
  if rate and rng.random() < 0.5:
    words = _repunctuated(words, rng)
  if rate and rng.random() < 0.4:
    words = _recased(words, rng)
  if rate and rng.random() < 0.3:
    words = _respaced(words, rng)
  return ' '.join(words)


def mistype(word: str, rng: random.Random) -> str:
  """Returns a word with one typing error, or two in some long words; short words are unchanged."""
  places = [at for at, letter in enumerate(word) if letter.isalpha()]
  if len(places) < _SHORT:
    return word
  at, kind = rng.choice(places), rng.random()
  letter = word[at]
  if kind < 0.3 and at + 1 < len(word) and word[at + 1].isalpha() and word[at + 1] != letter:
    wrong = word[:at] + word[at + 1] + letter + word[at + 2 :]
  elif kind < 0.55:
    wrong = word[:at] + word[at + 1 :]
  elif kind < 0.7:
    wrong = word[:at] + letter + word[at:]
  else:
    near = _NEAR.get(letter.lower(), '')
    typed = rng.choice(near) if near and rng.random() < 0.7 else rng.choice(string.ascii_lowercase)
    typed = typed.upper() if letter.isupper() else typed
    wrong = word[:at] + typed + word[at + (kind < 0.9) :]
  return mistype(wrong, rng) if len(places) > 7 and rng.random() < 0.15 else wrong


def _repunctuated(words: list[str], rng: random.Random) -> list[str]:
  """Omits commas, periods and apostrophes, or replaces periods with commas."""
  done = []
  for word in words:
    end = word[-1:]
    if end in ',.;:' and rng.random() < 0.4:
      word = word[:-1] + (',' if end == '.' and rng.random() < 0.2 else '')
    if "'" in word[1:-1] and rng.random() < 0.5:
      word = word.replace("'", '')
    done.append(word)
  return [word for word in done if word]


def _recased(words: list[str], rng: random.Random) -> list[str]:
  """Makes all letters lower case, or swaps the case of the first letters of some words."""
  if rng.random() < 0.5:
    return [word.lower() for word in words]
  done = []
  for word in words:
    rate = 0.5 if word[:1].isupper() else 0.04
    done.append(word[:1].swapcase() + word[1:] if rng.random() < rate else word)
  return done


def _respaced(words: list[str], rng: random.Random) -> list[str]:
  """Removes or adds a few spaces, and repeats a few short words."""
  done: list[str] = []
  for word in words:
    kind = rng.random()
    if kind < 0.04 and done and done[-1].isalpha():
      done[-1] += word
    elif kind < 0.06 and len(word) > 5 and word.isalpha():
      at = rng.randrange(2, len(word) - 1)
      done += [word[:at], word[at:]]
    elif kind < 0.08 and len(word) < 5:
      done += [word, word]
    else:
      done.append(word)
  return done
