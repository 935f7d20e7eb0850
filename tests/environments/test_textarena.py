"""TextArena: games repeat by seed whoever else draws random numbers, opponents make legal moves, and whatever is written is answered."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentloop import Environment, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.environment.rehearse import GARBAGE
from agentloop.errors import Mistake

pytest.importorskip("textarena", reason="textarena is not installed: pip install 'agentloop[textarena]'")

ONE_PLAYER = [
    "2048-v0",
    "Bandit-v0",
    "Blackjack-v0",
    "Countdown-v0",
    "FifteenPuzzle-v0",
    "FrozenLake-v0-random",
    "GuessTheNumber-v0",
    "LightsOut-v0",
    "LogicPuzzle-v0",
    "Mastermind-v0",
    "Minesweeper-v0",
    "RushHour-v0",
    "Secretary-v0",
    "Slitherlink-v0",
    "Sokoban-v0",
    "Sudoku-v0-easy",
    "ThreeCardMonte-v0",
]
FIXED = ["Cryptarithm-v0", "PegJump-v0", "TowerOfHanoi-v0"]
TWO_PLAYERS = [
    "Breakthrough-v0-tiny",
    "Chess-v0",
    "ConnectFour-v0",
    "GameOfPureStrategy-v0",
    "IteratedMatchingPennies-v0",
    "IteratedRockPaperScissors-v0",
    "KuhnPoker-v0-short",
    "Nim-v0",
    "Othello-v0-tiny",
    "PigDice-v0-50",
    "ReverseTicTacToe-v0",
    "TicTacToe-v0",
    "WildTicTacToe-v0",
]
NEED_PYTHON_3_12 = ["Chess-v0", "ReverseTicTacToe-v0"]
HANOI = ["[A C]", "[A B]", "[C B]", "[A C]", "[B A]", "[B C]", "[A C]"]


def make(game: str | list[str]) -> Environment:
    if sys.version_info < (3, 12) and game in NEED_PYTHON_3_12:
        pytest.skip(f"the package's module of {game} does not parse before Python 3.12")
    return find("textarena").make(game=game)


async def test_the_protocol_is_kept() -> None:
    options = {"game": ["FrozenLake-v0-random", "TicTacToe-v0", "Minesweeper-v0-small"]}
    findings = [finding async for finding in check(find("textarena"), options, episodes=20)]
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


def play(environment: Environment, task: Task, moves: int = 25) -> list[object]:
    """An episode with moves drawn from those that are listed, or made up where none are."""
    chance = random.Random(task.id)
    seen: list[object] = [environment.reset(task)]
    for _ in range(moves):
        result = environment.step(chance.choice(environment.actions() or ["[1 1]", "[up]", "[A+]"]))
        seen.append((result.observation, result.reward, result.done))
        if result.done:
            break
    return seen


@pytest.mark.parametrize("game", ONE_PLAYER + FIXED + TWO_PLAYERS)
def test_every_game_repeats_by_seed_while_others_draw_random_numbers(game: str) -> None:
    environment = make(game)
    task = environment.tasks("train")[0]
    first = play(environment, task)
    assert first[0] and len(first) > 1
    random.seed(3)
    state = random.getstate()
    with ThreadPoolExecutor(3) as threads:  # instances in threads of their own, as the pool has them
        assert list(threads.map(lambda _: play(make(game), task), range(3))) == [first] * 3
    assert random.getstate() == state, "the random numbers of the process are not the game's"


@pytest.mark.parametrize("game", ONE_PLAYER + FIXED + TWO_PLAYERS)
def test_garbage_is_answered_in_every_game(game: str) -> None:
    environment = make(game)
    environment.reset(environment.tasks("train")[0])
    for garbage in GARBAGE:
        result = environment.step(garbage)
        assert isinstance(result.observation, str) and result.info.get("errors") in (None, {"invalid_move": 1}), garbage
        if result.done:
            environment.reset(environment.tasks("train")[0])


@pytest.mark.parametrize("game", ONE_PLAYER)
def test_other_seeds_are_other_games(game: str) -> None:
    environment = make(game)
    first = {environment.reset(task) for task in environment.tasks("train")[:3]}
    if game.startswith(("Bandit", "GuessTheNumber", "Mastermind", "FrozenLake", "Minesweeper")):  # what is drawn is hidden, or drawn of few
        first = {str(play(environment, task)) for task in environment.tasks("train")[:12]}
    assert len(first) > 1


@pytest.mark.parametrize("game", TWO_PLAYERS)
def test_a_game_of_two_is_played_from_both_seats_to_its_end(game: str) -> None:
    environment = make(game)
    outcomes = []
    for task in environment.tasks("train")[:4]:
        outcomes.append(play(environment, task, moves=400)[-1])
        assert not isinstance(outcomes[-1], str) and outcomes[-1][2], task  # type: ignore[index]
        assert outcomes[-1][1] in (-1.0, 0.0, 1.0)  # type: ignore[index]
    assert {task.data["seat"] for task in environment.tasks("train")[:4]} == {0, 1}


def test_a_win_is_a_success_and_a_second_invalid_move_a_loss() -> None:
    environment = make("TowerOfHanoi-v0")
    (task,) = environment.tasks("train")
    environment.reset(task)
    results = [environment.step(move) for move in HANOI]
    assert results[-1].done and environment.success(sum(result.reward for result in results))
    environment.reset(task)
    first, second = environment.step("<think>[A C]</think> hello"), environment.step("[A Z]")
    assert (first.done, first.info["errors"]) == (False, {"invalid_move": 1}) and "invalid move" in first.observation
    assert second.done and not environment.success(first.reward + second.reward) and second.info["reason"].startswith("Invalid Move")
    assert environment.step("[A C]").done


def test_the_opponents_moves_and_not_ones_own_are_told() -> None:
    environment = make("TicTacToe-v0")
    second = next(task for task in environment.tasks("train") if task.data["seat"] == 1)
    text = environment.reset(second)
    assert "You are Player 1" in text and "[Player 0] [" in text
    move = (environment.actions() or [""])[0]
    told = environment.step(move).observation
    assert f"[Player 1] {move}" not in told and "[Player 0] [" in told


def test_the_split_goes_by_seed_and_a_puzzle_that_is_always_the_same_is_one_task() -> None:
    environment = make(["Sudoku-v0-easy", "PegJump-v0"])
    assert {split: len(environment.tasks(split)) for split in SPLITS} == {"train": 501, "dev": 50, "test": 50}
    assert environment.tasks("test")[0].id == "Sudoku-v0-easy-2000000"


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("TicTacTo-v0", "did you mean"),
        ("SecretMafia-v0", "that can be played here"),
        ([], "it is one of"),
        ("Debate-v0", "there is no game"),
    ],
)
def test_a_game_that_cannot_be_played_is_a_mistake(game: object, message: str) -> None:
    with pytest.raises(Mistake, match=message):
        make(game)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there it can be played")
def test_a_game_that_does_not_parse_says_what_it_needs() -> None:
    with pytest.raises(Mistake, match="needs 3.12 or newer"):
        find("textarena").make(game="Chess-v0")


def test_a_word_game_without_its_word_lists_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(Mistake, match="python -m nltk.downloader words"):
        make("Wordle-v0")
