"""Formats of devices of clinics and the exports of their makers' programs."""

from anyecg.readers.vendors.devices import NAME, SEVERAL, extent, read, sniff

__all__ = ["NAME", "SEVERAL", "extent", "read", "sniff"]
