"""A scripted agent for MiniWoB++: it reads the observation alone, as a model would, and writes one call.

`ACTORS[type]` is a generator function: it is sent observations and yields actions until the episode ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise

_LINE = re.compile(r"^ *\[(?P<ref>\d+)\] (?P<tag>\w+)(?P<rest>.*)$")

Actor = Generator[str, str, None]


@dataclass(frozen=True)
class Element:
    """One line of a page."""

    ref: int
    tag: str
    id: str
    classes: str
    text: str
    rest: str

    @property
    def place(self) -> tuple[int, int]:
        found = re.search(r"@(-?\d+),(-?\d+)", self.rest)
        assert found, self
        return int(found[1]), int(found[2])


@dataclass(frozen=True)
class Page:
    """An observation, read."""

    told: str
    elements: tuple[Element, ...]

    def find(self, tag: str = "", text: str | None = None, id: str = "", css: str = "") -> Element:
        return next(self.all(tag, text, id, css))

    def all(self, tag: str = "", text: str | None = None, id: str = "", css: str = "") -> Iterator[Element]:
        for element in self.elements:
            fits = element.tag.startswith(tag) and text in (None, element.text) and id in ("", element.id)
            if fits and (not css or css in element.classes.split(".")):
                yield element

    def asked(self, pattern: str) -> tuple[str, ...]:
        found = re.search(pattern, self.told)
        assert found, self.told
        return found.groups()


def read(observation: str) -> Page:
    told = re.search(r"Task: (.*)", observation)
    assert told, observation
    elements = []
    for line in observation.splitlines():
        if match := _LINE.match(line):
            rest = match["rest"]
            id = re.match(r" #(\S+)", rest)
            classes = re.search(r' \.([^\s"]+)', rest.split(' "')[0])
            text = re.search(r'(?:^| )"(.*?)"(?= \w+[=@]| @|$| (?:focused|checked|selected|disabled))', rest)
            elements.append(
                Element(int(match["ref"]), match["tag"], id[1] if id else "", classes[1] if classes else "", text[1] if text else "", rest)
            )
    return Page(told[1], tuple(elements))


def click(element: Element) -> str:
    return f"click({element.ref})"


def type_into(element: Element, text: str) -> str:
    return f"type({element.ref}, {text!r})"


def submit(page: Page) -> str:
    return click(next(element for element in page.all("button") if element.text.lower() in ("submit", "login", "search")))


def _one(choose: Callable[[Page], str]) -> Callable[[Page], Actor]:
    """An actor of a single action."""

    def act(page: Page) -> Actor:
        yield choose(page)

    return act


def _form(fill: Callable[[Page], list[str]]) -> Callable[[Page], Actor]:
    """An actor that carries out actions that the first page tells, then submits."""

    def act(page: Page) -> Actor:
        for action in fill(page):
            page = read((yield action))
        yield submit(page)

    return act


def _typed(pattern: str, change: Callable[[str], str] = str) -> Callable[[Page], Actor]:
    return _form(lambda page: [type_into(page.find("input"), change(page.asked(pattern)[0]))])


def _boxes(page: Page) -> list[str]:
    wanted = page.asked(r"Select (.*?)(?: from the scroll list)? and click")[0].split(", ")
    found = []
    for label in page.all("label"):
        if label.text in wanted:
            found.append(click(next(e for e in page.elements if e.ref > label.ref and e.tag.startswith(("input_checkbox", "input_radio")))))
    return found


def _upper_or_lower(page: Page) -> list[str]:
    word, case = page.asked(r'Type "(.*)" in all (upper|lower) case')
    return [type_into(page.find("input"), word.upper() if case == "upper" else word.lower())]


def _dialog(page: Page) -> str:
    return click(next(element for element in page.elements if element.tag == "button" and element.text in ("", "Close")))


def _sum(page: Page) -> list[str]:
    left, sign, right = re.match(r"(-?\d+) ([-+x*]) (-?\d+)", page.find(id="math-problem").text).groups()  # type: ignore[union-attr]
    value = {"+": int(left) + int(right), "-": int(left) - int(right)}.get(sign, int(left) * int(right))
    return [type_into(page.find("input"), str(value))]


def _algebra(page: Page) -> list[str]:
    equation = re.match(r"(x|-?\d+) ([-+]) (x|-?\d+) = (-?\d+)", page.find(id="math-problem").text)
    assert equation, page
    left, sign, right, total = equation.groups()
    solutions = [
        x
        for x in range(-200, 201)
        if (x if left == "x" else int(left)) + (1 if sign == "+" else -1) * (x if right == "x" else int(right)) == int(total)
    ]
    return [type_into(page.find("input"), str(solutions[0]))]


def _table(page: Page) -> list[str]:
    wanted = page.asked(r"Enter the value of (.*) into the text field")[0]
    cells = list(page.all("td"))
    value = next(after for cell, after in pairwise(cells) if cell.text == wanted)
    return [type_into(page.find("input"), value.text)]


def _time(page: Page) -> list[str]:
    hour, minute, half = page.asked(r"Enter (\d+):(\d+) ([AP]M)")
    return [type_into(page.find("input_time"), f"{int(hour):02}{minute}{half}")]


def _widget(page: Page) -> str:
    wanted = page.asked(r'Click on a "(.*)" widget')[0]
    tag = {"checkbox": "input_checkbox", "radio": "input_radio", "text": "input"}.get(wanted, wanted)
    return click(next(element for element in page.elements if element.tag == tag))


def _in_order(page: Page) -> Actor:
    """The numbers are covered after the first click, so where they were has to be remembered."""
    for x, y in [page.find("text", str(number)).place for number in range(1, 6)]:
        yield f"click_at({x}, {y})"


def _tree(page: Page) -> Actor:
    wanted = page.asked(r'named "(.*)"')[0]
    opened: set[str] = set()
    while True:
        target = next((e for e in page.all("span") if e.text == wanted), None)
        folder = next((e for e in page.all("span", css="folder") if e.text not in opened), None)
        element = target or folder
        assert element
        opened.add(element.text)
        page = read((yield click(element)))


def _numbers(page: Page) -> list[str]:
    found = []
    for shown in page.all("div", css="display-number"):
        buttons = page.all("button", css="even" if int(shown.text) % 2 == 0 else "odd")
        found.append(click(min(buttons, key=lambda button: abs(button.ref - shown.ref))))
    return found


def _guess(page: Page) -> Actor:
    for number in range(10):
        page = read((yield type_into(page.find("input"), str(number))))
        page = read((yield submit(page)))


def _stocks(page: Page) -> Actor:
    limit = float(page.asked(r"less than \$(\d+\.\d+)")[0])
    while float(page.find(id="stock-price").text.strip("$")) > limit:
        page = read((yield "wait()"))
    yield click(page.find("button"))


def _terminal(page: Page) -> Actor:
    target = page.find("input", id="terminal-target")
    ending = re.search(r"file ending with the extension (\.\w[\w.]*)|has no file extension", page.told)
    assert ending, page.told
    page = read((yield type_into(target, "ls\n")))
    files = [name for e in page.all("span", css="output") for name in e.text.split()]
    wanted = [name for name in files if (name.endswith(ending[1]) if ending[1] else "." not in name)]
    yield type_into(target, f"rm {wanted[-1]}\n")


def _dragged(page: Page) -> Actor:
    yield f"drag({page.find(id='draggableSmall').ref}, {page.find(id='draggableLarge').ref})"
    yield submit(page)


def _pasted(page: Page) -> Actor:
    page = read((yield f"highlight({page.find('textarea').ref})"))
    page = read((yield "press('Ctrl+C')"))
    page = read((yield click(page.find("input"))))
    page = read((yield "press('Ctrl+V')"))
    yield submit(page)


def _trash(page: Page) -> Actor:
    wanted = page.asked(r"email by (.*) and click")[0]
    sender = page.find(text=wanted, css="email-sender")
    yield click(next(e for e in page.all(css="trash") if e.ref > sender.ref))


def _found(page: Page) -> Actor:
    word, place = page.asked(r'enter "(.*)" and press "Search", then find and click the (\d+)')
    page = read((yield type_into(page.find("input"), word)))
    page = read((yield submit(page)))
    seen = 0
    while True:
        titles = list(page.all("a", css="search-title"))
        if seen + len(titles) >= int(place):
            yield click(titles[int(place) - seen - 1])
        seen += len(titles)
        page = read((yield click(page.find("a", text=">"))))


def _sequence(page: Page) -> Actor:
    yield click(page.find(id="subbtn"))
    yield click(page.find(id="subbtn2"))


def _spun(page: Page) -> list[str]:
    wanted = int(page.asked(r"Select (-?\d+)")[0])
    up, down = (click(arrow) for arrow in page.all("a"))
    return [up if wanted > 0 else down] * abs(wanted)


ACTORS: dict[str, Callable[[Page], Actor]] = {
    "ascending-numbers": _in_order,
    "choose-list": _form(lambda page: [f"select({page.find('select').ref}, {page.asked(r'Select (.*) from the list')[0]!r})"]),
    "click-button": _one(lambda page: click(page.find("button", page.asked(r'"(.*)" button')[0]))),
    "click-button-sequence": _sequence,
    "click-checkboxes": _form(_boxes),
    "click-color": _one(lambda page: click(next(e for e in page.elements if f"colour={page.asked(r'the (.*) colored')[0]}" in e.rest))),
    "click-dialog": _one(_dialog),
    "click-dialog-2": _one(lambda page: click(page.find("button", {"x": "Close"}.get(word := page.asked(r'"(.*)"')[0], word)))),
    "click-link": _one(lambda page: click(page.find("span", page.asked(r'link "(.*)"')[0]))),
    "click-option": _form(_boxes),
    "click-scroll-list": _form(
        lambda page: [f"select({page.find('select').ref}, {name!r})" for name in page.asked(r"Select (.*) from the scroll")[0].split(", ")]
    ),
    "click-tab": _one(lambda page: click(page.find("a", page.asked(r"(Tab #\d)")[0]))),
    "click-test": _one(lambda page: click(page.find("button"))),
    "click-test-2": _one(lambda page: click(page.find("button", "ONE"))),
    "click-widget": _one(_widget),
    "copy-paste": _pasted,
    "drag-box": _dragged,
    "email-inbox-delete": _trash,
    "enter-date": _form(lambda page: [type_into(page.find("input_date"), page.asked(r"([\d/]+)")[0])]),
    "enter-password": _form(lambda page: [type_into(e, page.asked(r'password "(.*)" into')[0]) for e in page.all("input_password")]),
    "enter-text": _typed(r'Enter "(.*)" into'),
    "enter-text-2": _form(_upper_or_lower),
    "enter-time": _form(_time),
    "focus-text": _one(lambda page: click(page.find("input"))),
    "focus-text-2": _one(lambda page: click(list(page.all("input"))[int(page.asked(r"the (\d)")[0]) - 1])),
    "grid-coordinate": _one(lambda page: click(page.find("circle", id=page.asked(r"(\(.*\))")[0]))),
    "guess-number": _guess,
    "highlight-text": _form(lambda page: [f"highlight({page.find(id='randomText').ref})"]),
    "login-user": _form(
        lambda page: [
            type_into(page.find("input", id="username"), page.asked(r'username "(.*?)"')[0]),
            type_into(page.find("input_password"), page.asked(r'password "(.*?)"')[0]),
        ]
    ),
    "navigate-tree": _tree,
    "odd-or-even": _form(_numbers),
    "read-table": _form(_table),
    "scroll-text-2": _form(lambda page: [f"scroll({page.find('textarea').ref}, {100000 if 'bottom' in page.told else -100000})"]),
    "search-engine": _found,
    "simple-algebra": _form(_algebra),
    "simple-arithmetic": _form(_sum),
    "stock-market": _stocks,
    "terminal": _terminal,
    "unicode-test": _one(lambda page: click(page.find("button", page.asked(r'"(.*)" button')[0]))),
    "use-spinner": _form(_spun),
}
