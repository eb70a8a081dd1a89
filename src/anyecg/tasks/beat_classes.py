"""Prepared Record + R peaks + head ``beats`` -> the AAMI class of every beat: N S V F Q.

What the head sees of a beat is relative: its RR intervals to those around it (`anyecg.tasks.beat_rr`), its wave to the
record's own dominant beat. Nothing is learned from the record's labels (it has none): the dominant beat is a median,
found unsupervised. Two witnesses answer: trees tell from RR intervals alone, a small network from the wave and what
the trees said; whether a beat is N or S, the mean of their log odds decides.

    n beats, L leads (the best two, or one twice), T samples of a beat, F features
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anyecg.beats import qrs_band
from anyecg.heads import Head
from anyecg.ranks import median
from anyecg.record import Record
from anyecg.result import BEAT_CLASSES
from anyecg.tasks.beat_rr import RR_NEAR
from anyecg.tasks.beat_rr import rr_features as rr_features

HEAD = "beats"

CLASSES = BEAT_CLASSES

SEGMENT_BEATS = 2048
"""Beats that share a dominant beat: about half an hour. Posture changes the ECG over a day; memory stays bounded."""

BEFORE_S, AFTER_S = 0.36, 0.48
"""A beat's stretch about its R peak: from before the P wave to the end of most T waves."""

SPARE_S = 0.16
"""Gathered besides on each side: to move beats onto the dominant beat, and for the filter's edges."""

SNAP_S = 0.06
"""A given R peak moves to the largest 5-30 Hz deflection this near, so that reference marks and ours mean the same."""

LAG_S = 0.04
"""A beat moves up to this far to fit the dominant beat best."""

P_S, QRS_S, T_S = (-0.26, -0.07), (-0.10, 0.12), (0.12, 0.44)
"""Where to look for each wave about the R peak. Fixed: the dominant beat says what is usual there in this record."""

N_LEADS = 2
"""Leads of a beat: those in which the dominant beat stands out most. One lead is taken twice."""

LEAD_CHOICE_BEATS = 256
"""As many beats, evenly spread, decide which leads those are."""

P_BEATS = 31
"""Beats about a beat whose P waves together tell whether the record has any there: half a minute."""

ALIKE_R = 0.9
"""QRS complexes of one record that correlate so much are of one shape."""

FEWEST_BEATS = 3
"""With fewer there is neither a dominant beat nor a usual RR interval: no beat gets a class."""


@dataclass(frozen=True, eq=False)
class BeatInputs:
    """What the head sees of each beat.

    Parameters
    ----------
    rr : ndarray of float32, shape (n, R)
        From R peaks alone; see `anyecg.tasks.beat_rr.rr_features`.
    shape : ndarray of float32, shape (n, L * F)
        From the wave in each lead; see `_shape_features`. NaN where no lead was recorded.
    """

    rr: np.ndarray
    shape: np.ndarray


def classes_of(head: Head, inputs: "BeatInputs") -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each beat, its number in `CLASSES`, uint8 (n,), and its probability, float32 (n,).

    Notes
    -----
    Learned between patients, without any beat of the patient at hand (de Chazal 2004,
    doi:10.1109/TBME.2004.827359), from records without a pacemaker: it does not know paced beats. Which probability
    decides was chosen on left-out training patients; it need not be the largest.
    """
    p = class_probabilities(head, inputs)
    chosen = decide(p, head.config["decision"])
    return chosen.astype(np.uint8), p[np.arange(len(p)), chosen].astype(np.float32)


def class_probabilities(head: Head, inputs: "BeatInputs") -> np.ndarray:
    """Return the probability of each class of each beat, float64 (n, 5)."""
    return np.asarray(head.run(rr=inputs.rr, shape=inputs.shape)[0], dtype=np.float64)


def decide(p: np.ndarray, decision: dict[str, float]) -> np.ndarray:
    """Return the class of each beat (n,): the largest log p, after what ``decision`` adds for a class."""
    return np.asarray((np.log(p + 1e-7) + [decision.get(name, 0.0) for name in CLASSES]).argmax(axis=1))


# -- waves -------------------------------------------------------------------------------------------------


def beat_inputs(prepared: Record, r_peaks_s: np.ndarray, rr: np.ndarray | None = None) -> BeatInputs:
    """Describe every beat of a record as the head wants it.

    Parameters
    ----------
    prepared : Record
        At the model's rate and band; any leads.
    r_peaks_s : ndarray of float64, shape (n,)
    rr : ndarray of float32, shape (n, R), optional
        Their `rr_features`, where these are beats of a longer recording.

    Notes
    -----
    Memory is that of `SEGMENT_BEATS` beats, besides the result (half a kB a beat).
    """
    rr = rr_features(r_peaks_s) if rr is None else rr
    if len(rr) == 0:
        return BeatInputs(rr, np.zeros((0, N_LEADS * N_SHAPE_FEATURES), dtype=np.float32))
    n_segments = -(-len(rr) // SEGMENT_BEATS)  # of equal length: a short last one would know little
    segments = zip(np.array_split(r_peaks_s, n_segments), np.array_split(rr, n_segments), strict=True)
    return BeatInputs(rr, np.concatenate([_describe(prepared, at_s, of_them) for at_s, of_them in segments]))


def _describe(prepared: Record, r_peaks_s: np.ndarray, rr: np.ndarray) -> np.ndarray:
    """Return the shape features (n, L * F) of one segment's beats."""
    fs = prepared.fs
    at = np.round(r_peaks_s * fs).astype(np.int64)
    # Beats that come early or late have a shape of their own more often: the dominant beat is sought among the rest.
    steady = (np.abs(rr[:, -RR_NEAR[0]]) < 0.15) & (np.abs(rr[:, 1 - RR_NEAR[0]]) < 0.15)
    rows = _best_leads(prepared, at)
    beats, there = _gather(prepared.signal[rows], at, fs)
    beats = _snapped(beats, fs)
    beats = _lagged(beats, _dominant(beats, there, steady), fs)
    dominant = _dominant(beats, there, steady)
    spare = round(SPARE_S * fs)
    beats, dominant = beats[..., spare:-spare], dominant[..., spare:-spare]
    features = np.stack([_shape_features(beats[:, i], dominant[i], rr, fs) for i in range(len(rows))], axis=1)
    if len(rows) < N_LEADS:
        features, there = np.repeat(features, N_LEADS, axis=1), np.repeat(there, N_LEADS, axis=1)
    for lead, other in ((0, 1), (1, 0)):  # a lead that is off for a while: the other one stands in for it
        off = ~there[:, lead] & there[:, other]
        features[off, lead] = features[off, other]
    features[~there.any(axis=1)] = np.nan
    return features.reshape(len(at), -1)


def _best_leads(prepared: Record, at: np.ndarray) -> list[int]:
    """Return the rows in which the dominant beat stands out most, at most `N_LEADS`, the best first."""
    some = at[np.linspace(0, len(at) - 1, min(len(at), LEAD_CHOICE_BEATS)).astype(int)]
    beats, there = _gather(prepared.signal, some, prepared.fs)
    dominant = _dominant(beats, there, np.ones(len(some), dtype=bool))
    rest = np.median(np.abs(beats - dominant), axis=(0, 2))
    qrs = np.abs(dominant).max(axis=1)
    merit = there.mean(axis=0) * qrs / (rest + 0.01 * np.median(qrs) + 1e-9)
    return [int(row) for row in np.argsort(-merit, kind="stable")[:N_LEADS]]


def _gather(signal: np.ndarray, at: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut beats out, with what is to spare: float32 (n, L, T), 0 where not recorded; bool (n, L), nearly all recorded.

    Each is freed of its mean over its recorded samples.
    """
    before, after = (round((s + SPARE_S) * fs) for s in (BEFORE_S, AFTER_S))
    n_times = before + after
    starts = at - before
    if starts.min() < 0 or starts.max() + n_times > signal.shape[1]:
        signal = np.pad(signal, ((0, 0), (n_times, n_times)), constant_values=np.nan)
        starts = np.clip(starts + n_times, 0, signal.shape[1] - n_times)
    beats = np.lib.stride_tricks.sliding_window_view(signal, n_times, axis=1)[:, starts].transpose(1, 0, 2)  # (n, L, T)
    recorded = np.isfinite(beats)
    n_recorded = recorded.sum(axis=-1)
    whole = bool(recorded.all())
    beats = beats if whole else np.where(recorded, beats, 0)
    mean = beats.sum(axis=-1) / np.maximum(n_recorded, 1)
    # In 64 bits, but without an array of them.
    beats = np.subtract(beats, mean[..., None], out=np.empty_like(beats), casting="same_kind")
    if not whole:
        beats[~recorded] = 0
    # The first and the last beat of a record lack some of their stretch, but not their QRS complex.
    return beats, (n_recorded > 0.6 * beats.shape[-1]) & recorded[..., before]


def _snapped(beats: np.ndarray, fs: float) -> np.ndarray:
    """Move each beat so that the largest 5-30 Hz deflection near its given R peak is in its middle."""
    reach = round(SNAP_S * fs)
    to_band = _qrs_band_near(beats.shape[-1], fs)
    near = np.abs(beats.reshape(-1, len(to_band)) @ to_band).reshape(*beats.shape[:2], -1)
    near = near / (np.median(near.max(axis=-1), axis=0)[None, :, None] + 1e-9)
    return _shifted(beats, near.sum(axis=1).argmax(axis=-1) - reach)


@lru_cache(maxsize=4)
def _qrs_band_near(n_times: int, fs: float) -> np.ndarray:
    """Return the matrix that takes a beat (n_times,) to its 5-30 Hz signal near the R peak, forward and backward.

    A filter is linear: what it makes of each single sample says what it makes of a beat. Thousands of short beats are
    filtered ten times as fast this way.
    """
    from scipy.signal import sosfiltfilt

    reach, middle = round(SNAP_S * fs), round((BEFORE_S + SPARE_S) * fs)
    return np.asarray(sosfiltfilt(qrs_band(fs), np.eye(n_times), padlen=0)[:, middle - reach : middle + reach + 1])


def _shifted(beats: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return beats (n, L, T) from ``by`` (n,) samples later on; the ends repeat."""
    reach = int(np.abs(by).max(initial=0))
    padded = np.pad(beats, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    shifts = np.lib.stride_tricks.sliding_window_view(padded, beats.shape[-1], axis=-1)  # (n, L, 2 reach + 1, T)
    return np.ascontiguousarray(shifts[np.arange(len(beats)), :, by + reach])


def _dominant(beats: np.ndarray, there: np.ndarray, steady: np.ndarray) -> np.ndarray:
    """Return the dominant beat of each lead, (L, T): a median, then the median of the half that is most like it."""
    n_leads, n_samples = beats.shape[1:]
    dominant = np.zeros((n_leads, n_samples), dtype=np.float32)
    for lead in range(n_leads):
        usable = there[:, lead] & steady
        if usable.sum() < max(3, 0.1 * there[:, lead].sum()):
            usable = there[:, lead]
        if usable.any():
            some = beats[usable, lead]
            first = median(some, axis=0)
            away = np.abs(some - first).sum(axis=1)
            dominant[lead] = median(some[away <= np.median(away)], axis=0)
    return dominant


def _lagged(beats: np.ndarray, dominant: np.ndarray, fs: float) -> np.ndarray:
    """Move each beat to where its QRS complex fits the dominant one best, up to `LAG_S`."""
    reach, qrs = round(LAG_S * fs), _span(QRS_S, fs, SPARE_S)
    scale = np.square(dominant[:, qrs]).sum(axis=-1) + 1e-9
    fit = np.stack(
        [
            (np.einsum("nlt,lt->nl", beats[..., qrs.start + k : qrs.stop + k], dominant[:, qrs]) / scale).sum(axis=1)
            for k in range(-reach, reach + 1)
        ],
        axis=1,
    )
    return _shifted(beats, fit.argmax(axis=1) - reach)


def _span(about_s: tuple[float, float], fs: float, spare_s: float = 0.0) -> slice:
    """Return the samples of a stretch about the R peak."""
    return slice(*(round((s + BEFORE_S + spare_s) * fs) for s in about_s))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Pearson's r along the last axis; 0 where one is constant."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    norm = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    return np.asarray((a * b).sum(axis=-1) / (norm + 1e-9))


def _log(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(x, 1e-6)))


def _shape_features(beats: np.ndarray, dominant: np.ndarray, rr: np.ndarray, fs: float) -> np.ndarray:
    """Return what one lead's beats (n, T) look like beside its dominant beat (T,): (n, F)."""
    from scipy.ndimage import uniform_filter1d

    columns: list[np.ndarray] = []
    scale = float(np.ptp(dominant[_span(QRS_S, fs)])) + 1e-6
    beats, dominant = beats / scale, dominant / scale
    for part in (P_S, QRS_S, T_S):
        mine, usual = beats[:, _span(part, fs)], dominant[_span(part, fs)]
        # Each wave about its own level: what is left of baseline wander must not count.
        mine, usual = mine - mine.mean(axis=-1, keepdims=True), usual - usual.mean()
        rms, usual_rms, difference = (np.sqrt(np.square(x).mean(axis=-1)) for x in (mine, usual, mine - usual))
        columns += [
            _correlation(mine, usual),
            _log(rms) - _log(usual_rms),
            _log(difference + 0.003),
            _log(difference) - np.median(_log(difference)),  # beside what is usual in this record
            mine @ usual / (usual @ usual + 1e-4),
        ]
    columns += _p_features(beats, dominant, fs)
    columns += _qrs_features(beats, dominant, fs)
    columns += _neighbour_features(beats[:, _span(QRS_S, fs)], rr)
    # P waves that are alike, whatever started them: there are atria that contract, as in fibrillation they do not.
    columns.append(uniform_filter1d(columns[0], min(P_BEATS, len(beats)), mode="nearest"))
    return np.nan_to_num(np.stack(columns, axis=1)).astype(np.float32)


SHAPE_GROUPS = (0,) * 5 + (1,) * 5 + (2,) * 5 + (0,) * 4 + (1,) * 13 + (3,) * 5 + (0,)
"""What each shape feature of a lead is about: 0 the P wave, 1 the QRS complex, 2 the T wave, 3 other beats."""

N_SHAPE_FEATURES = len(SHAPE_GROUPS)
P_ALIKE = N_SHAPE_FEATURES - 1
"""The feature that says how alike P waves are in `P_BEATS`."""


def _p_features(beats: np.ndarray, dominant: np.ndarray, fs: float) -> list[np.ndarray]:
    """Return where and how well the dominant beat's P wave is found before each beat."""
    start, stop = _span(P_S, fs).start, _span(P_S, fs).stop
    length = round(0.12 * fs)
    usual = dominant[start:stop]
    peak = start + length // 2 + int(np.abs(usual[length // 2 : -(length // 2)] - np.median(usual)).argmax())
    wave = dominant[peak - length // 2 : peak - length // 2 + length]
    wave = wave - wave.mean()
    lags = np.lib.stride_tricks.sliding_window_view(beats[:, : stop + length // 3], length, axis=-1)[:, ::3]
    lags = lags - lags.mean(axis=-1, keepdims=True)
    r = lags @ wave / (np.sqrt(np.square(lags).sum(axis=-1) * np.square(wave).sum()) + 1e-3)
    best = r.argmax(axis=1)
    return [
        r.max(axis=1),
        (best * 3 - (peak - length // 2)) / fs * 10,
        _log(np.ptp(beats[:, start:stop], axis=-1) + 0.003),
        np.full(len(beats), _log(np.array(np.ptp(usual) + 0.003))),
    ]


def _qrs_features(beats: np.ndarray, dominant: np.ndarray, fs: float) -> list[np.ndarray]:
    """Return height, width and steepness of QRS complexes, absolute and beside the dominant one."""
    span = _span((QRS_S[0] - 0.04, QRS_S[1] + 0.06), fs)
    times = np.arange(span.stop - span.start) / fs * 10

    def describe(wave: np.ndarray) -> list[np.ndarray]:
        wave = wave[..., span]
        slope = np.abs(np.diff(wave, axis=-1, append=wave[..., -1:]))
        energy = np.square(slope)
        share = energy / (energy.sum(axis=-1, keepdims=True) + 1e-9)
        centre = (share * times).sum(axis=-1)
        spread = np.sqrt((share * np.square(times - centre[..., None])).sum(axis=-1))
        steep = (slope > 0.2 * slope.max(axis=-1, keepdims=True)).mean(axis=-1)
        height = np.ptp(wave, axis=-1)
        level = median(wave)
        area = np.abs(wave - level[..., None]).mean(axis=-1)
        return [
            _log(height),
            _log(slope.max(axis=-1)) - _log(height),
            centre,
            spread,
            steep,
            _log(area) - _log(height),
            (wave.max(axis=-1) + wave.min(axis=-1) - 2 * level) / (height + 1e-6),
        ]

    usual = describe(dominant[None])
    mine = describe(beats)
    return [*mine, *(m - u for m, u in zip(mine[1:], usual[1:], strict=True))]


def _neighbour_features(qrs: np.ndarray, rr: np.ndarray) -> list[np.ndarray]:
    """Return how common each QRS shape (n, T) is in the segment, and how early beats of this shape come on average."""
    unit = qrs - qrs.mean(axis=-1, keepdims=True)
    unit = unit / (np.sqrt(np.square(unit).sum(axis=-1, keepdims=True)) + 1e-6)
    r = unit @ unit.T
    alike = (r > ALIKE_R).astype(np.float32)
    np.fill_diagonal(alike, 1)
    total = alike.sum(axis=1)
    early, late = rr[:, -RR_NEAR[0]], rr[:, 1 - RR_NEAR[0]]
    next_r = np.concatenate([np.diagonal(r, 1), r[-1:, -2:-1].ravel()])[: len(r)] if len(r) > 1 else np.ones(len(r))
    last_r = np.concatenate([next_r[:1], next_r[:-1]])
    return [_log(total / len(r)), alike @ early / total, alike @ late / total, last_r, next_r]
