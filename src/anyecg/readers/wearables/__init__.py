"""What watches and hand-held recorders export."""
