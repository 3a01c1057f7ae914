import dataclasses
import re

import pytest

from terraformer.config import UserError
from terraformer.data.scores import STANDARD_TYPES, RougeTokenizer
from terraformer.eval.evaluate import Evaluation
from terraformer.eval.page import as_html, write_page

SCORES = dict.fromkeys(('rouge1', 'rouge2', 'rougeL', 'rougeLsum'), 12.345)


def result(scores):
  texts = [(f'source <{i}> ' + 'x' * 900, f'reference {i}', f'written {i} & more') for i in range(len(scores))]
  intervals = dict.fromkeys(SCORES, (10.0, 14.0))
  figures = (24, 'test', len(scores), 2.0, 0.5, 7.4, 9.1, SCORES, intervals, SCORES, {}, 2.5)
  by_task = {'news': SCORES | {'texts': 7, 'exact_match': 5.0}}
  return Evaluation(*figures, by_task, scores, texts, 'x.jsonl')


MIXTURE = {'news': SCORES | {'texts': 7, 'exact_match': 5.0}, 'copy': {'texts': 3, 'exact_match': 200 / 3}}


def numbers(scores):
  """The evaluation of a task that is scored by exact match alone."""
  empty = dict.fromkeys(('rouge', 'rouge_intervals', 'lead_rouge', 'lead3_rouge', 'by_task'), {})
  return dataclasses.replace(result(scores), rouge_tokenizer=None, **empty)


def both(evaluation):
  """The evaluation of a split whose references are not all ASCII."""
  beside = dict.fromkeys(STANDARD_TYPES, 45.6)
  return dataclasses.replace(
    evaluation,
    rouge=evaluation.rouge | beside,
    rouge_intervals=evaluation.rouge_intervals | dict.fromkeys(STANDARD_TYPES, (40.0, 50.0)),
    lead_rouge=evaluation.lead_rouge | beside,
    by_task={name: scores | beside for name, scores in evaluation.by_task.items()},
    rouge_tokenizer=RougeTokenizer.UNICODE,
  )


def page(scores):
  return as_html(result(scores), 'a <run>')


def test_it_has_the_best_the_median_and_the_worst_in_order():
  text = page([float(i) for i in range(40)])
  kinds = [[int(n) - 1 for n in re.findall(r'example (\d+), score', part)] for part in text.split('<h2>')]
  by_name = {part.split('<')[0]: found for part, found in zip(text.split('<h2>'), kinds, strict=True)}
  assert by_name['Best'] == [39, 38, 37, 36, 35]
  assert by_name['Median'] == [17, 18, 19, 20, 21]
  assert by_name['Worst'] == [0, 1, 2, 3, 4]


def test_it_needs_no_other_file_and_shows_texts_as_they_are():
  text = page([1.0, 2.0])
  assert not re.search(r'(src|href)=|url\(|https?://', text)
  assert 'a &lt;run&gt;' in text and 'source &lt;0&gt;' in text and 'written 1 &amp; more' in text
  assert text.count('<details>') == 2
  assert '<td>exact match</td><td>2.5%</td>' in text
  assert '<td>news</td><td>7</td><td>5.0%</td><td>12.3' in text


def test_of_numbers_it_has_right_and_wrong_ones_and_no_rouge():
  text = as_html(numbers([100.0, 0.0, 0.0, 100.0]), 'run')
  kinds = {part.split('<')[0]: re.findall(r'example (\d+), score', part) for part in text.split('<h2>')}
  assert kinds['Right'] == ['1', '4'] and kinds['Wrong'] == ['2', '3']
  assert 'ROUGE' not in text and '<svg' not in text and '<td>exact match</td><td>2.5%</td>' in text


def test_a_task_of_a_mixture_has_its_own_scores():
  text = as_html(dataclasses.replace(result([1.0]), by_task=MIXTURE), 'run')
  assert '<td>copy</td><td>3</td><td>66.7%</td><td>-</td>' in text
  assert '<td>news</td><td>7</td><td>5.0%</td><td>12.3' in text
  assert 'For the other tasks, 100 for an exact match' in text


def test_it_says_whether_the_model_uses_its_source():
  uses = {'loss_with_shuffled_sources': 4.5, 'distinct_texts': 0.25, 'distinct_references': 0.5}
  text = as_html(dataclasses.replace(result([1.0]), **uses), 'run')
  assert '<p>Loss 2.00 nats per token, 4.50 with another text&#x27;s source: the model uses its source.</p>' in text
  assert '<td>4.5000</td>' in text and '<td>distinct texts</td><td>25.0%</td>' in text
  assert 'its source' not in page([1.0]) and 'distinct' not in page([1.0])


def test_an_example_is_shown_once():
  assert page([1.0, 2.0]).count('<article>') == 2


def test_a_page_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
  (tmp_path / 'evaluation_test.html').mkdir()
  with pytest.raises(UserError, match='cannot write .*evaluation_test.html: is a directory'):
    write_page(result([1.0]), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['evaluation_test.html']


def test_it_says_which_tokenizer_rouge_was_computed_with():
  ascii_page = page([1.0, 2.0])
  assert 'of the standard tokenizer' in ascii_page and 'standard ROUGE-1' not in ascii_page
  found = as_html(both(result([1.0, 2.0])), 'run')
  assert 'of the Unicode tokenizer' in found
  assert '<td>standard ROUGE-1</td><td>45.60</td><td>40.00 to 50.00</td><td>45.60</td>' in found
  assert '<th>standard ROUGE-Lsum</th>' in found and found.count('<td>45.60</td>') == 12
