"""TextArena: games and puzzles of the `textarena` package, alone or against an opponent that draws its moves.

The games, the split, the rewards and what is mended are in docs/environments/textarena.md.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from textarena.core import ObservationType

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.errors import nearest

from .chance import Chance
from .games import FAMILIES, Family, game_names, make_game
from .mends import mend

FIRST_SEED: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""The split goes by seed: game n of a split is drawn with its first seed plus n."""

TASKS_A_GAME: dict[Split, int] = {"train": 500, "dev": 50, "test": 50}

LONGEST_ACTION = 2000
MOST_OPPONENT_MOVES = 50
"""In a row; an opponent may move more than once where the rules let it, in dice for example."""

_making = threading.Lock()
"""Sokoban keeps what it is making in its module, so no two games are made at once."""

_THOUGHTS = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
_BRACKETED = re.compile(r"\[[^\[\]]+\]")


class TextArena(Environment):
    """Play the game. Its rules come first. Answer with one move in square brackets, as the rules show, and nothing else."""

    needs = "the package textarena; its word games need word lists of NLTK"
    step_timeout = 30.0

    def __init__(self, game: str | list[str] = "FrozenLake-v0") -> None:
        """Choose what is played.

        Args:
            game: A game by the id of the package, such as TicTacToe-v0 or Sudoku-v0-easy, or several. In games of two the other player
                draws its moves, and who begins changes from task to task.
        """
        known = game_names()
        names = [game] if isinstance(game, str) else list(dict.fromkeys(game))
        for name in names or [""]:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else f"it is one of {', '.join(sorted(known))}"
                raise ValueError(f"there is no game {name!r} that can be played here; {hint}")
            with _making, Chance(0).used():
                make_game(name)
        mend()
        self._names = names
        self._game: Any = None
        self._family = Family(1)
        self._chance = Chance(0)
        self._seat = 0
        self._over = False

    def tasks(self, split: Split) -> Sequence[Task]:
        """So many games of each; the games take turns. A puzzle that is always the same is one task, for training."""
        found = []
        for number in range(TASKS_A_GAME[split]):
            for name in self._names:
                if FAMILIES[game_names()[name]].seeded or (split == "train" and number == 0):
                    seed = FIRST_SEED[split] + number
                    found.append(Task(f"{name}-{seed}", {"game": name, "seed": seed, "seat": seed % FAMILIES[game_names()[name]].players}))
        return found

    def reset(self, task: Task) -> str:
        self._family = FAMILIES[game_names()[task.data["game"]]]
        self._seat = task.data["seat"]
        self._chance = Chance(task.data["seed"])
        self._over = False
        with self._chance.used():
            with _making:
                self._game = make_game(task.data["game"])
                self._game.reset(num_players=self._family.players, seed=task.data["seed"])
            self._let_the_opponent_move()
        return self._news()

    def step(self, action: str) -> StepResult:
        if self._over:
            return StepResult("The game is over.", done=True)
        text = _THOUGHTS.sub("", action).strip()[-LONGEST_ACTION:]
        moves = _BRACKETED.findall(text)
        with self._chance.used():
            before = self._game.state.turn
            self._game.step(" ".join(moves) if moves else f"[{text.strip('[]')}]")
            refused = self._game.state.error_count > 0 or self._game.state.game_info[self._seat]["invalid_move"]
            self._let_the_opponent_move()
        info: dict[str, Any] = {"turn": before}
        if refused:
            info["errors"] = {"invalid_move": 1}
        if not self._game.state.done:
            return StepResult(self._news(), info=info)
        self._over = True
        rewards = self._game.state.rewards or {}
        info["reason"] = str(self._game.state.game_info[self._seat].get("reason", ""))
        return StepResult(
            "\n".join(filter(None, (self._news(), info["reason"]))), float(rewards.get(self._seat, 0.0)), done=True, info=info
        )

    def actions(self) -> Sequence[str] | None:
        """Moves of the right form; against an opponent, those that the game accepts. None where there are too many to list."""
        if self._family.moves is None:
            return None
        if self._over:
            return []
        moves = list(self._family.moves(self._game))
        return moves if self._family.players == 1 or self._family.legal else [move for move in moves if self._accepted(move)]

    def snapshot(self) -> tuple[Any, ...]:
        return self._family, self._seat, self._over, copy.deepcopy(self._chance), copy.deepcopy(self._game)

    def restore(self, state: Any) -> None:
        self._family, self._seat, self._over, chance, game = state
        self._chance, self._game = copy.deepcopy(chance), copy.deepcopy(game)

    def _let_the_opponent_move(self) -> None:
        """Have the other player draw moves until it is the agent's turn or the game is over."""
        for _ in range(MOST_OPPONENT_MOVES):
            if self._game.state.done or self._game.state.current_player_id == self._seat:
                return
            self._game.step(next(self._drawn()))
        raise RuntimeError(f"the opponent has moved {MOST_OPPONENT_MOVES} times in a row")

    def _drawn(self) -> Iterator[str]:
        """Moves that the game accepts, drawn by the game's chance; where none is accepted any will do: the game has the player skip."""
        moves = list(self._family.moves(self._game) if self._family.moves is not None else ())
        self._chance.python.shuffle(moves)
        yield from (move for move in moves if self._family.legal or self._accepted(move))
        yield moves[0]

    def _accepted(self, move: str) -> bool:
        """Whether the game takes a move of whose turn it is; tried on a copy, with a copy of its chance."""
        game, player = copy.deepcopy(self._game), self._game.state.current_player_id
        with copy.deepcopy(self._chance).used():
            game.step(move)
        return game.state.error_count == 0 and not game.state.game_info[player]["invalid_move"]

    def _news(self) -> str:
        """What the agent has not read yet, its own moves left out."""
        found = self._game.state.observations[self._seat]
        self._game.state.observations[self._seat] = []
        names = self._game.state.role_mapping
        lines = []
        for sender, message, kind in found:
            if kind == ObservationType.PLAYER_ACTION:
                if sender == 1 - self._seat and self._family.players == 2:
                    lines.append(f"[{names.get(sender, f'Player {sender}')}] {message.strip()}")
            else:
                lines.append(message.strip("\n"))
        return "\n".join(lines)
