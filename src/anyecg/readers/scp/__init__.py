"""SCP-ECG: the sections, the Huffman tables, and the long-term recording of version 3."""

from anyecg.readers.scp.files import NAME, read, sniff

__all__ = ["NAME", "read", "sniff"]
