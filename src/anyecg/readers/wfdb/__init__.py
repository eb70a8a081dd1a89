"""WFDB, PhysioNet's format: header, signal and annotation files of one record."""

from anyecg.readers.wfdb.files import NAME, extent, read, sniff

__all__ = ["NAME", "extent", "read", "sniff"]
