"""A tiny room in the layout of ALFWorld's data, which is no part of this repository: put the mug that is in a cabinet on the desk."""

from __future__ import annotations

import json
from pathlib import Path

DOMAIN = """
(define (domain room)
  (:requirements :adl :typing)
  (:types agent location receptacle object)
  (:predicates
    (atLocation ?a - agent ?l - location)
    (receptacleAtLocation ?r - receptacle ?l - location)
    (openable ?r - receptacle)
    (opened ?r - receptacle)
    (inReceptacle ?o - object ?r - receptacle)
    (holds ?a - agent ?o - object)
    (holdsAny ?a - agent)
    (checked ?l - location)
  )
  (:action look
    :parameters (?a - agent ?l - location)
    :precondition (and (atLocation ?a ?l))
    :effect (and (checked ?l)))
  (:action GotoLocation
    :parameters (?a - agent ?lstart - location ?lend - location ?r - receptacle)
    :precondition (and (atLocation ?a ?lstart) (receptacleAtLocation ?r ?lend))
    :effect (and (not (atLocation ?a ?lstart)) (atLocation ?a ?lend)))
  (:action OpenObject
    :parameters (?a - agent ?l - location ?r - receptacle)
    :precondition (and (openable ?r) (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (not (opened ?r)))
    :effect (and (opened ?r)))
  (:action PickupObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (inReceptacle ?o ?r) (not (holdsAny ?a))
      (or (not (openable ?r)) (opened ?r)))
    :effect (and (not (inReceptacle ?o ?r)) (holds ?a ?o) (holdsAny ?a)))
  (:action PutObject
    :parameters (?a - agent ?l - location ?o - object ?r - receptacle)
    :precondition (and (atLocation ?a ?l) (receptacleAtLocation ?r ?l) (holds ?a ?o) (or (not (openable ?r)) (opened ?r)))
    :effect (and (inReceptacle ?o ?r) (not (holds ?a ?o)) (not (holdsAny ?a))))
)
"""

GRAMMAR = '''
grammar :: """
    {
        "intro": [{"rhs": "You are in the middle of a room. You see #things#.\\n\\nYour task is to: put some mug on desk."}],
        "things": [{"rhs": "[{r.indefinite + ' ' + r.name | receptacleatlocation(r:receptacle, l:location)}]"}],
        "contents": [
            {"condition": "openable(r:receptacle) & opened(r:receptacle)",
             "rhs": "In it, you see [{o.indefinite + ' ' + o.name | inreceptacle(o:object, r:receptacle)}]."},
            {"condition": "openable(r:receptacle)", "rhs": "The {r.name} is closed."},
            {"rhs": "On the {r.name}, you see [{o.indefinite + ' ' + o.name | inreceptacle(o:object, r:receptacle)}]."}
        ],
        "list_empty": [{"rhs": "nothing"}],
        "list_separator": [{"rhs": ", "}],
        "list_last_separator": [{"rhs": ", and "}]
    }
""";
action look {
    template :: "look";
    feedback :: "You see [{r.indefinite + ' ' + r.name | receptacleatlocation(r:receptacle, l2:location)}].";
}
action GotoLocation {
    template :: "go to [{r.name | receptacleatlocation(r:receptacle, lend:location)}]";
    feedback :: "You arrive at {r.name}. #contents#";
}
action OpenObject { template :: "open {r}"; feedback :: "You open the {r.name}. #contents#"; }
action PickupObject { template :: "take {o} from {r}"; feedback :: "You pick up the {o.name} from the {r.name}."; }
action PutObject { template :: "move {o} to {r}"; feedback :: "You move the {o.name} to the {r.name}."; }
'''

CABINETS = ("cabinet_bar__plus_01_dot_00", "cabinet_bar__plus_02_dot_00")
DESK = "desk_bar__minus_01_dot_50"
MUGS = ("mug_bar__plus_00_dot_10", "mug_bar__plus_00_dot_20")
WALKTHROUGH = ("go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "go to desk 1", "move mug 1 to desk 1")


def problem(cabinet: str, mug: str) -> str:
    """The planning problem: which cabinet the mug is in, and which mug it is."""
    places = {CABINETS[0]: "l1", CABINETS[1]: "l2", DESK: "l3"}
    return f"""
(define (problem room1)
  (:domain room)
  (:objects agent1 - agent l0 l1 l2 l3 - location {" ".join(places)} - receptacle {" ".join(MUGS)} - object)
  (:init (atLocation agent1 l0)
    {" ".join(f"(receptacleAtLocation {thing} {place})" for thing, place in places.items())}
    {" ".join(f"(openable {thing})" for thing in CABINETS)}
    (inReceptacle {mug} {cabinet}))
  (:goal (and (exists (?o - object) (inReceptacle ?o {DESK})))))
"""


def write_room(folder: Path, split: str, *, kind: str = "pick_and_place_simple", trial: str = "trial_1", solvable: bool = True) -> Path:
    """Write a game where ALFWorld's data would have it; returns its file."""
    place = folder / "json_2.1.1" / split / f"{kind}-Mug-None-Desk-301" / trial
    place.mkdir(parents=True)
    game = {
        "pddl_domain": DOMAIN,
        "grammar": GRAMMAR,
        "pddl_problem": problem(CABINETS[1], MUGS[1]),
        "walkthrough": list(WALKTHROUGH),
        "solvable": solvable,
    }
    (place / "game.tw-pddl").write_text(json.dumps(game), encoding="utf-8")
    return place / "game.tw-pddl"
