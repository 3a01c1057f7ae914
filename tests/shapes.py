"""Names say the shapes of arrays, `x_BxTxD`; while the tests run, every such name is held to it.

`install` has the modules of the parts of the package that compute rewritten when they are imported, as pytest does
with assertions. Whenever a function binds a name with a suffix, be it a parameter or a local one, its value must have
as many axes as the suffix has letters, and a letter must have one size within the call. An axis of size 1, which
broadcasts, may have any letter. A traced function is checked while it is traced, which costs next to nothing.

    x_BxTxD   three axes
    x_Bx1     an axis of size 1
    x_xD      any axes before D
    x_BxTx    any axes behind T
"""

import ast
import importlib.abc
import importlib.machinery
import re
import sys

PARTS = ('ops', 'layers', 'models')
_PACKAGE = 'terraformer'
_SUFFIX = re.compile(r'_(x?)((?:[A-Z]|\d+)(?:x(?:[A-Z]|\d+))*)(x?)$')
_SEEN, _SEEN_TYPE = '_sizes_of_this_call', '_Sizes'  # names that the rewritten modules have


class ShapeError(AssertionError):
  """A name that lies."""


class Sizes:
  """The sizes of letters within one call."""

  def __init__(self, function: str):
    self._function = function
    self._known: dict[str, tuple[int, str]] = {}

  def see(self, name: str, value: object) -> None:
    """Raises ShapeError unless `value` has the shape that its name says; what is no array has none."""
    shape = getattr(value, 'shape', None)
    if not isinstance(shape, tuple):
      return
    before, letters, behind = _SUFFIX.search(name).groups()
    letters = letters.split('x')
    n_more = len(shape) - len(letters)
    sizes = shape[n_more:] if before else shape
    is_fixed = [size == int(letter) for letter, size in zip(letters, sizes, strict=False) if letter.isdigit()]
    if n_more < 0 or (n_more and not (before or behind)) or not all(is_fixed):
      raise ShapeError(f'{self._function}: {name} has the shape {shape}')
    for letter, size in zip(letters, sizes, strict=False):
      if size == 1 or letter.isdigit():
        continue
      known, where = self._known.setdefault(letter, (size, name))
      if size != known:
        raise ShapeError(f'{self._function}: {name} has the shape {shape}, but {letter} is {known} in {where}')


def install() -> None:
  """From now on, modules of `PARTS` are imported with checks."""
  sys.meta_path.insert(0, _Finder())


def instrument(source: str | bytes, module: str) -> ast.Module:
  """The syntax tree of a module with checks in its functions; it needs `Sizes` under the name `_Sizes`."""
  return ast.fix_missing_locations(_Instrument(module).visit(ast.parse(source)))


class _Finder(importlib.abc.MetaPathFinder):
  def find_spec(self, fullname, path=None, target=None):
    if not fullname.startswith(tuple(f'{_PACKAGE}.{part}.' for part in PARTS)):
      return None
    spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
    if spec is not None and spec.origin is not None:
      spec.loader = _Loader(fullname, spec.origin)
    return spec


class _Loader(importlib.machinery.SourceFileLoader):
  def get_code(self, fullname):  # neither from the cache of bytecode nor into it
    path = self.get_filename(fullname)
    return compile(instrument(self.get_data(path), fullname), path, 'exec', dont_inherit=True)

  def exec_module(self, module):
    vars(module)[_SEEN_TYPE] = Sizes
    super().exec_module(module)


class _Instrument(ast.NodeTransformer):
  def __init__(self, module: str):
    self._within = [module]
    self._is_in_function = False

  def visit_ClassDef(self, node):
    return self._inside(node, is_function=False)

  def visit_FunctionDef(self, node):
    self._inside(node, is_function=True)
    of = node.args
    parameters = [*of.posonlyargs, *of.args, *of.kwonlyargs]
    at_start = _checks([parameter.arg for parameter in parameters], node)
    if at_start or any(_is_check(each) for each in ast.walk(node)):
      name = '.'.join([*self._within, node.name])
      first = 1 if ast.get_docstring(node) is not None else 0
      node.body[first:first] = _lines([f'{_SEEN} = {_SEEN_TYPE}({name!r})'], node) + at_start
    return node

  def visit_Assign(self, node):
    return self._checked(node, node.targets)

  def visit_AugAssign(self, node):
    return self._checked(node, [node.target])

  def visit_AnnAssign(self, node):
    return self._checked(node, [node.target] if node.value else [])

  def visit_For(self, node):
    self.generic_visit(node)
    if self._is_in_function:
      node.body[:0] = _checks(_names([node.target]), node)
    return node

  def _inside(self, node, is_function):
    before, self._is_in_function = self._is_in_function, is_function
    self._within.append(node.name)
    self.generic_visit(node)
    self._within.pop()
    self._is_in_function = before
    return node

  def _checked(self, node, targets):
    return [node, *_checks(_names(targets), node)] if self._is_in_function else node


def _names(targets):
  """The names that are bound, within tuples as well."""
  walked = [each for target in targets for each in ast.walk(target)]
  return [each.id for each in walked if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def _checks(names, node):
  return _lines([f'{_SEEN}.see({name!r}, {name})' for name in names if _SUFFIX.search(name)], node)


def _lines(lines, node):
  """The syntax of some lines, which have the place of `node` for whoever reads a traceback."""
  parsed = ast.parse('\n'.join(lines))
  for each in ast.walk(parsed):
    if 'lineno' in each._attributes:
      ast.copy_location(each, node)
  return parsed.body


def _is_check(node):
  return isinstance(node, ast.Name) and node.id == _SEEN
