"""Renamed classes and fields of configurations: old names still work, in JSON and in gin."""

import re
from collections.abc import Callable
from typing import Any

RENAMED_KINDS = {'VocabularyConfig': 'TokenizerConfig'}
_RENAMED_FIELDS = {
  'DataConfig': {'vocabulary': 'tokenizer'},
  'TrainConfig': {'watch_every': 'diagnostics_every'},
}
_RENAMED = RENAMED_KINDS | {
  f'{kind}.{old}': f'{kind}.{new}' for kind, fields in _RENAMED_FIELDS.items() for old, new in fields.items()
}
# Renamed fields whose values also changed, as gin text.
_RENAMED_SETTINGS = {
  'DecodeConfig.bfloat16_cache = True': "DecodeConfig.cache_dtype = 'bfloat16'",
  'DecodeConfig.bfloat16_cache = False': "DecodeConfig.cache_dtype = 'float32'",
}
_RENAMED |= _RENAMED_SETTINGS
_OLD_NAME = re.compile(rf'\b({"|".join(re.escape(name).replace(re.escape(" = "), " *= *") for name in _RENAMED)})\b')


def renamed_fields(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
  """Returns the fields of a stored config of class `kind` under their present names."""
  names = _RENAMED_FIELDS.get(kind, {})
  return {names.get(name, name): value for name, value in fields.items()}


def present_names(text: str, say: Callable[[str], object] = lambda line: None) -> str:
  """Returns gin text with old names replaced by the present ones.

  Args:
    text: text of a gin file, or a binding.
    say: called with one line for each old name.
  """
  for old in sorted(set(map(_spaced, _OLD_NAME.findall(text)))):
    say(f'{old} is now called {_RENAMED[old]}; the old name still works, but please use the new one')
  return _OLD_NAME.sub(lambda found: _RENAMED[_spaced(found[0])], text)


def _spaced(name: str) -> str:
  return re.sub(' *= *', ' = ', name)
