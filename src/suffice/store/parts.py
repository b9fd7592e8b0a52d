"""What repeats in requests is stored once: pieces of their bytes, and how a request is put together from them again.

A piece is a field of a request's JSON (`tools`, `system`, `instructions`, `response_format`, ...) or an item of its
conversation, as its bytes stand there, of 256 bytes and more. One that is seen for the second time gets a row in
`parts`, and from then on requests keep its number in its place. What comes once only costs nothing but a look.

Nothing of JSON's meaning is relied on: a piece is cut out where its bytes are found, and put back there, so a request
is read as it was to the byte, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

LEAST_BYTES = 256
"""Smaller pieces are not worth a number and the look at another row."""
MOST_BYTES = 4 * 2**20
"""Larger requests are kept as they are: to look through them would hold up the others."""
ONCE = 16_384
"""Pieces that were seen once are remembered, by a hash of 8 bytes, until so many others were."""
KNOWN_BYTES = 32 * 2**20
"""What is remembered of pieces that have their row."""
LISTS = ("messages", "input", "contents")

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


class Cutter:
    """Cuts what repeats out of requests. `add` makes a piece's row, or finds it, and gives its number.

    Not for two threads at once. `forget` must be called whenever rows that `add` made were taken back, or parts were
    deleted.
    """

    def __init__(self) -> None:
        self._once: dict[int, None] = {}
        self._known: dict[bytes, int] = {}
        self._bytes = 0

    def forget(self) -> None:
        """Know no part any more: each is looked up, or made, when its piece comes again."""
        for piece in self._known:
            self._once[hash(piece)] = None
        self._known.clear()
        self._bytes = 0

    def cut(self, request: bytes, add: Callable[[bytes], int]) -> tuple[bytes, str | None]:
        """What is left of a request, and where which parts were: `LENGTH OFFSET:PART,...`, None without any.

        LENGTH is that of the whole request, an offset is one into what is left.
        """
        if not LEAST_BYTES <= len(request) <= MOST_BYTES:
            return request, None
        left: list[bytes] = []
        cuts: list[str] = []
        end = offset = 0
        for piece in pieces(request):
            part = self._part(piece, add)
            at = request.find(piece, end) if part is not None else -1
            if at < 0:
                continue
            left.append(request[end:at])
            offset += at - end
            cuts.append(f"{offset}:{part}")
            end = at + len(piece)
        if not cuts:
            return request, None
        return b"".join([*left, request[end:]]), f"{len(request)} {','.join(cuts)}"

    def _part(self, piece: bytes, add: Callable[[bytes], int]) -> int | None:
        """The number of a piece that has come before."""
        part = self._known.pop(piece, None)
        if part is not None:
            self._known[piece] = part  # the last to be let go
            return part
        seen = hash(piece)
        if seen not in self._once:
            self._once[seen] = None
            if len(self._once) > ONCE:
                del self._once[next(iter(self._once))]
            return None
        del self._once[seen]
        part = self._known[piece] = add(piece)
        self._bytes += len(piece)
        while self._bytes > KNOWN_BYTES:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._once[hash(oldest)] = None
            self._bytes -= len(oldest)
        return part


def pieces(request: bytes) -> list[bytes]:
    """The pieces of a request, in their order; none where it is no JSON object."""
    found: list[bytes] = []
    try:
        for name, value in _FIELDS.decode(request).items():
            raw = bytes(value)
            if len(raw) < LEAST_BYTES:
                continue
            if name in LISTS and raw[:1] == b"[":
                found += [item for item in map(bytes, _ITEMS.decode(raw)) if len(item) >= LEAST_BYTES]
            else:
                found.append(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return found


def numbers(cuts: str) -> list[int]:
    """The parts that a request is put together from."""
    return [int(one.partition(":")[2]) for one in cuts.partition(" ")[2].split(",")]


def join(left: bytes, cuts: str, body: Callable[[int], bytes]) -> bytes:
    """The request, to the byte. `body` gives what a part holds."""
    whole: list[bytes] = []
    end = 0
    for one in cuts.partition(" ")[2].split(","):
        at, _, part = one.partition(":")
        whole += [left[end : int(at)], body(int(part))]
        end = int(at)
    return b"".join([*whole, left[end:]])
