"""Archives and compressed files: what they hold, unpacked within limits."""
