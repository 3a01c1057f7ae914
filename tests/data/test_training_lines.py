import pytest

from terraformer.data.training_lines import MOST_BYTES, SHORT_BYTES, lines_of


def test_lines_that_are_not_too_long_stay_as_they_are():
  texts = ['one  two \n\n three\r\n', ' \n\t\n', 'é' * (MOST_BYTES // 2)]
  assert lines_of(texts, MOST_BYTES) == (['one  two ', ' three\r', texts[2]], 0)


@pytest.mark.parametrize('space', [' ', '\r', '\t', '\f', '\v', '\x1c', '\x85', '\u2028', '\u3000'])
@pytest.mark.parametrize('word', ['abcdefg', '日本語', 'é', '😀\0'])
def test_a_line_of_too_many_bytes_is_cut_at_white_space(space, word):
  line = space.join([word] * (MOST_BYTES // len((word + space).encode()) + 2))
  parts, left_out = lines_of(['short', line], MOST_BYTES)
  assert parts[0] == 'short' and not left_out
  assert all(len(part.encode()) <= SHORT_BYTES for part in parts)
  assert [found for part in parts[1:] for found in part.split(space)] == line.split(space)


@pytest.mark.parametrize('character', ['a', 'é', '日', '😀', '\0'])
def test_a_word_that_is_too_long_is_cut_between_characters(character):
  line = 'and ' + character * (MOST_BYTES // len(character.encode()) + 1) + ' so on'
  parts, _ = lines_of([line], MOST_BYTES)
  assert all(len(part.encode()) <= SHORT_BYTES for part in parts)
  assert ''.join(parts).replace(' ', '') == line.replace(' ', '')


def test_white_space_that_is_too_long_gives_no_lines_of_its_own():
  parts, _ = lines_of(['a' + ' ' * MOST_BYTES + 'b'], MOST_BYTES)
  assert all(part.strip() for part in parts) and ''.join(parts).split() == ['a', 'b']


def test_lines_with_the_reserved_character_are_counted_however_long():
  long = 'a' * MOST_BYTES + '\u2585'
  assert lines_of(['one\n\u2585\ntwo \u2585', long], MOST_BYTES) == (['one'], 3)
