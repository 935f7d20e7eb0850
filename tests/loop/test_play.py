"""What a run keeps of its samplings: nothing that was counted once is lost because something was sampled after it."""

from dataclasses import replace

from agentloop.loop.stages.play import sampling_facts
from agentloop.sampling.group import SamplingReport
from agentloop.trace.tree import Failure

ADAPTER = SamplingReport(
    episodes=4,
    resumed=1,
    finished=3,
    succeeded=2,
    failures={},
    first_failures={"engine.timeout": Failure("engine.timeout", "waited 60 s", sample=2)},
    retried={"engine.timeout": 1},
    truncated={"turns": 1},
    fresh={},
    turns=9,
    prompt_tokens=90,
    cached_tokens=40,
    generated_tokens=30,
    seconds=2.0,
    engine_seconds=1.5,
    environment_seconds=0.25,
    most_at_engine=2,
    most_alive=2,
)


def test_the_facts_of_adapter_and_base_are_added_up() -> None:
    base = replace(
        ADAPTER, first_failures={"environment.step": Failure("environment.step", "broke", sample=0)}, retried={}, truncated={"turns": 2}
    )
    assert sampling_facts(ADAPTER, None, base) == {
        "resumed": 2,
        "truncated": {"turns": 3},
        "fresh": {},
        "retried": {"engine.timeout": 1},
        "engine_seconds": 3.0,
        "environment_seconds": 0.5,
        "first_failures": {"engine.timeout": "waited 60 s", "environment.step": "broke"},
    }


def test_where_nothing_was_sampled_there_are_no_facts() -> None:
    assert sampling_facts(None) == {}
