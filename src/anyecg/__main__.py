"""``anyecg`` and ``python -m anyecg``."""

import io
import signal
import sys
import threading
from types import FrameType


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from anyecg.cli import app

        for stream in (sys.stdout, sys.stderr):
            # A file's name or a sparkline that the terminal's encoding lacks is no reason to fail.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        app(prog_name="anyecg")
    except KeyboardInterrupt:  # outside the verbs, which handle their own
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
