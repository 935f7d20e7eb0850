"""Which games of the `textarena` package can be played here, and what their moves look like.

Those with one player, and those with two whose moves can be listed, since the second seat is then played by an opponent that draws among
them. Left out are games that ask a language model to be the game master or a jury, that have more than two players, or that are talk.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from agentloop.errors import Mistake

from .chance import separate

Moves = Callable[[Any], Iterable[str]]
"""All moves of the right form for a game under way, legal or not."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of game, of which the package registers several sizes.

    Attributes:
        players: 1, or 2 with an opponent.
        moves: Its moves; None where there are too many to list.
        seeded: Whether the seed draws what is played; without, every episode is the same puzzle.
        words: Whether it needs word lists that the package downloads from NLTK's server.
        options: Settings that differ from the package's.
        legal: Whether the moves that are listed are all legal, so that none has to be tried.
    """

    players: int
    moves: Moves | None = None
    seeded: bool = True
    words: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    legal: bool = False


def _fixed(*names: str) -> Moves:
    return lambda game: [f"[{name}]" for name in names]


def _squares(columns: str, rows: str, between: str = " ") -> Moves:
    """A move names a row and a column, of boards whose sizes are attributes of the game."""
    return lambda game: [f"[{row}{between}{column}]" for row in range(getattr(game, rows)) for column in range(getattr(game, columns))]


def _nim(game: Any) -> Iterable[str]:
    return [f"[{pile} {count}]" for pile, size in enumerate(game.state.game_state["piles"]) for count in range(1, size + 1)]


def _chess(game: Any) -> Iterable[str]:
    return [f"[{move.uci()}]" for move in game.state.game_state["board"].legal_moves]


def _breakthrough(game: Any) -> Iterable[str]:
    size, player = game.board_size, game.state.current_player_id
    files = "abcdefghijklmnopqrstuvwxyz"
    return [
        f"[{files[column]}{row + 1}{files[other]}{ahead + 1}]"
        for row in range(size)
        for column in range(size)
        for ahead in (row + 1, row - 1)
        for other in (column - 1, column, column + 1)
        if 0 <= ahead < size and 0 <= other < size and game._is_valid_move(player, row, column, ahead, other)
    ]


_DIRECTIONS = _fixed("up", "down", "left", "right")

FAMILIES: dict[str, Family] = {
    "Bandit": Family(1, lambda game: [f"[{button}]" for button in game.buttons]),
    "Blackjack": Family(1, _fixed("Hit", "Stand")),
    "Countdown": Family(1, options=(("numbers", None), ("target", None))),  # the package's own is one puzzle, always the same
    "Crosswords": Family(1, words=True),
    "Cryptarithm": Family(1, seeded=False),
    "FifteenPuzzle": Family(1, _DIRECTIONS),
    "FrozenLake": Family(1, _DIRECTIONS),
    "Game2048": Family(1, _DIRECTIONS),
    "GuessTheNumber": Family(1, lambda game: [f"[{number}]" for number in range(game.min_number, game.max_number + 1)]),
    "Hangman": Family(1, words=True),
    "LightsOut": Family(1, _squares("size", "size")),
    "LogicPuzzle": Family(1),
    "Mastermind": Family(1),
    "Minesweeper": Family(1, _squares("cols", "rows")),
    "PegJump": Family(1, lambda game: [f"[{one} {other}]" for one in range(1, 16) for other in range(1, 16)], seeded=False),
    "RushHour": Family(1),
    "Secretary": Family(1, _fixed("accept", "continue")),
    "Slitherlink": Family(1),
    "Sokoban": Family(1, _DIRECTIONS),
    "Sudoku": Family(1),
    "ThreeCardMonte": Family(1, lambda game: [f"[{cup}]" for cup in range(game.num_cups)]),
    "TowerOfHanoi": Family(1, lambda game: [f"[{one} {other}]" for one in "ABC" for other in "ABC" if one != other], seeded=False),
    "WordLadder": Family(1, words=True),
    "WordSearch": Family(1, words=True),
    "Wordle": Family(1, words=True),
    "Breakthrough": Family(2, _breakthrough, legal=True),
    "Chess": Family(2, _chess, legal=True),
    "ConnectFour": Family(2, lambda game: [f"[col {column}]" for column in range(game.num_cols)]),
    "GameOfPureStrategy": Family(2, _fixed("A", *map(str, range(2, 11)), "J", "Q", "K")),
    "IteratedMatchingPennies": Family(2, _fixed("heads", "tails"), legal=True),
    "IteratedRockPaperScissors": Family(2, _fixed("rock", "paper", "scissors"), legal=True),
    "KuhnPoker": Family(2, _fixed("check", "bet", "call", "fold")),
    "Nim": Family(2, _nim, legal=True),
    "Othello": Family(2, _squares("N", "N", ", ")),
    "PigDice": Family(2, _fixed("roll", "hold"), legal=True),
    "ReverseTicTacToe": Family(2, _fixed(*map(str, range(9)))),
    "TicTacToe": Family(2, _fixed(*map(str, range(9)))),
    "WildTicTacToe": Family(2, _fixed(*(f"{mark} {square}" for mark in "XO" for square in range(9)))),
}

NLTK_COMMAND = "python -m nltk.downloader words averaged_perceptron_tagger_eng"


@cache
def game_names() -> dict[str, str]:
    """The family of each game, by the id that the package registers: "TicTacToe-v0" is of the family TicTacToe."""
    from textarena.envs.registration import ENV_REGISTRY

    found = {}
    for id, spec in ENV_REGISTRY.items():
        family = str(spec.entry_point).removeprefix("textarena.envs.").partition(".")[0]
        if family in FAMILIES and not id.endswith(("-raw", "-train")):
            found[id] = family
    return found


def make_game(id: str) -> Any:
    """A game, without the package's wrappers; to be called while a `Chance` is used, because some draw what is played when they are made.

    Raises:
        Mistake: It needs word lists that are not there, or a later Python.
    """
    from textarena.envs.registration import ENV_REGISTRY

    spec = ENV_REGISTRY[id]
    family = FAMILIES[game_names()[id]]
    if family.words:
        _check_words(id)
    module_name, _, name = str(spec.entry_point).partition(":")
    try:
        module = importlib.import_module(module_name)
    except SyntaxError as error:
        here = ".".join(map(str, sys.version_info[:2]))
        raise Mistake(f"the game {id!r} cannot be played with Python {here}: the package's {module_name} needs 3.12 or newer") from error
    separate()
    return getattr(module, name)(**{**spec.kwargs, **dict(family.options)})


def _check_words(id: str) -> None:
    """Word lists are not part of the package; it would download them by itself, at import, and fail later where there is no network."""
    import nltk

    for resource in ("corpora/words", "taggers/averaged_perceptron_tagger_eng"):
        try:
            nltk.data.find(resource)
        except LookupError:
            raise Mistake(f"the game {id!r} needs word lists of NLTK ({resource}); download them with: {NLTK_COMMAND}") from None
