"""WFDB, PhysioNet's format: header, signal and annotation files of one record."""

from anyecg.readers.wfdb.files import GROWS, NAME, extent, read, sniff

__all__ = ["GROWS", "NAME", "extent", "read", "sniff"]
