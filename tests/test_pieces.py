"""Pieces: where they begin depends on the recording's clock alone, and together they are the recording."""

import numpy as np
import pytest

from anyecg.errors import SignalError
from anyecg.pieces import PIECE_S, Cutter, Piece, prepare_in_pieces
from anyecg.record import Record
from anyecg.signals import Preparation, prepare

TO = Preparation()


def noise(seconds: float, fs: float = 250.0, n_leads: int = 2) -> Record:
    """Return smooth noise in mV."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.1, (n_leads, round(seconds * fs)))
    signal = np.apply_along_axis(np.convolve, 1, steps, np.hanning(9), "same")
    return Record(signal, fs, ("I", "II", "V1", "V2")[:n_leads])


def cut(record: Record, chunk: int) -> list[Piece]:
    """Return all pieces of a record that arrives in chunks of so many samples."""
    cutter = Cutter(record, TO)
    found = [p for k in range(0, record.n_samples, chunk) for p in cutter.feed(record.signal[:, k : k + chunk])]
    return [*found, cutter.rest()]


@pytest.mark.parametrize("fs", [128.0, 250.0, 257.3, 360.0, 1000.0])
def test_pieces_do_not_depend_on_chunks(fs: float) -> None:
    record = noise(250.0, fs)
    whole, parts = cut(record, record.n_samples), cut(record, round(7.3 * fs))
    assert [p.start_s for p in parts] == [0.0, 60.0, 120.0, 180.0]
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.prepared.signal, other.prepared.signal)
        assert np.array_equal(one.raw.signal, other.raw.signal)


def test_pieces_are_the_recording_end_to_end() -> None:
    record = noise(307.0)
    pieces = cut(record, 1000)
    assert np.array_equal(np.concatenate([p.raw.signal for p in pieces], axis=1), record.signal)
    joined = np.concatenate([p.prepared.signal for p in pieces], axis=1)
    assert joined.shape == (2, round(307.0 * TO.fs_hz))
    # The pass-band is no wall: what little a constant leaves is not the same for a minute as for the whole.
    assert np.abs(joined - prepare(record).signal).max() < 0.02
    assert [len(p.prepared.signal[0]) for p in pieces[:-1]] == [round(PIECE_S * TO.fs_hz)] * 4
    assert pieces[-1].end_s == pytest.approx(307.0)


def test_the_last_piece_is_one_to_two_minutes_long() -> None:
    for seconds, n_pieces in ((119.0, 1), (120.0, 1 + 1), (179.9, 2), (180.0, 3)):
        assert len(cut(noise(seconds), 5000)) == n_pieces, seconds


def test_a_short_record_is_one_piece_and_prepared_as_ever() -> None:
    record = noise(20.0)
    (piece,) = cut(record, 999)
    assert np.array_equal(piece.prepared.signal, prepare(record).signal)
    assert np.array_equal(prepare_in_pieces(record, TO).signal, prepare(record).signal)


def test_a_long_record_is_prepared_as_a_stream_of_it() -> None:
    record = noise(400.0, 257.3)
    joined = np.concatenate([p.prepared.signal for p in cut(record, 3000)], axis=1)
    assert np.array_equal(prepare_in_pieces(record, TO).signal, joined)


def test_minutes_without_signal_are_pieces_too() -> None:
    record = noise(400.0)
    record.signal[:, (100 * 250) : (260 * 250)] = np.nan
    pieces = cut(record, 10_000)
    recorded = [bool(np.isfinite(p.prepared.signal).any()) for p in pieces]
    assert recorded == [True, True, False, False, True, True]
    nothing = record.with_(signal=np.full_like(record.signal, np.nan))
    with pytest.raises(SignalError, match="no lead has a recorded sample"):
        prepare_in_pieces(nothing, TO)


def test_a_cutter_goes_on_where_another_stopped() -> None:
    record = noise(400.0)
    whole = cut(record, record.n_samples)
    later = Cutter(record, TO, first_piece=3)
    later_pieces = [*later.feed(record.signal[:, later.needed_from :]), later.rest()]
    for one, other in zip(whole[3:], later_pieces, strict=True):
        assert one.number == other.number
        assert np.array_equal(one.prepared.signal, other.prepared.signal)


def test_samples_need_a_row_a_lead() -> None:
    with pytest.raises(SignalError, match="expected \\(2, n\\)"):
        list(Cutter(noise(1.0), TO).feed(np.zeros((3, 10))))
