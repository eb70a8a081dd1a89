"""Record -> prepared Record: one rate, one pass-band, no mains hum, NaN where no lead was on or recorded."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np

from anyecg.errors import SignalError
from anyecg.record import Record, runs_of


@dataclass(frozen=True)
class Preparation:
    """How a checkpoint wants its input prepared.

    Parameters
    ----------
    fs_hz : float
        Rate of the prepared signal.
    low_hz, high_hz : float
        The -6 dB points of the zero-phase band-pass. AHA/ACC/HRS 2007 (part I, 3.2.1) allows a high-pass of up to
        0.67 Hz when it is zero-phase: the ST level survives. 75 Hz is the AnyECG paper's upper edge.
    """

    fs_hz: float = 300.0
    low_hz: float = 0.5
    high_hz: float = 75.0


FILTER_S = 4.0
"""Length of the band-pass in seconds. A finite filter bounds how far a sample's influence reaches: FILTER_S / 2."""

MAINS_HZ = (50.0, 60.0)
MAINS_RATIO = 10.0
"""A mains line must stand this many times above the spectrum beside it to be called mains (10 dB)."""

MAINS_FLOOR_MV = 0.002
"""Hum below this RMS amplitude is left alone: a notch would cost more than it brings."""

OFF_MV = 20.0
"""A lead that stands still beyond this is off, at the rail of its converter: cinc2011 has -80, 80 and -40 mV. Skin may
add an offset of up to 300 mV (IEC 60601-2-25) to a lead that is on, but on that offset the ECG still moves."""

STILL_S, STILL_SHARE = 1.0, 0.8
"""Standing still is: this share of a second has one value. A P wave, a QRS complex and a T wave take more than the
rest. Seconds in between may jump: at least half of a stretch must stand still."""

SHORTEST_S = 0.5
"""Below this nothing can be filtered, tokenised or measured."""


def prepare(record: Record, to: Preparation | None = None, mains_hz: float | str | None = "auto") -> Record:
    """Resample, band-pass and, where there is hum, notch a record.

    Parameters
    ----------
    record : Record
        Any rate, any number of leads, NaN where not recorded.
    to : Preparation, optional
        Target rate and band; the default is that of the shipped models.
    mains_hz : {"auto", 50.0, 60.0, None}
        ``"auto"`` decides from the record's own spectrum; None never filters.

    Returns
    -------
    Record
        float32 mV at ``to.fs_hz``; NaN where the source was NaN or a lead was off, which a warning says.
        ``source_fs`` remembers the source's rate.

    Raises
    ------
    SignalError
        Nothing is recorded, or the record is shorter than half a second.

    Notes
    -----
    Departs from AnyECG (arXiv 2411.17711, data preparation): gaps and absent leads stay NaN instead of zeros; the mains
    frequency is found, not assumed to be 50 Hz; 0.5 Hz zero-phase high-pass instead of 0.1 Hz; no wavelet denoising,
    since the tokenizer is trained to decode the clean signal from a noisy one.
    """
    to = to or Preparation()
    if record.duration_s < SHORTEST_S:
        raise SignalError(
            f"{record.id}: {record.duration_s:.2f} s of signal, expected at least {SHORTEST_S} s. Record longer."
        )
    # Here and not in a reader: the record as read still shows the quality indices which lead is off, and converts back
    # to what the file says; but no filter may see the rail, since its edges would ring into what was recorded.
    off = find_leads_off(record)
    recorded = np.isfinite(record.signal) & ~off
    if not recorded.any():
        why = " (every lead stands still at the converter's rail: leads off)" if off.any() else ""
        raise SignalError(
            f"{record.id}: no lead has a recorded sample{why}, expected at least one. Check the source file."
        )

    signal = bridge_gaps(np.where(recorded, record.signal, np.nan))
    signal = resample(signal, record.fs, to.fs_hz)
    recorded = resample_mask(recorded, record.fs, to.fs_hz, signal.shape[1])
    signal = band_pass(signal, to)
    hum_hz = find_mains(signal, to.fs_hz) if mains_hz == "auto" else mains_hz
    if hum_hz is not None:
        signal = notch(signal, to.fs_hz, float(hum_hz))
    signal = np.where(recorded, signal, np.nan).astype(np.float32)
    prepared = record.with_(signal=signal, fs=to.fs_hz, source_fs=record.source_fs or record.fs)
    return prepared.with_warning(*leads_off_words(record.leads, off.sum(axis=1) / record.fs))


def leads_off_words(leads: tuple[str, ...], off_s: np.ndarray) -> tuple[str, ...]:
    """Return the warning that some leads were off for some seconds, (n_leads,); none if no lead was."""
    seconds = ", ".join(f"{name} {s:.1f} s" for name, s in zip(leads, off_s.tolist(), strict=True) if s > 0)
    return (f"leads off, at the converter's rail, taken as not recorded: {seconds}",) if seconds else ()


def find_leads_off(record: Record) -> np.ndarray:
    """Find where a lead stands still beyond `OFF_MV`.

    Returns
    -------
    ndarray of bool, shape (n_leads, n_samples)
        All False for a record of unknown gain, whose numbers are not millivolts.
    """
    off = np.zeros(record.signal.shape, dtype=bool)
    if not record.gain_known:
        return off
    for row, found in zip(record.signal, off, strict=True):
        beyond = np.abs(row) > OFF_MV
        if beyond.any():
            for start, stop in runs_of(beyond):
                found[start:stop] = _stands_still(row[start:stop], min(round(STILL_S * record.fs), record.n_samples))
    return off


def _stands_still(stretch: np.ndarray, n_piece: int) -> bool:
    """Return whether at least half of a stretch's pieces keep one value; False if it is shorter than one piece."""
    pieces = np.sort(stretch[: len(stretch) // n_piece * n_piece].reshape(-1, n_piece), axis=1)
    low, high = (round((0.5 + side * STILL_SHARE / 2) * (n_piece - 1)) for side in (-1, 1))
    return len(pieces) > 0 and bool((pieces[:, low] == pieces[:, high]).mean() >= 0.5)


def bridge_gaps(signal: np.ndarray) -> np.ndarray:
    """Replace NaN by a straight line between its neighbours, so that a filter can pass; all-NaN rows become 0.

    Parameters
    ----------
    signal : ndarray, shape (n_leads, n_samples)

    Returns
    -------
    ndarray of float64, same shape, finite
    """
    bridged = signal.astype(np.float64)
    times = np.arange(signal.shape[1])
    for row in bridged:
        good = np.isfinite(row)
        if not good.any():
            row[:] = 0.0
        elif not good.all():
            row[~good] = np.interp(times[~good], times[good], row[good])
    return bridged


def resample(signal: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Resample rows with soxr, without the ringing that a sudden start from zero would cause.

    Parameters
    ----------
    signal : ndarray, shape (n_leads, n_samples)
        Finite.
    from_hz, to_hz : float
        Any real rates.

    Returns
    -------
    ndarray of float64, shape (n_leads, round(n_samples * to_hz / from_hz))
    """
    n_out = resampled_length(signal.shape[1], from_hz, to_hz)
    if from_hz == to_hz:
        return signal.astype(np.float64)
    import soxr

    # The pad is cut off again after resampling, so choose, within half a second to a second, the length that is
    # nearest to a whole number of output samples: the waveform then does not shift.
    lengths = np.arange(ceil(from_hz / 2), max(ceil(from_hz), ceil(from_hz / 2) + 1) + 1)
    misfit = np.abs(lengths * to_hz / from_hz - np.round(lengths * to_hz / from_hz))
    pad = int(lengths[np.argmin(np.round(misfit, 6))])
    extended = odd_extension(signal, pad)
    resampled = soxr.resample(np.ascontiguousarray(extended.T), from_hz, to_hz, quality="HQ").T
    start = round(pad * to_hz / from_hz)
    return np.ascontiguousarray(
        resampled[:, start : start + n_out]
    )  # a row's samples side by side, for all that follows


def resampled_length(n_samples: int, from_hz: float, to_hz: float) -> int:
    """Return how many samples a signal has at another rate."""
    return max(1, round(n_samples * to_hz / from_hz))


def resample_mask(mask: np.ndarray, from_hz: float, to_hz: float, n_out: int) -> np.ndarray:
    """Carry a boolean mask, shape (n_leads, n_samples), to another rate: each new sample takes its nearest old one."""
    if mask.all():
        return np.ones((len(mask), n_out), dtype=bool)
    nearest = np.round(np.arange(n_out) * from_hz / to_hz).astype(np.int64)
    return mask[:, np.minimum(nearest, mask.shape[1] - 1)]


def odd_extension(signal: np.ndarray, pad: int) -> np.ndarray:
    """Extend rows at both ends by point reflection, repeated as often as a short signal needs."""
    if signal.shape[1] == 1:
        return np.pad(signal, ((0, 0), (pad, pad)), mode="edge")
    return np.pad(signal, ((0, 0), (pad, pad)), mode="reflect", reflect_type="odd")


@lru_cache(maxsize=8)
def band_pass_taps(fs_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    """Design the band-pass by the window method (Hamming), gain 1 in the middle of the band.

    The taps of scipy.signal.firwin (tested), but the import of scipy.signal takes longer than a ten-second record.
    """
    half = int(FILTER_S * fs_hz / 2)
    t_s = np.arange(-half, half + 1) / fs_hz
    ideal = (2 * high_hz * np.sinc(2 * high_hz * t_s) - 2 * low_hz * np.sinc(2 * low_hz * t_s)) / fs_hz
    taps = ideal * np.hamming(len(ideal))
    return taps / (taps * np.cos(np.pi * (low_hz + high_hz) * t_s)).sum()


def band_pass(signal: np.ndarray, to: Preparation) -> np.ndarray:
    """Filter rows, zero-phase: a symmetric FIR filter, centred."""
    taps = band_pass_taps(to.fs_hz, to.low_hz, to.high_hz)
    # Even reflection: an odd one would double a wandering end into a ramp of twice the height.
    centred = signal - np.median(signal, axis=1, keepdims=True)
    half = len(taps) // 2
    extended = np.pad(centred, ((0, 0), (half, half)), mode="reflect")
    return convolve_valid(extended, taps)


def convolve_valid(rows: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolve rows with a filter where they overlap fully, piece by piece in the frequency domain (overlap-save).

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n)
    taps : ndarray, shape (n_taps,)

    Returns
    -------
    ndarray of float64, shape (n_rows, n - n_taps + 1)
    """
    n_out = rows.shape[1] - len(taps) + 1
    n_fft = 4 * 2 ** ceil(np.log2(len(taps)))  # three quarters of each piece are new
    step = n_fft - len(taps) + 1
    response = np.fft.rfft(taps, n_fft)
    convolved = np.empty((len(rows), n_out))
    for start in range(0, n_out, step):
        spectrum = np.fft.rfft(rows[:, start : start + n_fft], n_fft, axis=1)
        piece = np.fft.irfft(spectrum * response, n_fft, axis=1)[:, len(taps) - 1 :]
        convolved[:, start : start + step] = piece[:, : n_out - start]
    return convolved


def power_spectrum(windows: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectrum of each window, tapered by a Hann window.

    Parameters
    ----------
    windows : ndarray, shape (..., n)
        mV.

    Returns
    -------
    frequencies_hz : ndarray, shape (n // 2 + 1,)
    power : ndarray, shape (..., n // 2 + 1)
        One-sided, mV^2 per bin.
    """
    n = windows.shape[-1]
    taper = hann_taper(n)
    tapered = windows * taper.astype(windows.dtype)  # so that float32 stays so
    amplitude = np.abs(np.fft.rfft(tapered, axis=-1))
    return np.fft.rfftfreq(n, 1 / fs_hz), 2 * np.square(amplitude) / float(n * np.square(taper).sum())


@lru_cache(maxsize=8)
def hann_taper(n: int) -> np.ndarray:
    """Return the Hann window of a length, float64."""
    taper = np.hanning(n)
    taper.flags.writeable = False
    return taper


def find_mains(signal: np.ndarray, fs_hz: float) -> float | None:
    """Return the mains frequency seen in any lead's spectrum, in Hz, or None.

    Parameters
    ----------
    signal : ndarray, shape (n_leads, n_samples)
        mV, finite.
    """
    n_window = min(signal.shape[1], int(4 * fs_hz))
    if n_window < 2 * fs_hz:  # the line could not be told from the QRS complex beside it
        return None
    frequencies, power = _mean_spectrum(signal, n_window, fs_hz)  # (n_leads, n_frequencies), mV^2 per bin
    step_hz = frequencies[1]
    loudest: tuple[float, float] | None = None
    for mains_hz in MAINS_HZ:
        if mains_hz + 6 > fs_hz / 2:
            continue
        distance = np.abs(frequencies - mains_hz)
        line = power[:, distance <= 0.75].sum(axis=1)
        beside = np.median(power[:, (distance > 1.5) & (distance <= 6)], axis=1) * 1.5 / step_hz
        hum = (line > MAINS_RATIO * beside) & (np.sqrt(line) > MAINS_FLOOR_MV)
        if hum.any() and (loudest is None or line[hum].max() > loudest[0]):
            loudest = (float(line[hum].max()), mains_hz)
    return loudest[1] if loudest else None


def _mean_spectrum(signal: np.ndarray, n_window: int, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean spectrum of each row over windows that overlap by half (Welch, doi:10.1109/TAU.1967.1161901)."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, n_window, axis=1)[:, :: n_window // 2]
    frequencies, power = np.empty(0), np.zeros(())
    for start in range(0, windows.shape[1], 256):  # bounds the memory a day takes
        piece = windows[:, start : start + 256].astype(np.float32)  # half the time; hum is far above its rounding
        frequencies, spectra = power_spectrum(piece - piece.mean(axis=2, keepdims=True), fs_hz)
        power = power + spectra.sum(axis=1)
    return frequencies, power / windows.shape[1]


def notch(signal: np.ndarray, fs_hz: float, mains_hz: float) -> np.ndarray:
    """Remove one mains frequency from rows, zero-phase (second-order notch, Q = 30, forward and backward)."""
    from scipy.signal import filtfilt, iirnotch

    b, a = iirnotch(mains_hz, Q=30.0, fs=fs_hz)
    return filtfilt(b, a, signal, axis=1, padlen=min(int(fs_hz), signal.shape[1] - 1))
