"""HDF5: one recording of named values (see `anyecg.readers.tabular.named`), or many, one of which is named.

Several recordings are either an array ``tracings`` of shape (n_recordings, n_samples, n_leads), with their names in
``exam_id`` as in CODE-15 % (doi:10.5281/zenodo.4916206), or a group each. `anyecg.readers.sources.split_inner` says how
one of them is named. MATLAB's files of version 7.3 are HDF5, too.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers.slices import Extent, check_size
from anyecg.readers.sources import split_inner
from anyecg.readers.tabular.columns import Row, Table, extent_of, read_table
from anyecg.readers.tabular.named import meaning_of, table_of
from anyecg.record import Record

NAME = "hdf5"

SEVERAL = True
"""A file may hold several recordings."""

MAGIC = b"\x89HDF\r\n\x1a\n"
OFFSETS = (0, 512, 1024, 2048)
"""Where the mark may stand (HDF5 File Format Specification, II.A); MATLAB puts a text of 512 bytes before it."""

MATLAB_MAGIC = b"MATLAB 7.3"

ID_KEYS = ("exam_id", "record_id", "ecg_id", "id", "ids")
"""Names of the array with the recordings' names."""

TRACINGS_SHAPE = (4096, 12)
TRACINGS_HZ = 400.0
"""The layout ``tracings`` (n, 4096, 12) is at 400 Hz by its documentation (doi:10.5281/zenodo.4916206); shorter
recordings are filled up with zeros at both ends."""

OTHER_LIMB_ORDER = ("I", "II", "III", "aVL", "aVF", "aVR")
"""That of the same group's test set (doi:10.5281/zenodo.3765780)."""

LARGEST_CHUNK_BYTES = 256_000_000
"""A chunk is unpacked as a whole, however little of it is wanted."""

SLICED_CHUNK_BYTES = 8_000_000
"""With larger ones a recording is read at once: each stretch would unpack them again."""

MOST_MEMBERS = 100_000

MOST_TEXTS = 4096
"""An array of more values is not looked into for names and units."""


@dataclass(frozen=True)
class _Group:
    """A group of a file: h5py's low-level id."""

    id: Any


@lru_cache(maxsize=64)
def _in_memory(dtype: np.dtype[Any]) -> Any:
    """Return HDF5's type for numbers of one of numpy's."""
    import h5py

    return h5py.h5t.py_create(dtype)


class _Array:
    """An array of a file, unread; what is asked of every member is looked up once, by h5py's lower, faster level."""

    __slots__ = ("chunks", "dtype", "id", "shape", "size")

    def __init__(self, opened: Any, chunks: tuple[int, ...] | None) -> None:
        self.id, self.chunks, self.dtype = opened, chunks, opened.dtype
        self.shape: tuple[int, ...] = opened.shape or ()
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> Any:
        import h5py

        if part == () and self.dtype.kind in "iuf" and self.dtype.metadata is None and self.shape:
            values = np.empty(self.shape, self.dtype)
            self.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=_in_memory(self.dtype))
            return values
        return h5py.Dataset(self.id, readonly=True)[part]


def sniff(head: bytes, path: Path) -> bool:
    """Return whether HDF5's mark stands at one of its places."""
    return any(head[offset : offset + len(MAGIC)] == MAGIC for offset in OFFSETS)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the recording of a file, or the one that is named of several; only the samples asked for are read.

    Raises
    ------
    ReadError
        The file holds several and none was named, or refers to other files; or see `anyecg.readers.read`.
    """
    file, inner = split_inner(path)
    with _open(file) as root:
        members = _members(file, root)
        form = "mat" if _is_matlab(file, members) else NAME
        table, name = _table(path, file, inner, root, members, fs, unit)
        return read_table(path, table, form, start_s, end_s, fs, unit, record_id=name)


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a recording is; None where a slice of it is unpacked for the price of much more.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    file, inner = split_inner(path)
    with _open(file) as root:
        table, _ = _table(path, file, inner, root, _members(file, root), fs, unit)
        held = [column.array if isinstance(column, Row) else column for column in table.columns]
        return extent_of(path, table, fs, unit) if all(map(_sliced_cheaply, held)) else None


def _is_matlab(file: Path, members: dict[str, _Array | _Group]) -> bool:
    """Return whether MATLAB wrote the file: it says so in front, and of each variable what it is."""
    import h5py

    some = next(iter(members.values()), None)
    if some is None or h5py.h5a.get_num_attrs(some.id) == 0:
        return False
    with open(file, "rb", buffering=0) as stream:
        return stream.read(len(MATLAB_MAGIC)) == MATLAB_MAGIC


def _sliced_cheaply(held: Any) -> bool:
    chunks = getattr(held, "chunks", None) or ()
    return bool(math.prod(chunks) * held.dtype.itemsize <= SLICED_CHUNK_BYTES)


def _table(
    path: Path,
    file: Path,
    inner: str,
    root: _Group,
    members: dict[str, _Array | _Group],
    fs: float | None,
    unit: str | None,
) -> tuple[Table, str]:
    """Return what the recording that is meant holds, its samples unread, and its name.

    Raises
    ------
    ReadError
        See `read`.
    """
    stack = _stack(members)
    keys = _keys(file, members, stack)
    key = _chosen(path, file, inner, keys)
    if stack is not None:
        table = _of_stack(path, file, root, members, stack, keys.index(key), fs, unit)
    else:
        chosen = members[key] if key else None
        inside = _members(file, chosen) if isinstance(chosen, _Group) else members
        table = table_of(str(path), _values(file, inside) | _attributes(root))
    return table, file.stem if len(keys) == 1 else f"{file.stem}-{key[1:]}" if key.startswith("#") else key


def recordings(path: Path) -> list[str]:
    """Return how each recording of a file is named, or nothing if it holds one without a name.

    Raises
    ------
    ReadError
        It is not HDF5.
    """
    with _open(path) as root:
        members = _members(path, root)
        return [key for key in _keys(path, members, _stack(members)) if key]


@contextmanager
def _open(file: Path) -> Iterator[_Group]:
    """Yield the root group of a file, which is closed afterwards with all that was opened in it."""
    import h5py

    try:
        opened = h5py.h5f.open(os.fsencode(file), h5py.h5f.ACC_RDONLY)
    except OSError as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(f"{file}: not whole HDF5 ({text}), expected a complete file. Copy it again.") from error
    try:
        yield _Group(opened)
    except BaseException:
        h5py.File(opened).close()  # also what the error's traceback still holds
        raise
    opened.close()


def _members(file: Path, group: _Group) -> dict[str, _Array | _Group]:
    """Return the members of a group, which lie in this very file, by their names.

    Raises
    ------
    ReadError
        There are too many, one lies in another file, or its chunks are too large to be unpacked.
    """
    links: list[tuple[bytes, int]] = []

    def found_one(name: bytes, link: Any) -> bool | None:
        links.append((name, link.type))
        return True if len(links) > MOST_MEMBERS else None  # what is not None ends it

    group.id.links.iterate(found_one, info=True)
    if len(links) > MOST_MEMBERS:
        raise ReadError(f"{file}: more than {MOST_MEMBERS} members, expected no more. Save fewer in a file.")
    # MATLAB keeps what references point to in #refs#
    found = {
        name.decode("utf-8", errors="surrogateescape"): _member(file, group.id, name, link)
        for name, link in links
        if not name.startswith(b"#")
    }
    return {name: member for name, member in found.items() if member is not None}


def _member(file: Path, group: Any, name: bytes, link: int) -> _Array | _Group | None:
    """Return an array or a group of a group, which is h5py's low-level id; None of a link to nothing, or of a type."""
    import h5py

    said = name.decode("utf-8", errors="replace")
    if link not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
        raise ReadError(f"{file}: {said!r} lies in another file, expected all in one. Copy it into this one.")
    try:
        opened = h5py.h5o.open(group, name)
    except KeyError:
        return None
    # a soft link's path may lead over a link to another file
    if link == h5py.h5l.TYPE_SOFT and h5py.h5o.get_info(opened).fileno != h5py.h5o.get_info(group).fileno:
        raise ReadError(f"{file}: {said!r} lies in another file, expected all in one. Copy it into this one.")
    if isinstance(opened, h5py.h5g.GroupID):
        return _Group(opened)
    return _array(file, said, opened) if isinstance(opened, h5py.h5d.DatasetID) else None


def _array(file: Path, name: str, opened: Any) -> _Array:
    """Return an array whose values lie in this very file.

    Raises
    ------
    ReadError
        They do not, or its chunks are too large to be unpacked.
    """
    from h5py import h5d

    # Only values in one piece in this very file have a place there (H5Dget_offset): what else is asked takes longer.
    if opened.get_offset() is not None:
        return _Array(opened, None)
    created = opened.get_create_plist()
    layout = created.get_layout()
    if layout == h5d.VIRTUAL or created.get_external_count() > 0:
        raise ReadError(f"{file}: the values of {name!r} lie in another file, expected all in one. Copy them.")
    array = _Array(opened, created.get_chunk() if layout == h5d.CHUNKED else None)
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > LARGEST_CHUNK_BYTES:
        raise ReadError(
            f"{file}: chunks of {array.chunks} values in {name!r}, expected at most {LARGEST_CHUNK_BYTES} bytes. "
            "Save it with smaller ones."
        )
    return array


def _stack(members: dict[str, _Array | _Group]) -> _Array | None:
    """Return the array of several recordings, or None."""
    for name, member in members.items():
        if isinstance(member, _Array) and len(member.shape) == 3 and meaning_of(name) == "signal":
            if member.dtype.kind in "iuf" and member.shape[0] > 1:
                return member
    return None


def _keys(file: Path, members: dict[str, _Array | _Group], stack: _Array | None) -> list[str]:
    """Return the name of each recording; one whose file gives it none is ``""``, or ``#`` and its place of several."""
    if stack is not None:
        n = stack.shape[0]
        check_size(str(file), n, file.stat().st_size)
        for name in ID_KEYS:
            ids = members.get(name)
            if isinstance(ids, _Array) and ids.shape in ((n,), (n, 1)):
                texts = [_decoded(item) for item in np.asarray(ids[()]).ravel().tolist()]
                return texts if len(set(texts)) == n else [f"#{i}" for i in range(n)]
        return [f"#{i}" for i in range(n)]
    groups = [name for name, member in members.items() if not isinstance(member, _Array)]
    holds_samples = any(isinstance(m, _Array) and m.dtype.kind in "iuf" and m.size > 1 for m in members.values())
    return groups if groups and not holds_samples else [""]


def _chosen(path: Path, file: Path, inner: str, keys: list[str]) -> str:
    """Return the key of the recording that is meant.

    Raises
    ------
    ReadError
        None was named of several, or one that is not there.
    """
    if inner in keys and inner:
        return inner
    if inner.startswith("#") and int(inner[1:]) < len(keys):
        return keys[int(inner[1:])]
    some = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
    if inner and keys == [""]:
        raise ReadError(f"{file}: a file of one recording, expected no {inner!r} behind it. Name the file alone.")
    if inner:
        raise ReadError(f"{path}: no such recording among {len(keys)} ({some}), expected one of them. Check the name.")
    if len(keys) > 1:
        example = keys[0] if keys[0].startswith("#") else f"/{keys[0]}"
        raise ReadError(
            f"{file}: {len(keys)} recordings ({some}), expected one. Name it: {file}{example}, or by its place from 0: "
            f"{file}#0."
        )
    return keys[0]


def _of_stack(
    path: Path,
    file: Path,
    root: _Group,
    members: dict[str, _Array | _Group],
    stack: _Array,
    index: int,
    fs: float | None,
    unit: str | None,
) -> Table:
    """Return one recording of an array of several."""
    check_size(str(path), math.prod(stack.shape[1:]), file.stat().st_size)
    values = _values(file, members, skip=stack) | _attributes(root) | _attributes(stack)
    n_all = stack.shape[0]
    values = {k: v for k, v in values.items() if not (hasattr(v, "shape") and v.shape[:1] == (n_all,))}
    tracing = stack[index]
    table = table_of(str(path), {k: v for k, v in values.items() if meaning_of(k) != "signal"} | {"signal": tracing})
    if stack.shape[1:] == TRACINGS_SHAPE:
        _by_documentation(table, np.asarray(tracing, np.float64), fs, unit)
    return table


def _by_documentation(table: Table, tracing: np.ndarray, fs: float | None, unit: str | None) -> None:
    """Add what the layout of (n, 4096, 12) is documented to mean, and say so."""
    if fs is None and "fs_hz" not in table.meta:
        table.meta["fs_hz"] = repr(TRACINGS_HZ)
        table.warnings.append(f"the file states no rate: {TRACINGS_HZ:g} Hz by the documentation of its layout")
    if unit is None and "unit" not in table.meta:
        table.meta |= {"unit": "mV", "gain_known": "no"}
        table.warnings.append("the file states no unit: taken as mV, not calibrated")
    recorded = np.flatnonzero(tracing.any(axis=1))
    first, last = (int(recorded[0]), int(recorded[-1]) + 1) if len(recorded) else (0, len(tracing))
    if (first, last) != (0, len(tracing)):
        tracing = tracing.copy()
        tracing[:first] = tracing[last:] = np.nan
        table.warnings.append(f"{first} zeros before and {len(tracing) - last} after the ECG are taken as not recorded")
    table.columns = list(tracing.T)
    if table.names[0] == "lead1":
        usual, other = (_misfit(tracing[first:last], order) for order in (STANDARD_LEADS[:6], OTHER_LIMB_ORDER))
        limbs = STANDARD_LEADS[:6] if usual <= other else OTHER_LIMB_ORDER
        if other < usual:
            table.warnings.append(f"by their sums the limb leads stand in the order {', '.join(OTHER_LIMB_ORDER)}")
        table.names = [*limbs, *STANDARD_LEADS[6:]]


def _misfit(tracing: np.ndarray, order: tuple[str, ...]) -> float:
    """Return how far aVR, aVL and aVF are from what Goldberger's equations make of leads I and II."""
    lead = {name: tracing[:, i] for i, name in enumerate(order)}
    one, two = lead["I"], lead["II"]
    off = (lead["aVR"] + (one + two) / 2, lead["aVL"] - one + two / 2, lead["aVF"] - two + one / 2)
    return float(sum(np.abs(row).mean() for row in off))


def _values(file: Path, members: dict[str, _Array | _Group], skip: _Array | None = None) -> dict[str, Any]:
    """Return what members hold: arrays unread, texts and MATLAB's cells of texts read, MATLAB's structs opened."""
    values: dict[str, Any] = {}
    for name, member in members.items():
        if member is skip:
            continue
        if not isinstance(member, _Array):
            if _matlab_class(member) == b"struct":
                inside = _values(file, _members(file, member))
                values |= {key: value for key, value in inside.items() if key not in values}
        else:
            values[name] = _value(file, name, member)
            if meaning_of(name) == "signal":
                values = _attributes(member) | values
    return values


def _value(file: Path, name: str, array: _Array) -> Any:
    """Return an array unread, or the text it stands for."""
    import h5py

    if array.size > MOST_TEXTS:
        return array
    if _matlab_class(array) == b"char":
        return "".join(map(chr, np.asarray(array[()]).ravel(order="F").tolist()))
    if array.dtype.kind not in "OS":
        return array
    items = np.asarray(array[()]).ravel().tolist()
    if not h5py.check_ref_dtype(array.dtype):
        return [_decoded(item) for item in items]
    opened = [h5py.h5r.dereference(reference, array.id) for reference in items if reference]
    targets = [_array(file, name, one) for one in opened if isinstance(one, h5py.h5d.DatasetID)]
    return [_value(file, name, target) for target in targets if target.size <= MOST_TEXTS]


def _matlab_class(holder: _Array | _Group) -> Any:
    """Return what MATLAB says a variable is, or None."""
    import h5py

    return h5py.AttributeManager(holder).get("MATLAB_class") if h5py.h5a.get_num_attrs(holder.id) else None


def _attributes(holder: _Array | _Group) -> dict[str, Any]:
    """Return the attributes of a group or an array that mean something to us."""
    import h5py

    found: dict[str, Any] = {}
    if h5py.h5a.get_num_attrs(holder.id) == 0:
        return found
    for name, value in h5py.AttributeManager(holder).items():
        if meaning_of(name) not in (None, "signal") and np.size(value) <= MOST_TEXTS:
            is_text = isinstance(value, bytes | str) or getattr(value, "dtype", np.dtype("f")).kind in "OS"
            texts = [_decoded(item) for item in np.asarray(value).ravel().tolist()] if is_text else []
            found[name] = value if not is_text else texts[0] if len(texts) == 1 else texts
    return found


def _decoded(item: Any) -> str:
    return item.decode("utf-8", errors="replace") if isinstance(item, bytes) else str(item)
