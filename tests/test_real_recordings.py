"""Real recordings, whole: what a stream finds does not depend on how the samples come."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import anyecg

DATABASES = ("mitdb", "afpdb")


@pytest.mark.data
@pytest.mark.parametrize("name", DATABASES)
def test_codes_beats_and_episodes_are_those_of_one_pass(name: str, database: Callable[[str], Path]) -> None:
    path = sorted(database(name).glob("*.hea"))[0]
    record = anyecg.read(path)
    model = anyecg.load("nano", threads=1)
    one = anyecg.analyze(record, model)
    assert record.duration_s > 1500
    assert np.array_equal(model.tokenize(record).codes, one.tokens.codes)
    for chunk_s in (31.7,):
        stream = anyecg.Stream(record, model)
        n = round(chunk_s * record.fs)
        for k in range(0, record.n_samples, n):
            stream.feed(record.signal[:, k : k + n])
        found = stream.result()
        assert np.array_equal(found.tokens.codes, one.tokens.codes)
        assert np.array_equal(found.rhythm.r_peaks_s, one.rhythm.r_peaks_s)
        assert found.beats == one.beats
        assert found.findings == one.findings
        assert found.anomaly == one.anomaly
