"""The command line: a verb parses, calls the API, prints. Each verb imports what it needs, so ``--help`` is instant.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 one line ``error: ...`` about
the data; 2 wrong usage; 130 interrupted; 141 the reader of our output went away.
"""

# Each registers its verbs, and --help lists them in this order: those of daily use first.
# isort: off
import anyecg.cli.analyze
import anyecg.cli.verbs
import anyecg.cli.training  # noqa: F401
from anyecg.cli.program import app as app
