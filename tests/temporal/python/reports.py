"""What a test program tells the one that runs it: lines of JSON on its standard output, which nothing else may write to.

The SDK's native code logs to standard output in pieces of its own size, and a report in the middle of one is lost; once `keep_stdout`
is called, that log goes to standard error.
"""

import json
import os

STDOUT, STDERR = 1, 2
_to = STDOUT


def keep_stdout():
    global _to
    _to = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)


def say(line):
    os.write(_to, (json.dumps(line) + "\n").encode())
