"""What is checked of every record: one question a function, each ``(record) -> list of warnings``, none of them exact.

A warning that comes too often is not read. Each threshold was therefore set on recordings of five public databases so
that at most one good recording in a hundred is complained about; the tests measure it again.
"""
