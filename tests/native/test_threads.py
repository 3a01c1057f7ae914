"""Threads: several callers, forks, and quiet when idle."""

import os
import threading
import time

import numpy as np

from tests.native.plans import dense_plan, opened, random, run

X, WEIGHTS = random(3, 700), random(700, 400, seed=1)


def test_two_models_in_two_threads_give_what_each_gives_alone():
  models = [opened(dense_plan(WEIGHTS * factor)) for factor in (1, 2)]
  alone = [run(model, X, 400) for model in models]
  found = [[], []]

  def work(number):
    for _ in range(200):
      found[number].append(np.array_equal(run(models[number], X, 400), alone[number]))

  threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert all(found[0]) and all(found[1]) and len(found[0]) == len(found[1]) == 200


def test_one_model_may_be_called_from_several_threads():
  model = opened(dense_plan(WEIGHTS))
  alone, found = run(model, X, 400), []
  threads = [threading.Thread(target=lambda: found.append(np.array_equal(run(model, X, 400), alone))) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == [True] * 8


def test_a_child_computes_what_its_parent_does():
  model = opened(dense_plan(WEIGHTS))
  expected = run(model, X, 400)
  child = os.fork()
  if not child:
    os._exit(0 if np.array_equal(run(model, X, 400), expected) else 1)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
  np.testing.assert_array_equal(run(model, X, 400), expected)


def test_threads_that_have_no_work_take_no_time():
  run(opened(dense_plan(WEIGHTS)), X, 400)
  time.sleep(0.05)
  before = time.process_time()
  time.sleep(0.3)
  assert time.process_time() - before < 0.05
