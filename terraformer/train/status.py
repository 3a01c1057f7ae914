"""Exit statuses of a training process, for whatever starts it again."""

DIVERGED = 1  # the loss is not finite, or jumped: starting again does not help
BAD_INPUT = 2
RESTART = 75  # stopped by the machine (SIGTERM, a lost host, a hung step): start again, it goes on (EX_TEMPFAIL)
INTERRUPTED = 130  # somebody pressed Ctrl-C
