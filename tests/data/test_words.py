"""Words of any script."""

import unicodedata

import pytest

from terraformer.data.words import first_words, words

TEXTS = {
  'Straße STRASSE strasse': ['strasse', 'strasse', 'strasse'],
  'Привет, Мир!': ['привет', 'мир'],
  'Σίσυφος ΣΊΣΥΦΟΣ': ['σίσυφοσ', 'σίσυφοσ'],
  'हिन्दी में क्षत्रिय': ['हिन्दी', 'में', 'क्षत्रिय'],
  'தமிழ் மொழி': ['தமிழ்', 'மொழி'],
  'اللُّغَة العربية، ٢٠٢٤': ['اللُّغَة', 'العربية', '٢٠٢٤'],
  'می\u200cخواهم': ['میخواهم'],
  'שָׁלוֹם עולם': ['שָׁלוֹם', 'עולם'],
  '한국어 문장': ['한국어', '문장'],
  '今天，天气好。': ['今', '天', '天', '气', '好'],
  'GPT模型2023年': ['gpt', '模', '型', '2023', '年'],
  '葛\U000e0100城 佐々木 二〇': ['葛', '城', '佐', '々', '木', '二', '〇'],
  'ラーメンを食べる': ['ラーメン', 'を', '食', 'べ', 'る'],
  'ﾗｰﾒﾝ ｶﾞｽ': ['ラーメン', 'ガス'],
  'ปีน้อง2563': ['ปี', 'น้', 'อ', 'ง', '2563'],
  'ພາສາ': ['ພ', 'າ', 'ສ', 'າ'],
  'ខ្មែរ': ['ខ្មែ', 'រ'],
  'မြန်မာ': ['မြ', 'န်', 'မာ'],
  'བོད་ཡིག།': ['བོད', 'ཡིག'],
  'አማርኛ፡ቋንቋ።': ['አማርኛ', 'ቋንቋ'],
  'ＡＢＣ１２３ abc123': ['abc123', 'abc123'],
  'Word™ 👍👩\u200d👧ok🇫🇷 a_b 3.14': ['word', 'ok', 'a', 'b', '3', '14'],
  'H₂O m² so\u00adft \ufeffend': ['h2o', 'm2', 'soft', 'end'],
  ' ́ ̈': [],
  '': [],
}


@pytest.mark.parametrize('text', TEXTS)
def test_a_text_has_the_words_that_a_reader_of_its_script_sees(text):
  expected = [unicodedata.normalize('NFKC', word) for word in TEXTS[text]]
  assert words(text) == expected


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
@pytest.mark.parametrize('text', TEXTS)
def test_composed_and_decomposed_texts_have_the_same_words(text, form):
  assert words(unicodedata.normalize(form, text)) == words(text)


@pytest.mark.parametrize('apostrophe', "'’ʼ‘ʻ＇")
def test_an_apostrophe_divides_however_it_is_typed(apostrophe):
  assert words(f'don{apostrophe}t') == ['don', 't']


def test_first_words_are_cut_behind_the_last_with_their_characters():
  assert first_words('今天，天气很好。', 3) == '今天，天'
  assert first_words('Ёж  и  лиса.', 2) == 'Ёж  и'
  assert first_words('คนนี้ดี', 3) == 'คนนี้'
  assert first_words('one two.', 2) == 'one two' and first_words('one two.', 3) == 'one two.'
