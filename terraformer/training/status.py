"""Exit statuses of a training process, for whatever starts it again."""

FAILED = 1  # something nobody foresaw, with a traceback; Python's own
BAD_INPUT = 2
DIVERGED = 3  # the loss is not finite, or jumped: starting again does not help
RESTART = 75  # stopped by the machine (SIGTERM, a lost host, a hung step): start again, it goes on (EX_TEMPFAIL)
INTERRUPTED = 130  # somebody pressed Ctrl-C
