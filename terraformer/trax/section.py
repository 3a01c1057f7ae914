"""One class of trax as a `config.gin` configures it, with the fields that this importer knows."""

import dataclasses
from collections.abc import Collection
from typing import Any

from terraformer.config import UserError
from terraformer.trax.gin_values import GinValues


@dataclasses.dataclass(frozen=True)
class Section:
  """A class whose values are read from a file.

  Attributes:
    gin: the file.
    name: of the class.
    scope: in which its values are looked up first.
  """

  gin: GinValues
  name: str
  scope: str = ''

  def require_known(self, fields: Collection[str]) -> None:
    """Raises UserError for a field that is not among these."""
    for field in self.gin.fields(self.name):
      if field not in fields:
        raise UserError(f'{self.gin.name}: {self.name}.{field} is a field that this importer does not know')

  def get(self, field: str, default: Any = None) -> Any:
    """Returns a value, or the default of trax."""
    return self.gin.get(self.name, field, default, self.scope)

  def whole(self, field: str, default: int) -> int:
    """Returns a whole number, at least 0; raises UserError for any other value."""
    value = self.get(field, default)
    if type(value) is not int or value < 0:
      raise self.refused(field, 'a whole number')
    return value

  def truth(self, field: str, default: bool) -> bool:
    """Returns a truth value; raises UserError for any but True, False, 1, 0 and None."""
    value = self.get(field, default)
    if value is not None and not (isinstance(value, int) and value in (0, 1)):
      raise self.refused(field, 'True or False')
    return bool(value)

  def require(self, field: str, default: Any, *allowed: Any) -> None:
    """Raises UserError unless a field has one of the values that this library can express."""
    value = self.get(field, default)
    if not any(type(value) is type(each) and value == each for each in allowed):
      raise self.refused(field, ' or '.join(map(repr, allowed)))

  def refused(self, field: str, expected: str) -> UserError:
    """Returns the error for a value that has no counterpart in this library."""
    value = self.get(field)
    return UserError(
      f'{self.gin.name}: {self.name}.{field} is {value!r:.80}, which this library cannot express; it must be {expected}'
    )
