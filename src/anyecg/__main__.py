"""``anyecg`` and ``python -m anyecg``."""

import gc
import io
import os
import signal
import sys
import threading
from types import FrameType


def main() -> None:
    """Run the command line, and end the process."""
    signal.signal(signal.SIGINT, _interrupt)
    # Imports make a hundred thousand objects that stay: to look for garbage among them is a twentieth of a short run.
    gc.set_threshold(200_000, 20, 20)
    # Its helper threads wait for their next product with eyes open; our products are too small to gain from them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    code: object = 0
    try:
        from anyecg.cli import app

        for stream in (sys.stdout, sys.stderr):
            # A file's name or a sparkline that the terminal's encoding lacks is no reason to fail.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        app(prog_name="anyecg")
    except KeyboardInterrupt:  # outside the verbs, which handle their own
        print("interrupted", file=sys.stderr)
        code = 130
    except SystemExit as done:
        code = done.code
    _leave(code)


def _leave(code: object) -> None:
    """End the process at once: to take the libraries apart again takes a fifth of a second, and serves nobody.

    Files are closed by then; only the standard streams may hold something. mypy leaves in the same way.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
    status = code if isinstance(code, int) else int(code is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more, or no room is left
            status = status or 1
    os._exit(status)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but never inside an import.

    There some libraries turn it into an ImportError, and C++ modules (onnxruntime's) abort the process. The signal is
    sent again a little later instead.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            again = threading.Timer(0.02, signal.raise_signal, [signum])
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
