"""What a person sees is the mask itself: exactly the ids, exactly what was trained on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentloop.report.trajectory import examples, pieces
from agentloop.trace.tree import Draw, Tree, Turn


def decode_bytes(ids: object) -> str:
    return bytes(ids).decode("utf-8", errors="replace")  # type: ignore[call-overload]


def turn(sample: int, k: int, *, success: bool | None = None, text: str = "ab") -> Turn:
    return Turn(
        id=f"{sample}.{k}",
        parent=f"{sample}.{k - 1}" if k else None,
        extends=f"{sample}.{k - 1}" if k else None,
        fresh=None if k else "start",
        prompt_ids=tuple(b"prompt"),
        completion_ids=tuple(text.encode()),
        logprobs=tuple([-0.5] * len(text.encode())),
        text=text,
        draw=Draw("base"),
        reward=1.0 if success else 0.0,
        done=success is not None,
        success=success,
        observation="<b>seen</b>",
    )


@given(st.text(min_size=0, max_size=30))
def test_pieces_join_to_the_text_and_split_no_character(text: str) -> None:
    ids = list(text.encode())
    found = list(pieces(ids, [-1.0] * len(ids), "trained", decode_bytes))
    assert "".join(piece.text for piece in found) == text
    assert sum(len(piece.title.split("log-probability")[1].split()) for piece in found) == len(ids)
    if "\ufffd" not in text:
        assert [piece.text for piece in found] == list(text)


def test_only_turns_of_training_rows_are_marked_as_trained() -> None:
    tree = Tree(
        "000/trees/a",
        "a",
        "toy",
        "train",
        turns=(turn(0, 0), turn(0, 1, success=True), turn(1, 0), turn(1, 1, success=True), turn(2, 0, success=False)),
    )
    trained = {(tree.id, "1.0"), (tree.id, "1.1")}
    shown = examples([tree], trained, decode_bytes)
    assert [(example.leaf, example.trained, example.outcome) for example in shown] == [
        ("1.1", True, "success"),
        ("0.1", False, "success"),
        ("2.0", False, "no success"),
    ]
    kinds = [[piece.kind for piece in view.completion] for view in shown[0].turns]
    assert kinds == [["trained", "trained"], ["trained", "trained"]]
    assert {piece.kind for view in shown[1].turns for piece in view.completion} == {"sampled"}
    assert [view.prompt[0].text for view in shown[0].turns] == ["prompt", "prompt"]


def test_no_more_examples_than_asked_for_are_collected() -> None:
    trees = [Tree(f"000/trees/{n}", str(n), "toy", "train", turns=(turn(0, 0, success=n % 2 == 0),)) for n in range(40)]
    shown = examples(iter(trees), {("000/trees/6", "0.0")}, decode_bytes, successes=2, others=2)
    assert [example.task for example in shown] == ["6", "0", "1", "3"]
