"""DICOM waveforms and the annotations beside them."""

from anyecg.readers.dicom.files import NAME, extent, read, sniff

__all__ = ["NAME", "extent", "read", "sniff"]
