"""Named values -> Table: how NPZ, MAT, HDF5 and JSON files say signal, rate, unit, leads and patient.

signal   one array (n_leads, n_samples) or (n_samples, n_leads): signal, ecg, val, data, ...
         or an array for each lead under its name: I, II, V1, "II [mV]" ...
fs       a number in Hz: fs, sampling_rate, frequency, ...
unit     mV, uV, V, nV: unit, units
leads    the names in the order of the rows: leads, lead_names, sig_name, ...
age, sex, weight_kg, start_time, gain_known, derived, restored, as in our CSV
"""

import math
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.channels import says_ecg
from anyecg.readers.tabular.columns import Table, name_and_unit, numbered, rows_of
from anyecg.readers.tabular.times import Times, time_unit
from anyecg.readers.units import mv_per

KEYS = {
    "signal": (
        "signal",
        "signals",
        "ecg",
        "val",
        "data",
        "ecgdata",
        "ecgsignal",
        "psignal",
        "tracing",
        "tracings",
        "samples",
        "waveform",
    ),
    "fs_hz": (
        *("fs", "fshz", "hz", "samplingrate", "samplerate", "samplingfrequency", "samplefrequency", "sfreq", "freq"),
        *("frequency", "samplingratehz", "samplingfrequencyhz"),
    ),
    "unit": ("unit", "units", "signalunit"),
    "leads": ("leads", "leadnames", "lead", "signame", "signalnames", "channels", "channelnames", "labels"),
    "age": ("age", "ageyears"),
    "sex": ("sex", "gender"),
    "weight_kg": ("weightkg",),
    "start_time": ("starttime", "startdatetime", "recordedat", "recordingtime", "datetime"),
    "gain_known": ("gainknown",),
    "derived": ("derived",),
    "restored": ("restored",),
}
"""Spellings in lower case without blanks, dashes and underscores; the first that is there counts."""

_MEANING = {spelling: meaning for meaning, spellings in KEYS.items() for spelling in spellings}


def meaning_of(key: str) -> str | None:
    """Return what a key stands for, or None.

    Examples
    --------
    >>> meaning_of("Sampling_Rate"), meaning_of("V1")
    ('fs_hz', None)
    """
    return _MEANING.get(_spelling(key))


def _spelling(key: str) -> str:
    return key.lower().translate(_LEFT_OUT)


_LEFT_OUT = str.maketrans("", "", " _-")


def table_of(where: str, values: dict[str, Any]) -> Table:
    """Return the table that named values describe.

    Parameters
    ----------
    where : str
        The source, for messages.
    values : dict
        Numbers, texts, lists, arrays, or what has a shape, a dtype and slices and is left unread.

    Raises
    ------
    ReadError
        There is no signal among them, or more than one could be it.
    """
    table = Table([], [])
    leads: list[str] = []
    found: dict[str, Any] = {}
    meanings = {key: meaning_of(key) for key in values}
    for key, value in values.items():
        meaning = meanings[key]
        if meaning in (None, "signal"):
            continue
        if meaning == "leads" and _size(value) and _is_text(value):
            leads = _texts(value)
        elif meaning == "fs_hz":
            if (number := _number(value)) is not None:
                table.meta["fs_hz"] = repr(number)
        elif meaning not in ("leads", None) and (text := ", ".join(_texts(value))):
            table.meta[meaning] = text
    if "unit" in table.meta:
        _one_unit(table)
    for key, value in values.items():
        if meanings[key] in (None, "signal") and _holds_samples(value):
            found[key] = value
    whole = _signal_key(where, found)
    if whole is not None and len(found) == 1:
        _from_array(where, table, found[whole], leads)
        return table
    times = {name for name in found if time_unit(name)[0]}
    if whole is not None:
        _from_array(where, table, found[whole], leads)
        left = set(found) - times - {whole}
        others = {name: value for name, value in found.items() if name in times}
    else:
        n_samples = next(value.size for name, value in found.items() if _says_lead(name) and _is_row(value))
        others = {name: value for name, value in found.items() if _is_row(value) and value.size == n_samples}
        left = set(found) - times - set(others)
    if left:
        table.warnings.append(f"not read, no signal: {', '.join(map(repr, sorted(left)[:10]))}")
    for name, value in others.items():
        is_time, unit_s = time_unit(name)
        if is_time and _is_row(value):
            table.times.append(Times(name, np.asarray(value[()], np.float64).ravel(), unit_s))
        elif whole is None:
            table.columns += rows_of(where, value.reshape(-1) if isinstance(value, np.ndarray) else value)
            table.names.append(name)
    if table.times:
        lengths = set(map(len, table.columns))
        table.times = [times for times in table.times if lengths == {len(times.values)}]
    return table


def _one_unit(table: Table) -> None:
    """Keep a unit that is the same for all leads; leave a list of several to `_from_array`."""
    units = [u.strip() for u in table.meta.get("unit", "").split(",") if u.strip()]
    if len(set(units)) == 1:
        table.meta["unit"] = units[0]


def _from_array(where: str, table: Table, array: Any, leads: list[str]) -> None:
    """Fill a table with the rows of one array."""
    table.columns = rows_of(where, array, leads)
    n_leads = len(table.columns)
    if leads and len(leads) != n_leads:
        raise ReadError(f"{where}: {len(leads)} lead names for {n_leads} leads, expected one each. Correct the file.")
    table.names = leads or list(numbered(n_leads))
    units = [u.strip() for u in table.meta["unit"].split(",") if u.strip()] if "unit" in table.meta else []
    if len(units) > 1:
        if len(units) != n_leads:
            raise ReadError(f"{where}: {len(units)} units for {n_leads} leads, expected one each. Correct the file.")
        del table.meta["unit"]
        table.names = [f"{name_and_unit(name)[0]} [{u}]" for name, u in zip(table.names, units, strict=True)]


def _signal_key(where: str, found: dict[str, Any]) -> str | None:
    """Return the name of the one array that is the signal, or None if every lead has an array of its own.

    Raises
    ------
    ReadError
        There is no array, or several could be the signal.
    """
    if not found:
        raise ReadError(
            f"{where}: no array of samples, expected one called signal, ecg, val or data, or one for each lead. Save "
            "it so."
        )
    spelt = {_spelling(key): key for key in reversed(found)}  # of keys that are spelt alike the first counts
    for spelling in KEYS["signal"]:
        if spelling in spelt:
            return spelt[spelling]
    if any(_says_lead(key) and _is_row(value) for key, value in found.items()):
        return None
    many = [key for key in found if not time_unit(key)[0]]
    if len(many) == 1:
        return many[0]
    raise ReadError(
        f"{where}: {len(many)} arrays ({', '.join(map(repr, sorted(many)[:8]))}), expected one called signal, ecg, val "
        "or data, or one for each lead under its name. Rename it."
    )


def _says_lead(key: str) -> bool:
    name, unit = name_and_unit(key)
    return says_ecg(name) or (unit is not None and mv_per(unit) is not None)


def _is_row(value: Any) -> bool:
    return bool(max(value.shape) == value.size)


def _holds_samples(value: Any) -> bool:
    """Return whether a value is an array of more than one real number."""
    return (
        hasattr(value, "dtype")
        and getattr(value.dtype, "kind", "O") in "iuf"
        and 1 <= len(value.shape) <= 3
        and math.prod(map(int, value.shape)) > 1
    )


def _size(value: Any) -> int:
    if hasattr(value, "shape"):
        return math.prod(map(int, value.shape))
    return len(value) if hasattr(value, "__len__") else 1


def _is_text(value: Any) -> bool:
    return bool(_texts(value)) and not _holds_samples(value)


def _number(value: Any) -> float | None:
    """Return a single number, however wrapped, or None."""
    if hasattr(value, "shape") and math.prod(map(int, value.shape)) != 1:
        return None
    if hasattr(value, "dtype"):
        value = np.asarray(value[()]).ravel()[0]
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _texts(value: Any) -> list[str]:
    """Return the texts in a value, however wrapped: numbers too, but not those of a long array."""
    if isinstance(value, bytes):
        return [value.decode("utf-8", errors="replace").strip()]
    if isinstance(value, str | bool | int | float):
        return [str(value).strip()]
    if _size(value) > 4096:
        return []
    if hasattr(value, "dtype"):
        value = np.asarray(value[()])
        if value.dtype.kind in "iuf" and value.size == 1:
            return [f"{float(value.ravel()[0]):g}"]
        if value.dtype.kind not in "OSUb":
            return []
        value = value.ravel().tolist()
    if not isinstance(value, list | tuple):
        return []
    return [text for item in value for text in _texts(item) if text]
