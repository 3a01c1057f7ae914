"""Measures a running server: tokens per second of clients that each send the next request when the last has ended.

The clients run on this machine and take a part of it. The figure to compare with is that of the scheduler without HTTP,
`benchmarks/serve.py`, with as many clients and tokens.

    terraformer serve --max_concurrent=8 &
    python benchmarks/serve_http.py --url=http://127.0.0.1:8000
"""

import argparse
import http.client
import json
import statistics
import threading
import time

_TEXT = 'the river runs to the sea and the sea is wide so we build a bridge of stone and wood over it'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--url', default='http://127.0.0.1:8000', help='of the server (default: %(default)s)')
  parser.add_argument('--clients', type=int, default=8, help='(default: %(default)s)')
  parser.add_argument('--tokens', type=int, default=96, help='of a text (default: %(default)s)')
  parser.add_argument('--words', type=int, default=12, help='of a prompt (default: %(default)s)')
  parser.add_argument('--temperature', type=float, default=0.0, help='(default: %(default)s)')
  parser.add_argument('--turns', type=int, default=3, help='of measurements (default: %(default)s)')
  parser.add_argument('--seconds', type=float, default=5.0, help='of a turn (default: %(default)s)')
  flags = parser.parse_args()
  measure(flags, stream=True, seconds=2.0)  # compiles what is missing
  for stream in (False, True):
    speeds = [measure(flags, stream, flags.seconds) for _ in range(flags.turns)]
    what = 'streams' if stream else 'whole texts'
    print(f'{what}: {statistics.median(speeds):,.0f} tokens per second ({min(speeds):,.0f} to {max(speeds):,.0f})')


def measure(flags: argparse.Namespace, stream: bool, seconds: float) -> float:
  """Returns the tokens per second of all clients together."""
  counts, begun = [0] * flags.clients, time.perf_counter()

  def work(number: int) -> None:
    connection = http.client.HTTPConnection(flags.url.removeprefix('http://'))
    words = _TEXT.split() * flags.words
    while time.perf_counter() < begun + seconds:
      prompt = ' '.join(words[number : number + flags.words])
      body = {'prompt': prompt, 'max_tokens': flags.tokens, 'temperature': flags.temperature, 'stream': stream}
      body |= {'stream_options': {'include_usage': True}} if stream else {}
      connection.request('POST', '/v1/completions', json.dumps(body), {'Content-Type': 'application/json'})
      text = connection.getresponse().read().decode()
      answer = json.loads(text.split('\n\n')[-3].removeprefix('data: ') if stream else text)
      counts[number] += answer['usage']['completion_tokens']

  threads = [threading.Thread(target=work, args=(number,)) for number in range(flags.clients)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return sum(counts) / (time.perf_counter() - begun)


if __name__ == '__main__':
  main()
