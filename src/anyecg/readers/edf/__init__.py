"""EDF, EDF+ and BDF: the files, the layout of their headers, EDF+D with its gaps, and what annotations say."""

from anyecg.readers.edf.files import NAME, extent, read, sniff

__all__ = ["NAME", "extent", "read", "sniff"]
