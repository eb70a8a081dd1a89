"""EDF, EDF+ and BDF: the files, the layout of their headers, EDF+D with its gaps, and what annotations say."""

from anyecg.readers.edf.files import GROWS, NAME, extent, read, sniff

__all__ = ["GROWS", "NAME", "extent", "read", "sniff"]
