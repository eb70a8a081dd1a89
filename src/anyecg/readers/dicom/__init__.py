"""DICOM waveforms and the annotations beside them."""

from anyecg.readers.dicom.files import NAME, read, sniff

__all__ = ["NAME", "read", "sniff"]
