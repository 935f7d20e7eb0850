"""Roles that meet are left in peace: what a build or a training would find nothing of is in `broken.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.recipe import load

HEAD = """\
name: roles
model: tiny
environment: textcraft
roles: {helper: {}, judge: {}}
stages:
"""

MEETING = {
    "of one role": """\
  - sample: {id: trees, role: helper}
  - build: {id: rows, from: trees, role: helper, dataset: self_imitation}
  - train: {from: rows, role: helper}
""",
    "two roles from one mix": """\
  - sample: {id: first}
  - sample: {id: second, role: helper}
  - build: {id: ones, from: first, dataset: self_imitation}
  - build: {id: twos, from: second, role: helper, dataset: self_imitation}
  - build: {id: both, mix: {ones: 0.5, twos: 0.5}}
  - train: {id: train_one, from: both}
  - train: {id: train_two, from: both, role: helper}
""",
    "by one of several seats": """\
  - sample: {id: games, seats: {one: actor, two: helper}}
  - build: {id: rows, from: games, role: helper, dataset: self_imitation}
""",
    "a critic's verdicts": """\
  - sample: {id: trees}
  - judge: {id: judged, from: trees, critic: first_error, role: judge}
  - build: {id: rows, from: judged, role: judge, dataset: verdicts}
""",
    "goals of what another one began": """\
  - sample: {id: drafts}
  - sample: {id: longer, role: helper, start_from: drafts}
  - build: {id: rows, from: longer, dataset: relabel}
""",
    "rows of an earlier iteration and a file": """\
  - build: {id: all, mix: {rows@previous: 0.5, rows.jsonl: 0.5}}
  - train: {from: all, role: helper}
  - sample: {id: trees}
  - build: {id: rows, from: trees, dataset: self_imitation}
""",
    "a function of one's own": """\
  - sample: {id: trees}
  - python: {id: own, function: "mine.py:made", inputs: [trees], outputs: {own: rows}}
  - train: {from: own, role: helper}
""",
}


@pytest.mark.parametrize("stages", MEETING.values(), ids=MEETING)
def test_roles_that_meet(stages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "rows.jsonl"):
        Path(name).touch()
    Path("r.yaml").write_text(HEAD + stages, encoding="utf-8")
    assert load("r.yaml", environments={"textcraft"}, allow_unavailable=True).name == "roles"
