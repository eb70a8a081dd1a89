"""What is checked of every record, whatever reader made it. The questions themselves are in `anyecg.readers.audits`."""

from functools import lru_cache

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import unique_names
from anyecg.readers.audits.electrodes import misplaced_electrodes
from anyecg.readers.audits.gain import implausible_gain
from anyecg.readers.audits.heartbeats import find_heartbeats
from anyecg.readers.audits.levels import levels_of
from anyecg.readers.audits.limbs import identical_leads, limb_contradictions
from anyecg.readers.audits.missing import clipped_leads, gaps, standstills, without_marks
from anyecg.readers.audits.pieces import most_recorded, telling_leads
from anyecg.readers.audits.rate import wrong_rate
from anyecg.record import Record

ABOUT_LEVELS = (standstills, gaps, clipped_leads, identical_leads)
"""Questions, each given the record when infinities, marks and, if asked for, unit were put right; and its levels."""


MOST_KEPT = 1000
"""Characters of a record's lead names that are worth remembering."""


def rows_with_names(raw_names: list[str], warnings: list[str]) -> tuple[str, ...]:
    """Return one standard, unique lead name a row; repeated ones are reported in ``warnings``."""
    unique = _unique_names if sum(map(len, raw_names)) <= MOST_KEPT else _unique_names.__wrapped__
    names, repeated = unique(tuple(raw_names))
    if repeated:
        warnings.append(f"lead names repeat ({', '.join(repeated)}): the later ones are numbered and count as unknown")
    return names


@lru_cache(maxsize=64)
def _unique_names(raw_names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    # Kept: a device names the leads of all its records alike. Half a surrogate, as JSON may have, no format could say.
    return unique_names([name.encode(errors="replace").decode() for name in raw_names])


HIGHEST_RATE_HZ = 1e12
"""Nothing is sampled faster: the rate is damaged, and sample counts would overflow."""


def audit(where: str, record: Record, *, fix_units: bool = False) -> Record:
    """Return the record, checked: infinities and missing-sample marks as NaN, and warnings for what looks wrong.

    Parameters
    ----------
    where : str
        The source, for messages.
    record : Record
    fix_units : bool
        Correct amplitudes that only a wrong unit explains, by a power of 1000; without it they are only said.

    Raises
    ------
    ReadError
        There is no lead or no sample in it, or its rate is that of no ECG.
    """
    if record.n_leads == 0 or record.n_samples == 0:
        raise ReadError(
            f"{where}: {record.n_leads} leads of {record.n_samples} samples, expected at least one of each. "
            "Check that the file is complete."
        )
    if record.fs > HIGHEST_RATE_HZ:
        raise ReadError(f"{where}: a rate of {record.fs:g} Hz, expected at most {HIGHEST_RATE_HZ:g}. Check the file.")
    found: list[str] = []
    with np.errstate(all="ignore"):  # numbers up to 1e38, which a damaged file may hold, overflow when squared
        levels = levels_of(record)
        if np.isinf(levels.low).any() or np.isinf(levels.high).any():
            infinite = np.isinf(record.signal)
            record = record.with_(signal=np.where(infinite, np.float32(np.nan), record.signal))
            levels = levels_of(record)
            found.append(f"{np.count_nonzero(infinite)} infinite samples were taken as not recorded")
        checked, said = without_marks(record, levels)
        found += said
        levels = levels if checked is record else levels_of(checked)
        record, said = implausible_gain(checked, levels, fix=fix_units)
        found += said
        levels = levels if checked is record else levels_of(record)
        for ask in ABOUT_LEVELS:
            found += ask(record, levels)
        contradictions = limb_contradictions(record)
        found += contradictions
        if beats := find_heartbeats(most_recorded(record, telling_leads(record.leads)), record.fs):
            # Which electrode it may be is asked of leads that fit together.
            found += [] if contradictions else misplaced_electrodes(record, beats)
            found += wrong_rate(record, beats)
    return record.with_warning(*(message for message in found if message not in record.warnings))
