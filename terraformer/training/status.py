"""Exit statuses of a training process, for the program that restarts it."""

FAILED = 1  # unexpected error with a traceback; Python's own status
BAD_INPUT = 2
DIVERGED = 3  # the loss is not finite, or jumped: a restart does not help
RESTART = 75  # stopped by the machine (SIGTERM, a lost host, a hung step): restart it to resume (EX_TEMPFAIL)
INTERRUPTED = 130  # the user pressed Ctrl-C
