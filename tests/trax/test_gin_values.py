"""Values of a config.gin, and that nothing in the file is run."""

import pytest

from terraformer.config import UserError
from terraformer.trax.gin_values import GinValues, Reference


def _values(text):
  return GinValues(text, 'config.gin')


@pytest.mark.parametrize(
  ('line', 'value'),
  [
    ('A.b = 3', 3),
    ('A.b = -1.5e-3  # a comment', -1.5e-3),
    ("A.b = '#no comment'", '#no comment'),
    ('A.b = None', None),
    ('A.b = (1, 32)', (1, 32)),
    ('A.b = {0: [1], 1: (2,)}', {0: [1], 1: (2,)}),
    ('A.b = @c.d.E', Reference('E')),
    ('A.b = @scope/c.E()', Reference('E', 'scope')),
    ('A.b = \\\n    @scope/E', Reference('E', 'scope')),
    ('A.b = [1,\n  2,\n  3]', [1, 2, 3]),
    ('trax.models.A.b = 4', 4),
    ('n = 5\nA.b = %n', 5),
    ('A.b = %n\nn = %m\nm = @E', Reference('E')),
    ('A.b=6', 6),
    ('A.b = (1, %n)\nn = 5', (1, 5)),
    ('A.b = (@C, @d/e.F)', (Reference('C'), Reference('F', 'd'))),
    ("A.b = 'an @address, 5%n'", 'an @address, 5%n'),
  ],
)
def test_a_value_is_read(line, value):
  assert _values(line).get('A', 'b', 'default') == value


def test_a_value_of_a_scope_wins():
  values = _values('A.b = 1\nencoder/A.b = 2')
  assert (values.get('A', 'b', scope='encoder'), values.get('A', 'b'), values.get('A', 'b', scope='x')) == (2, 1, 1)


def test_a_field_without_a_value_has_the_default():
  assert _values('A.c = 1').get('A', 'b', 7) == 7


@pytest.mark.parametrize('line', ['import_mira.pipeline()', '= 3', 'A.b', 'A.b + 3', '<A.b = 3>'])
def test_a_line_that_is_no_binding_is_skipped_and_named(line):
  values = _values(f'{line}\nA.c = 3')
  assert values.skipped == [line] and values.get('A', 'b', 'default') == 'default' and values.get('A', 'c') == 3


@pytest.mark.parametrize(
  'value',
  [
    '__import__("os").system("touch executed")',
    'open("executed", "w")',
    '[x for x in ()]',
    'lambda: 1',
    '(' * 5000,
    '9' * 5000,
    '1' * 20_000,
    "'no end",
    '<odd>',
    '@a(3)',
  ],
)
def test_a_value_of_another_form_is_named_and_an_error_where_it_is_needed(value, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  values = _values(f'A.b = {value}')
  assert len(values.skipped) == 1 and values.anywhere('A', 'b') is None
  with pytest.raises(UserError, match='config.gin: cannot read the value of A.b'):
    values.get('A', 'b')
  assert not any(tmp_path.iterdir())


def test_lines_behind_one_that_is_skipped_are_read():
  values = _values('mira.x = <odd>\nA.b = 3\ntokenize(@y) = 2\nA.c = 4')
  assert (values.get('A', 'b'), values.get('A', 'c')) == (3, 4) and len(values.skipped) == 2


def test_imports_and_comments_are_no_lines_to_name():
  assert not _values('import trax.data\nfrom a import b\n\n# Parameters:\n# ====\n# None.').skipped


@pytest.mark.parametrize('value', ['%unknown', '(1, %unknown)', '%a\na = %a'])
def test_a_macro_without_a_value_is_an_error_where_it_is_needed(value):
  values = _values(f'A.c = 1\nA.b = {value}')
  assert values.get('A', 'c') == 1
  with pytest.raises(UserError, match='config.gin: cannot read the value of A.b'):
    values.get('A', 'b')


def test_a_large_file_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr('terraformer.trax.gin_values._MOST_BYTES', 10)
  (tmp_path / 'config.gin').write_text('A.b = 12345678')
  with pytest.raises(UserError, match='at most 10 bytes'):
    GinValues.open(tmp_path / 'config.gin')
