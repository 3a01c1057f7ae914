import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from rouge_score import rouge_scorer

from terraformer.data.scores import ROUGE_TYPES, STANDARD_TYPES, RougeTokenizer, rouge_of_each, rouge_tokenizer_for
from terraformer.eval.rouge import baselines, lead, lead_sentences, rouge, score, sentences
from tests.prepared import sentences as random_sentences


def pairs(count=200):
  """References and predictions of one to three lines, of few words, so that they have much in common."""
  rng = np.random.default_rng(0)
  lines = iter(random_sentences(6 * count, seed=1, words=8))
  texts = ['\n'.join(next(lines) for _ in range(rng.integers(1, 4))) for _ in range(2 * count)]
  return texts[:count], texts[count:]


def test_scores_of_200_pairs_are_those_of_the_package():
  references, predictions = pairs()
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
  each = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
  found, means = score(references, predictions), rouge(references, predictions)
  for name in ROUGE_TYPES:
    expected = 100 * sum(one[name].fmeasure for one in each) / len(each)
    assert found.mean[name] == pytest.approx(expected, abs=1e-9)
    assert means[name] == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_the_mean_and_are_the_same_every_time():
  references, predictions = pairs(40)
  before = np.random.get_state()[1].tolist()
  found = score(references, predictions)
  assert np.random.get_state()[1].tolist() == before
  for name, (low, high) in found.interval.items():
    assert low < found.mean[name] < high
    spread = np.std([rouge([r], [p])[name] for r, p in zip(references, predictions, strict=True)]) / 40**0.5
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)  # of 1,000 resamples
  assert score(references, predictions) == found


def test_a_perfect_summary_scores_100_and_an_empty_one_0():
  assert rouge(['one two three'], ['one two three']) == dict.fromkeys(ROUGE_TYPES, 100)
  assert set(rouge(['one two three'], ['']).values()) == {0}


def test_lead_takes_the_first_words_across_lines():
  assert lead('one two\nthree  four five', 4) == 'one two three four'


def test_lead_sentences_are_lines_and_what_full_stops_divide():
  text = 'We show e.g. this. It holds, at 0.5 and up!\n\nso it is\nThe end.'
  assert lead_sentences(text, 3) == 'We show e.g. this.\nIt holds, at 0.5 and up!\nso it is'


def test_three_sentences_are_a_baseline_where_references_have_several():
  source = 'One two. Three four. Five six. Seven.'
  assert baselines([source], ['One two.'])[1] == {}
  assert baselines([source], ['One two.\nThree four.\nFive six.'])[1]['rougeLsum'] == 100


def paragraphs():
  """English as people write it: those of the documentation that are ASCII."""
  folder = Path(__file__).parent.parent.parent
  texts = [part for path in sorted(folder.glob('docs/*.md')) for part in path.read_text().split('\n\n')]
  return [text for text in texts if text.isascii() and len(text) > 100]


def test_ascii_scores_are_those_of_the_package_to_the_last_bit():
  texts = paragraphs()[:40]
  scorer = rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)
  each = [scorer.score(*pair) for pair in zip(texts, texts[1:], strict=False)]
  assert len(each) > 20 and rouge_of_each(texts[:-1], texts[1:]) == each
  means = {name: 100 * float(np.mean([one[name].fmeasure for one in each])) for name in ROUGE_TYPES}
  assert rouge(texts[:-1], texts[1:]) == score(texts[:-1], texts[1:]).mean == means


SCRIPTS = {
  'Russian': ('Мама мыла раму.\nПотом она ушла.', 'Кот спит'),
  'Greek': ('Η γάτα κοιμάται.\nΜετά έφυγε.', 'Καλημέρα κόσμε'),
  'German': ('Die schöne Müllerin.\nSie fährt weg.', 'Äpfel und Öl'),
  'Chinese': ('今天天气很好。\n我们去公园。', '他不吃肉'),
  'Japanese': ('ラーメンを食べた。\nおいしかった。', 'パン屋'),
  'Korean': ('고양이가 잠을 잔다.\n그리고 갔다.', '안녕 세상'),
  'Arabic': ('ذهب الولد إلى المدرسة.\nثم عاد.', 'مرحبا يا عالم'),
  'Persian': ('من می\u200cخواهم بروم.\nاو رفت.', 'سلام دنیا'),
  'Hebrew': ('הילד הלך לבית הספר.\nאחר כך חזר.', 'שלום עולם'),
  'Hindi': ('राम घर गया।\nसीता भी गई।', 'नमस्ते दुनिया'),
  'Tamil': ('பூனை தூங்குகிறது.\nபிறகு சென்றது.', 'வணக்கம் உலகம்'),
  'Thai': ('แมวนอนหลับ\nแล้วไปเที่ยว', 'สุข'),
  'Khmer': ('ឆ្មាដេក។\nវាទៅ។', 'ប្រជុំ'),
  'Georgian': ('კატას სძინავს.\nმერე წავიდა.', 'გამარჯობა მსოფლიო'),
  'Amharic': ('ድመቷ ተኝታለች።\nከዚያ ሄደች።', 'ሰላም ዓለም'),
}


@pytest.mark.parametrize('language', SCRIPTS)
def test_equal_texts_score_100_and_disjoint_ones_0_in_any_script(language):
  text, other = SCRIPTS[language]
  for written in (text, unicodedata.normalize('NFD', text)):
    equal = rouge([text], [written])
    assert {name: equal[name] for name in ROUGE_TYPES} == dict.fromkeys(ROUGE_TYPES, 100)
  found = rouge([text], [other])
  assert {name: found[name] for name in ROUGE_TYPES} == dict.fromkeys(ROUGE_TYPES, 0)


# F1 is twice what is shared over what both have together: words, pairs of words, and words in order.
SHARED = {
  'Russian': ('мама мыла раму', 'Мама мыла окно', 4 / 6, 2 / 4, 4 / 6),
  'German': ('die schöne Müllerin', 'eine schöne müllerin', 4 / 6, 2 / 4, 4 / 6),
  'Hindi': ('राम घर गया', 'राम घर आया', 4 / 6, 2 / 4, 4 / 6),
  'Arabic': ('ذهب الولد إلى المدرسة', 'المدرسة إلى الولد ذهب', 1, 0, 2 / 8),
  'Chinese': ('今天天气很好', '今天下雨', 4 / 10, 2 / 8, 4 / 10),
  'Japanese': ('ラーメンを食べる', 'ラーメンを作る', 6 / 9, 2 / 7, 6 / 9),
  'Thai': ('กขค', 'กคขจ', 6 / 7, 0, 4 / 7),
}


@pytest.mark.parametrize('language', SHARED)
def test_texts_that_share_some_words_score_what_they_share(language):
  reference, written, *expected = SHARED[language]
  found = rouge([reference], [written])
  assert [found[name] for name in ROUGE_TYPES] == pytest.approx([100 * x for x in (*expected, expected[-1])])


def test_the_tokenizer_is_that_of_the_split_and_the_standard_score_stands_beside():
  references, written = ['the cats ran', 'Мама мыла раму'], ['the cat ran', 'Мама мыла раму']
  alone, both = rouge(references[:1], written[:1]), rouge(references, written)
  assert list(alone) == list(ROUGE_TYPES) and alone['rouge1'] == 100  # of stems
  assert list(both) == [*ROUGE_TYPES, *STANDARD_TYPES]
  assert both['rouge1'] == pytest.approx((100 * 2 / 3 + 100) / 2)
  assert both['standard_rouge1'] == pytest.approx((100 + 0) / 2)
  found = score(references, written)
  assert found.mean == both and list(found.interval) == list(both)
  assert found.each == pytest.approx([(200 / 3 + 0 + 200 / 3) / 3, 100])  # of words as they are


@pytest.mark.parametrize(
  ('references', 'tokenizer'),
  [
    (['all of it', 'is ASCII.'], 'standard'),
    ([], 'standard'),
    (['a “quotation”'], 'unicode'),
    (['1990–2000'], 'unicode'),
    (['and so on…'], 'unicode'),
    (['plain', 'naïve'], 'unicode'),
  ],
)
def test_references_alone_choose_the_tokenizer(references, tokenizer):
  assert rouge_tokenizer_for(references) == tokenizer
  assert ('standard_rouge1' in rouge(references, ['“Ёж”'] * len(references))) == (tokenizer == 'unicode')


def test_typographic_quotes_leave_english_what_it_is():
  plain = rouge(["He's said it twice"], ["He's said so"])
  typed = rouge(['He’s “said” it twice…'], ['He’s said so'])
  assert {name: typed[f'standard_{name}'] for name in ROUGE_TYPES} == plain
  assert {name: typed[name] for name in ROUGE_TYPES} == plain  # no word here has another stem


def test_lead_counts_words_of_scripts_without_spaces():
  source = '今天，天气很好。我们去公园玩吧。'
  assert lead(source, tokenizer=RougeTokenizer.UNICODE) == '今天，天气很好。我们去公'
  assert lead('Ёж и\nлиса  идут.', 3, tokenizer=RougeTokenizer.UNICODE) == 'Ёж и лиса'
  of_words, _ = baselines([source], ['今天天气很好我们去公'])
  assert of_words['rouge1'] == 100


@pytest.mark.parametrize(
  'parts',
  [
    ['今天很好。', '我们去！', '好吗？', '“好。”', '走了。'],
    ['「はい。」と言った。', 'そして２．５だ．', 'また１３．５だ｡', '次。'],
    ['यह है।', 'वह नहीं है॥', 'अच्छा।'],
  ],
)
def test_stops_without_capitals_divide_without_spaces(parts):
  assert sentences(''.join(parts)) == parts
  assert sentences(' '.join(parts)) == parts


@pytest.mark.parametrize(
  'parts',
  [
    ['Он пришёл.', 'Ёж ушёл!', '«Да».', '2 дня'],
    ['Ça va.', 'Élan, e.g. ça?', 'Über'],
    ['هل هذا؟', 'لا أعرف.', 'نعم'],
    ['یہ ہے۔', 'وہ ہے۔'],
    ['했다.', '그는 갔다.'],
    ['ასეა.', 'კარგად.'],
    ['Так и т.д. и т.п.', 'Всё'],
  ],
)
def test_sentences_of_other_scripts_begin_with_their_capitals_or_have_none(parts):
  assert sentences(' '.join(parts)) == parts


def test_ascii_sentences_are_those_of_ascii_rules():
  rule = re.compile(r'\s*\n\s*|(?<=[.!?])\s+(?=["\'(\[]?[A-Z0-9])')
  rng = np.random.default_rng(0)
  for characters in rng.choice(list('.!? \n\t"\'([)AZaz09_,-'), (3000, 20)):
    text = ''.join(characters)
    assert sentences(text) == [part for part in rule.split(text.strip()) if part]
