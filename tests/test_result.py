import numpy as np
import pytest

from anyecg.record import Annotation
from anyecg.result import Beats


@pytest.fixture
def beats() -> Beats:
    return Beats(
        np.array([0.5, 1.3, 1.8, 3.0]),
        np.array([0, 0, 2, 1], dtype=np.uint8),
        np.array([1, 0.5, 0.75, 0.25], np.float32),
    )


def test_beats_are_a_sequence_of_annotations(beats: Beats) -> None:
    assert len(beats) == 4 and not Beats()
    assert beats[2] == Annotation(1.8, 1.8, "beat", "V", score=0.75) == beats[-2]
    assert list(beats) == [beats[i] for i in range(4)]
    assert list(beats[1:3]) == list(beats)[1:3] and beats[0] in beats
    assert [type(v) for v in vars(beats[0]).values()] == [float, float, str, str, type(None), float]
    with pytest.raises(IndexError):
        beats[4]


def test_beats_are_equal_where_all_they_hold_is(beats: Beats) -> None:
    assert beats == beats[:] and beats != beats[:3] and beats != list(beats)
    assert beats != Beats(beats.at_s, beats.classes, beats.scores / 2)


def test_beats_are_counted_by_class(beats: Beats) -> None:
    assert beats.counts() == {"N": 2, "S": 1, "V": 1, "F": 0, "Q": 0}
    assert beats.codes.tolist() == ["N", "N", "V", "S"] == [beat.code for beat in beats]


def test_beats_of_a_stretch_begin_with_it(beats: Beats) -> None:
    assert beats.within(1.3, 3.0) == Beats(np.array([0.0, 0.5]), beats.classes[1:3], beats.scores[1:3])
    assert not beats.within(5.0, 9.0)
