"""The CPU plugin: its operations against the definition, row by row; and that it keeps off what it does not know."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentloop.engine import vllm_plugin
from agentloop.engine.vllm_plugin import group_rows

SLOTS, RANK, WIDTH, OUT = 3, 4, 6, 5
rows_of_batch = st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def new_step() -> Iterator[None]:
    """What `update_metadata` does before each step of the server."""
    vllm_plugin._groups_of_step.clear()
    yield
    vllm_plugin._groups_of_step.clear()


def weights(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Stacked weights of shape (slots, 1, rows, columns), every slot taken."""
    return torch.randn(SLOTS, 1, rows, columns, generator=torch.Generator().manual_seed(seed))


def inputs(length: int, width: int) -> torch.Tensor:
    return torch.randn(length, width, generator=torch.Generator().manual_seed(length))


@given(rows_of_batch)
def test_shrink_is_a_times_x_for_rows_with_an_adapter_and_nothing_for_the_others(slots: list[int]) -> None:
    vllm_plugin._groups_of_step.clear()
    a, x = weights(1, RANK, WIDTH), inputs(len(slots), WIDTH)
    found = torch.zeros(len(slots), RANK)
    vllm_plugin.bgmv_shrink(x, a, found, torch.tensor(slots), 0.5)
    expected = torch.stack([0.5 * a[slot, 0] @ row if slot >= 0 else torch.zeros(RANK) for slot, row in zip(slots, x, strict=True)])
    torch.testing.assert_close(found, expected)


@given(rows_of_batch, st.booleans())
def test_expand_adds_b_times_x_for_rows_with_an_adapter_and_leaves_the_others_alone(slots: list[int], add: bool) -> None:
    vllm_plugin._groups_of_step.clear()
    b, x = weights(2, OUT, RANK), inputs(len(slots), RANK)
    before = inputs(len(slots), 2 * OUT)
    found = before.clone()
    vllm_plugin.bgmv_expand_slice(x, b, found, torch.tensor(slots), 3, OUT, add)
    expected = before.clone()
    for index, slot in enumerate(slots):
        if slot >= 0:
            expected[index, 3 : 3 + OUT] = b[slot, 0] @ x[index] + (before[index, 3 : 3 + OUT] if add else 0)
    torch.testing.assert_close(found, expected)


@given(st.lists(st.tuples(st.integers(-1, SLOTS - 1), st.integers(1, 4)), min_size=1, max_size=6))
def test_runs_of_tokens_give_what_their_tokens_give(runs: list[tuple[int, int]]) -> None:
    slots, lengths = torch.tensor([slot for slot, _ in runs]), torch.tensor([length for _, length in runs])
    total = int(lengths.sum())
    a, b, x = weights(1, RANK, WIDTH), weights(2, OUT, RANK), inputs(total, WIDTH)
    every = torch.repeat_interleave(slots, lengths)
    metadata = (torch.zeros_like(lengths), lengths, slots, len(runs), int(lengths.max()), total)
    small, large = torch.zeros(2, total, RANK), torch.zeros(2, total, OUT)
    vllm_plugin._groups_of_step.clear()
    vllm_plugin.bgmv_shrink(x, a, small[0], every, 2.0)
    vllm_plugin.sgmv_shrink(x, a, small[1], *metadata, 2.0)
    vllm_plugin.bgmv_expand(small[0], b, large[0], every, True)
    vllm_plugin.sgmv_expand(small[1], b, large[1], *metadata, True)
    torch.testing.assert_close(small[0], small[1])
    torch.testing.assert_close(large[0], large[1])


@given(rows_of_batch)
def test_groups_hold_every_row_with_an_adapter_once(slots: list[int]) -> None:
    groups = group_rows(slots)
    assert len({slot for slot, _ in groups}) == len(groups), "more than one product for an adapter"
    covered = sorted((row, slot) for slot, runs in groups for begin, end in runs for row in range(begin, end))
    assert covered == [(row, slot) for row, slot in enumerate(slots) if slot >= 0]


def test_bfloat16_weights_are_applied_in_the_dtype_of_the_output() -> None:
    b, x = weights(2, OUT, RANK).bfloat16(), inputs(2, RANK)
    found = torch.zeros(2, OUT, dtype=torch.bfloat16)
    vllm_plugin.bgmv_expand(x, b, found, torch.tensor([1, -1]))
    torch.testing.assert_close(found[0], b[1, 0] @ x[0].bfloat16())
    assert not found[1].any()


def fake_vllm(monkeypatch: pytest.MonkeyPatch, *, cpu: bool = True, **functions: object) -> types.ModuleType:
    """Modules in vLLM's place, with the six operations of `functions` or of the plugin itself (which take what is expected)."""
    modules = {name: types.ModuleType(name) for name in ("vllm", "vllm.platforms", "vllm.lora", "vllm.lora.punica_wrapper")}
    ops = types.ModuleType("vllm.lora.punica_wrapper.punica_cpu")
    base = types.ModuleType("vllm.lora.punica_wrapper.punica_base")
    for name in vllm_plugin.EXPECTED:
        setattr(ops, name, functions.get(name, types.FunctionType(getattr(vllm_plugin, name).__code__, {}, name)))
    base.PunicaWrapperBase = type("PunicaWrapperBase", (), {"update_metadata": lambda self, value: value})  # type: ignore[attr-defined]
    modules["vllm.platforms"].current_platform = types.SimpleNamespace(is_cpu=lambda: cpu)  # type: ignore[attr-defined]
    modules["vllm.lora.punica_wrapper"].punica_cpu = ops  # type: ignore[attr-defined]
    for name, module in (modules | {ops.__name__: ops, base.__name__: base}).items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return ops


def test_it_replaces_all_six_operations_once_and_forgets_groups_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = fake_vllm(monkeypatch)
    assert vllm_plugin._replace() is None
    assert vllm_plugin._replace() is None
    assert all(getattr(ops, name) is getattr(vllm_plugin, name) for name in vllm_plugin.EXPECTED)
    wrapper = __import__("sys").modules["vllm.lora.punica_wrapper.punica_base"].PunicaWrapperBase()
    vllm_plugin._groups_of_step[("token", 1, 1)] = []
    assert wrapper.update_metadata("indices") == "indices"
    assert not vllm_plugin._groups_of_step


def test_it_does_nothing_beside_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = fake_vllm(monkeypatch, cpu=False)
    assert vllm_plugin._replace() == "this is no CPU platform"
    assert ops.bgmv_shrink is not vllm_plugin.bgmv_shrink


def test_it_does_nothing_where_an_operation_takes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = fake_vllm(monkeypatch, sgmv_expand=lambda inputs, weights, lanes: None)
    reason = vllm_plugin._replace()
    assert reason is not None and reason.startswith("sgmv_expand takes ('inputs', 'weights', 'lanes')")
    assert ops.bgmv_shrink is not vllm_plugin.bgmv_shrink, "some operations were replaced and others not"


def test_draws_by_inversion_have_the_distribution_and_never_an_impossible_token() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.2499, 0.0001, 0.0])
    count = 200_000
    torch.manual_seed(1)
    drawn = vllm_plugin.draw(probabilities.log().expand(count, -1), {})
    counts = torch.bincount(drawn, minlength=7).double()
    assert counts[probabilities == 0].sum() == 0
    possible = probabilities > 0
    expected = probabilities[possible].double() * count
    chi_square = float(((counts[possible] - expected) ** 2 / expected).sum())
    assert chi_square < 16.27  # 0.1 % of samples with 3 degrees of freedom are above it


@given(st.integers(0, 2**31), st.integers(0, 20))
def test_a_seeded_draw_does_not_depend_on_its_batch(seed: int, others: int) -> None:
    logprobs = torch.randn(others + 1, 50, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    alone = vllm_plugin.draw(logprobs[others:], {0: torch.Generator().manual_seed(seed)})
    generators = {row: torch.Generator().manual_seed(row) for row in range(others)} | {others: torch.Generator().manual_seed(seed)}
    assert vllm_plugin.draw(logprobs, generators)[others] == alone[0]
