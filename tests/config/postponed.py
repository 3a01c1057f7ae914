"""Configs of a user's module whose annotations are all text."""

from __future__ import annotations

import dataclasses
import typing as t
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Optional

from terraformer.config import DenseFFConfig, SparseFFConfig
from terraformer.config.base import Checked

if TYPE_CHECKING:
  from decimal import Decimal


@dataclass(frozen=True)
class Everything(Checked):
  count: int
  share: float = 0.5
  n_made: ClassVar[int] = 0
  limits: t.ClassVar[dict[str, Unknown]] = {}  # noqa: F821
  _: KW_ONLY
  name: str | None = None
  seed: Optional[int] = None  # noqa: UP045
  widths: tuple[int, ...] = ()
  pair: tuple[int, str] = (1, 'a')
  maybe: tuple[int, ...] | None = None
  layer: DenseFFConfig | SparseFFConfig = DenseFFConfig(8)
  kind: Literal['a', 'b'] = 'a'
  table: dict[str, int] = dataclasses.field(default_factory=dict)
  value: t.Any = None
  other: Everything | None = None
  bytes: bytes = b''


@dataclass(frozen=True)
class Hidden(Checked):
  price: Decimal | None = None


class NotOfTheTest:
  """A type that the module of the classes that inherit does not have."""


@dataclass(frozen=True)
class Base(Checked):
  first: NotOfTheTest | None = None
  second: int = 0
