"""Huffman codes of SCP-ECG (EN 1064:2005, 5.5 and annex C): the default table, and tables of the file's own."""

import struct
from dataclasses import dataclass

import numpy as np

from anyecg.errors import ReadError

DEFAULT = 19999
"""What section 2 says where it holds no table of its own."""

MAX_PREFIX_BITS = 32


@dataclass(frozen=True)
class Code:
    """A line of a table: a prefix of so many bits, which stands for a value, or leads to another table."""

    prefix_bits: int
    total_bits: int
    is_value: bool
    value: int
    prefix: int


class Huffman:
    """A table, ready to decode.

    Parameters
    ----------
    codes : list of Code
        The prefix's first bit is its highest.
    """

    def __init__(self, codes: list[Code]) -> None:
        self.codes = {(code.prefix_bits, code.prefix): code for code in codes}
        self.lengths = sorted({code.prefix_bits for code in codes})

    def decode(self, data: bytes, count: int, tables: list["Huffman"]) -> np.ndarray:
        """Return up to ``count`` values, int64, of which fewer if the bits end or are no code.

        Parameters
        ----------
        data : bytes
            The highest bit of each byte comes first.
        count : int
        tables : list of Huffman
            To which codes may switch; numbered from 1 in the file.
        """
        bits = int.from_bytes(data, "big")
        n_bits = 8 * len(data)
        text = f"{bits:0{n_bits}b}" if n_bits else ""
        out = np.empty(count, dtype=np.int64)
        table, at, n_done = self, 0, 0
        codes, lengths = table.codes, table.lengths
        while n_done < count:
            code = None
            for length in lengths:
                stop = at + length
                if stop > n_bits:
                    break
                code = codes.get((length, int(text[at:stop], 2)))
                if code is not None:
                    break
            if code is None:
                break
            at += code.prefix_bits
            if not code.is_value:
                if not 1 <= code.value <= len(tables):
                    break
                table = tables[code.value - 1]
                codes, lengths = table.codes, table.lengths
                continue
            value = code.value
            n_more = code.total_bits - code.prefix_bits
            if n_more:
                if at + n_more > n_bits:
                    break
                more = int(text[at : at + n_more], 2)
                value += more - (1 << n_more) if more >> (n_more - 1) else more
                at += n_more
            out[n_done] = value
            n_done += 1
        return out[:n_done]


def default_table() -> Huffman:
    """Return the table of annex C.3.7.6: 0 is 0; n ones, 0 and a sign is 1 to 8; then 8 or 16 bits as they are."""
    codes = [Code(1, 1, True, 0, 0b0)]
    for size in range(1, 9):
        for sign, value in ((0, size), (1, -size)):
            codes.append(Code(size + 2, size + 2, True, value, ((1 << size) - 1) << 2 | sign))
    codes += [Code(10, 18, True, 0, 0b1111111110), Code(10, 26, True, 0, 0b1111111111)]
    return Huffman(codes)


def parse_tables(where: str, body: bytes) -> list[Huffman]:
    """Return the tables of section 2; the first is the one that each lead begins with.

    Raises
    ------
    ReadError
        A table is cut short, or a code has no prefix.
    """
    (count,) = struct.unpack_from("<H", body)
    if count == DEFAULT:
        return [default_table()]
    tables: list[Huffman] = []
    at = 2
    for number in range(count):
        n_codes = int.from_bytes(body[at : at + 2], "little")
        at += 2
        if at + 9 * n_codes > len(body) or n_codes == 0:
            raise ReadError(f"{where}: Huffman table {number + 1} is cut short. The file is damaged.")
        codes = []
        for _ in range(n_codes):
            prefix_bits, total_bits, mode, value, stored = struct.unpack_from("<BBBhI", body, at)
            at += 9
            if not 1 <= prefix_bits <= min(total_bits, MAX_PREFIX_BITS):
                raise ReadError(
                    f"{where}: a Huffman code of {prefix_bits} bits, {total_bits} with its value, in table "
                    f"{number + 1}, expected 1 to 32. The file is damaged."
                )
            # The code is stored with its first bit as the lowest: mirrored.
            prefix = int(f"{stored & ((1 << prefix_bits) - 1):0{prefix_bits}b}"[::-1], 2)
            codes.append(Code(prefix_bits, total_bits, mode != 0, value, prefix))
        tables.append(Huffman(codes))
    if not tables:
        raise ReadError(f"{where}: no Huffman table in section 2, expected one. The file is damaged.")
    return tables
