"""Exact endgames: how far mate is, and who plays them perfectly, by retrograde analysis.

Stockfish does not settle it: of 322 positions with two white pieces where it saw no mate in four
in 200,000 nodes, 132 have one, and with 10,000 nodes a move it fails to win 3 of 10 rook endings.
Here all positions with a lone black king are solved at once, in about a second, and kept.

A set of positions is an array of 64-bit words indexed [white king, first piece, second piece], with
one bit for each square of the black king; square 64 is "captured", so that a table holds the
endgames with one piece as well. From the mates, alternate: White wins where a move reaches a
position that Black has lost; Black has lost where every move reaches one that White wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

import chess
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Distances = NDArray[np.uint8]

NEVER: Final = 255
"""The distance to mate where Black does not lose."""

_CAPTURED: Final = 64
_SHAPE: Final = (64, 65, 65)
_BIT: Final = np.append(np.uint64(1) << np.arange(64, dtype=np.uint64), np.uint64(0))
_STRAIGHT: Final = ((1, 0), (-1, 0), (0, 1), (0, -1))
_DIAGONAL: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
_ALL: Final = _STRAIGHT + _DIAGONAL
_DIRECTIONS: Final = {"Q": _ALL, "R": _STRAIGHT}


class OptimalPlayer:
    """White, mating as fast as can be; of equally fast moves a random one."""

    def choose(self, board: chess.Board, rng: np.random.Generator) -> chess.Move:
        """ValueError when the position is none of our endgames."""
        distances = _distances_after(board)
        nearest = min(distances.values())
        best = [move for move, distance in distances.items() if distance == nearest]
        return best[int(rng.random() * len(best))]


def moves_to_mate(board: chess.Board) -> int:
    """In how many of his moves White, who is to move, mates; NEVER where he cannot.

    ValueError when the position is none of our endgames.
    """
    nearest = min(_distances_after(board).values())
    return NEVER if nearest == NEVER else nearest + 1


def _distances_after(board: chess.Board) -> dict[chess.Move, int]:
    """What is left to mate after each of White's moves."""
    queens, rooks = board.pieces(chess.QUEEN, True), board.pieces(chess.ROOK, True)
    pieces = [*queens, *rooks]
    if not 1 <= len(pieces) <= 2 or len(queens) > 1 or len(pieces) + 2 != len(board.piece_map()):
        raise ValueError(f"{board.fen()} is none of the endgames kQK, kRK, kQRK, kRRK")
    slots = rooks if len(rooks) == 2 else (*(queens or (_CAPTURED,)), *(rooks or (_CAPTURED,)))
    table = distances("RR" if len(rooks) == 2 else "QR")
    before = (board.king(chess.WHITE), *slots)
    return {
        move: int(table[*(move.to_square if s == move.from_square else s for s in before)][black])
        for black in [board.king(chess.BLACK)]
        for move in board.legal_moves
    }


@cache
def distances(pieces: str) -> Distances:
    """White moves until mate, Black to move, for two `pieces` of "Q" and "R".

    Indexed [white king, first piece, second piece, black king], NEVER where Black does not lose;
    what stands there for a position that cannot arise means nothing.
    """
    legal, attacked = _legal(), _attacked(pieces)
    stalemate = ~attacked & ~_black_escapes(attacked)
    won = attacked  # were it White's move, he would take the king: Black may not go there
    lost = np.zeros(_SHAPE, dtype=np.uint64)
    result = np.full((*_SHAPE, 64), NEVER, dtype=np.uint8)
    for distance in range(NEVER):
        known, lost = lost, legal & ~stalemate & ~_black_escapes(won)
        if not (lost & ~known).any():
            break
        result[_squares(lost & ~known)] = distance
        won = attacked | _white_reaches(lost, pieces)
    return result


def _squares(words: Words) -> NDArray[np.bool_]:
    octets = words.astype("<u8")[..., np.newaxis].view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little").astype(bool)


def _grid() -> tuple[NDArray[np.int64], ...]:
    return tuple(np.ogrid[tuple(slice(n) for n in _SHAPE)])


def _legal() -> Words:
    """The pieces on different squares, the kings apart; who is in check does not matter."""
    king, first, second = _grid()
    different = (first != king) & (second != king) & ((first != second) | (first == _CAPTURED))
    taken = _BIT[king] | _BIT[first] | _BIT[second] | _spread(_BIT[king])
    return np.where(different, ~taken, np.uint64(0))


def _attacked(pieces: str) -> Words:
    """Where the black king would be attacked, by a piece or by the other king."""
    king = _grid()[0]
    attacked = np.broadcast_to(_BIT[king] | _spread(_BIT[king]), _SHAPE).copy()
    targets = np.zeros(_SHAPE, dtype=np.uint64)
    for axis, piece in enumerate(pieces, start=1):
        onto = np.moveaxis(targets, axis, 0) | _BIT[:, np.newaxis, np.newaxis]
        attacked |= _slides(onto, axis, piece, through_king=True)
    return attacked


def _white_reaches(goal: Words, pieces: str) -> Words:
    reached = np.zeros(_SHAPE, dtype=np.uint64)
    for square in range(64):
        for dx, dy in _ALL:
            following = _neighbour(square, dx, dy)
            if following is not None:
                reached[square] |= goal[following]
    for axis, piece in enumerate(pieces, start=1):
        reached |= _slides(np.moveaxis(goal, axis, 0), axis, piece, through_king=False)
    return reached


def _black_escapes(won: Words) -> Words:
    """Where a move of the black king reaches a position that White has not won."""
    safe = ~won
    for square in range(64):  # the king on a piece's square means that he took it
        bit = _BIT[square]
        for before, after in (
            (safe[:, square, :], safe[:, _CAPTURED, :]),
            (safe[:, :, square], safe[:, :, _CAPTURED]),
        ):
            before[...] = (before & ~bit) | (after & bit)
    return _spread(safe)


def _slides(goal: Words, axis: int, piece: str, *, through_king: bool) -> Words:
    """Where the piece on `axis`, which `goal` has in front, can move to a position in `goal`."""
    one, other = (np.moveaxis(g, axis, 0)[0] for i, g in enumerate(_grid()) if i != axis)
    reached = np.zeros_like(goal)
    for dx, dy in _DIRECTIONS[piece]:
        ray = np.zeros_like(goal)
        for square, following in _far_to_near(dx, dy):
            passes = np.where((one != following) & (other != following), ~np.uint64(0), 0)
            if not through_king:
                passes &= ~_BIT[following]
            ray[square] = goal[following] | (passes & ray[following])
        reached |= ray
    return np.moveaxis(reached, 0, axis)


def _far_to_near(dx: int, dy: int) -> Iterator[tuple[int, int]]:
    """Squares and the next one in a direction, so that the next one comes first by itself."""
    for square in sorted(range(64), key=lambda s: -(dx * (s % 8) + dy * (s // 8))):
        following = _neighbour(square, dx, dy)
        if following is not None:
            yield square, following


def _neighbour(square: int, dx: int, dy: int) -> int | None:
    x, y = square % 8 + dx, square // 8 + dy
    return y * 8 + x if 0 <= x < 8 and 0 <= y < 8 else None


def _spread(words: Words) -> Words:
    """The squares a king's move away from each square in the words."""
    not_a, not_h = np.uint64(0xFEFEFEFEFEFEFEFE), np.uint64(0x7F7F7F7F7F7F7F7F)
    one, eight = np.uint64(1), np.uint64(8)
    sideways = ((words << one) & not_a) | ((words >> one) & not_h)
    row = words | sideways
    spread: Words = sideways | (row << eight) | (row >> eight)
    return spread
