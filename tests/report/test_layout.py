import numpy as np
import pytest

from anyecg.record import Annotation
from anyecg.report.layout import (
    MARGIN_MM,
    MM_PER_S,
    SHEET_HEIGHT_MM,
    Cell,
    Row,
    clock,
    moment,
    outstanding_starts,
    rhythm_lead,
    sheets,
    trace,
)
from anyecg.result import Anomaly, LeadQuality

FIFTEEN = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "X", "Y", "Z")


def drawn_leads(laid) -> list[str]:
    return [cell.lead for sheet in laid for row in sheet.rows for cell in row.cells]


def test_twelve_leads_are_three_by_four_and_a_rhythm_strip(twelve):
    (sheet,) = sheets(twelve)
    assert [[cell.lead for cell in row.cells] for row in sheet.rows] == [
        ["I", "aVR", "V1", "V4"],
        ["II", "aVL", "V2", "V5"],
        ["III", "aVF", "V3", "V6"],
        ["II"],
    ]
    assert [(c.start_s, c.stop_s) for c in sheet.rows[0].cells] == [(0, 2.5), (2.5, 5), (5, 7.5), (7.5, 10)]
    assert [c.x_mm for c in sheet.rows[0].cells] == [MARGIN_MM + k * 62.5 for k in range(4)]
    assert [row.beats for row in sheet.rows] == [False, False, False, True]
    assert sheet.mm_per_mv == 10 and sheet.calibrated
    assert sheet.width_mm <= 277  # A4 landscape less margins of 10 mm


def test_baselines_lie_on_heavy_lines(twelve):
    (sheet,) = sheets(twelve)
    top = 0.0
    for row in sheet.rows:
        assert (top + 5.0 + row.up_mm) % 5 == 0
        top += row.height_mm
    assert sheet.height_mm == top


@pytest.mark.parametrize(
    "leads", [("ECG0",), ("MLII", "V5"), ("I", "II", "III"), FIFTEEN[:6], (*FIFTEEN[:2], *FIFTEEN[6:12]), FIFTEEN]
)
def test_every_lead_is_drawn_and_every_sheet_fits_a_page(make, leads):
    laid = sheets(make(leads))
    assert set(drawn_leads(laid)) == set(leads)
    assert all(sheet.height_mm <= SHEET_HEIGHT_MM + 5 for sheet in laid)


def test_a_minute_of_one_lead_is_shown_whole(make):
    laid = sheets(make(("ECG0",), 63.0, 250.0))
    rows = [row for sheet in laid for row in sheet.rows]
    assert [row.cells[0].start_s for row in rows] == [0, 10, 20, 30, 40, 50, 60]
    assert rows[-1].cells[0].stop_s == 63.0
    assert "the whole recording" in laid[0].title


def test_five_minutes_show_the_start_and_what_stands_out(long_single):
    rows = [row for sheet in sheets(long_single) for row in sheet.rows]
    starts = [row.cells[0].start_s for row in rows]
    assert len(rows) == 12
    assert starts[:4] == [0, 10, 20, 30]
    assert 150.0 in starts  # the anomalous segment at 152 s
    assert starts == sorted(starts)
    assert rows[4].note.endswith("stands out") and not rows[0].note.endswith("stands out")


def test_outstanding_is_where_the_segments_are_then_where_surprise_is(make):
    result = make(("ECG0",), 100.0, 250.0)
    surprise = np.ones_like(result.surprise)
    surprise[0, 60:80] = 5.0  # 30 to 40 s
    anomaly = Anomaly(1.0, 50.0, (Annotation(71.0, 72.0, "anomaly", "x", None, 3.0),))
    changed = replace_fields(result, surprise=surprise, anomaly=anomaly)
    assert outstanding_starts(changed, 1) == [70.0]
    assert outstanding_starts(changed, 2) == [30.0, 70.0]
    assert outstanding_starts(changed, 1, skip_s=80.0) == [80.0]


def replace_fields(result, **fields):
    from dataclasses import replace

    return replace(result, **fields)


def test_rhythm_strip_takes_another_lead_when_ii_is_bad(twelve):
    assert rhythm_lead(twelve) == "II"
    leads = dict(twelve.quality.leads) | {"II": LeadQuality(0.0, ("flat",))}
    quality = type(twelve.quality)(True, leads)
    changed = replace_fields(twelve, quality=quality, rhythm=replace_fields(twelve.rhythm, lead="V4"))
    assert rhythm_lead(changed) == "V4"
    assert rhythm_lead(replace_fields(twelve, restored_leads=("II",))) == twelve.rhythm.lead


def test_trace_is_25_mm_a_second_and_breaks_at_gaps(make):
    result = make(("II",))
    signal = result.prepared.signal.copy()
    signal[0] = 0.5
    signal[0, 900:1200] = np.nan
    record = result.prepared.with_(signal=signal)
    cell = Cell("II", 0.0, 10.0, MARGIN_MM)
    lines = trace(record, cell, Row((cell,), 20, 20), 10.0).lines
    assert len(lines) == 2
    assert lines[0][0, 0] == MARGIN_MM
    assert lines[1][0, 0] == pytest.approx(MARGIN_MM + 4.0 * MM_PER_S)
    assert (lines[0][:, 1] == 5.0).all()


def test_a_trace_that_leaves_its_band_is_cut_and_marked(make):
    result = make(("II",))
    cell = Cell("II", 0.0, 10.0, MARGIN_MM)
    drawn = trace(result.prepared, cell, Row((cell,), 5.0, 5.0), 10.0)
    assert max(line[:, 1].max() for line in drawn.lines) == 5.0
    assert len(drawn.cut_mm) == len(result.rhythm.r_peaks_s)
    assert all(side == 1 for _, side in drawn.cut_mm)
    assert drawn.cut_mm[0][0] == pytest.approx(MARGIN_MM + result.rhythm.r_peaks_s[0] * MM_PER_S, abs=1.0)


def test_tall_leads_get_half_the_gain(make):
    result = make(("II",))
    tall = replace_fields(result, prepared=result.prepared.with_(signal=6 * result.prepared.signal))
    assert sheets(tall)[0].mm_per_mv == 5.0


def test_unknown_gain_is_scaled_to_fit_and_not_called_calibrated(make):
    result = make(("II",))
    prepared = result.prepared.with_(signal=700 * result.prepared.signal, gain_known=False)
    (sheet,) = sheets(replace_fields(result, prepared=prepared))
    assert not sheet.calibrated
    assert 5 < sheet.mm_per_mv * np.ptp(prepared.signal) < 30


def test_clock():
    assert [moment(s) for s in (0, 28.5, 59.96, 3661.25)] == ["0:00.0", "0:28.5", "1:00.0", "1:01:01.2"]
    assert [clock(s) for s in (0, 9.6, 61, 3661)] == ["0:00", "0:10", "1:01", "1:01:01"]
