"""Classes and fields of configurations that were renamed: old names are still read, in JSON and in gin."""

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
# Fields whose values changed as well, as gin text.
_RENAMED_SETTINGS = {
  'DecodeConfig.bfloat16_cache = True': "DecodeConfig.cache_dtype = 'bfloat16'",
  'DecodeConfig.bfloat16_cache = False': "DecodeConfig.cache_dtype = 'float32'",
}
_RENAMED |= _RENAMED_SETTINGS
_OLD_NAME = re.compile(rf'\b({"|".join(re.escape(name).replace(re.escape(" = "), " *= *") for name in _RENAMED)})\b')


def renamed_fields(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
  """The fields of a stored config of a class under their present names."""
  names = _RENAMED_FIELDS.get(kind, {})
  return {names.get(name, name): value for name, value in fields.items()}


def present_names(text: str, say: Callable[[str], object] = lambda line: None) -> str:
  """Gin text with the present names of what was renamed.

  Args:
    text: of a gin file, or a binding.
    say: gets a line for each old name that is found.
  """
  for old in sorted(set(map(_spaced, _OLD_NAME.findall(text)))):
    say(f'{old} is now called {_RENAMED[old]}; the old name still works, but please use the new one')
  return _OLD_NAME.sub(lambda found: _RENAMED[_spaced(found[0])], text)


def _spaced(name: str) -> str:
  return re.sub(' *= *', ' = ', name)
