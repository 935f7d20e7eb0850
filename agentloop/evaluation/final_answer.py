r"""The final answer in what a model wrote, as text: `\boxed{...}`, `#### 18`, "the answer is ...", or what comes last.

Tried in this order; the first that is there decides, and of several the last:

1. what stands in a box. Boxes joined by nothing but "and", "or" and commas are one answer with several parts;
2. what follows `####` (the mark of GSM8K's solutions);
3. what follows "answer is", "answer:" or "answer =", to the end of the sentence;
4. the whole of a line that is nothing but mathematics, or a few words;
5. the formula or the number that comes last; numbers joined by "or" or "and" are one answer with several parts, so that naming two is no
   way to be right.

A thought that never ended, a box that never closed and a refusal hold no answer. Boxes and marks are found in linear time, and the rest
is looked for at the end of the response only, so that no response takes long.
"""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of an answer; nobody asks for longer ones, and what reads them is not linear."""

TAIL = 5000
"""Characters at the end of a response in which an answer without box or `####` is looked for."""

MOST_PARTS = 20
"""Boxes or numbers that one answer may have."""

_THOUGHT_ENDS = "</think>"
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_JOINED = re.compile(
    r"[\s$,;.&]*(?:\\(?:quad|qquad|text\{\s*(?:and|or)\s*\}|[()\[\],; ])|\band\b|\bor\b|[a-zA-Z]\s*=|[\s$,;&*])*", re.IGNORECASE
)
_HASHES = re.compile(r"^[ \t>*]*####[ \t]*(\S[^\n]*)", re.MULTILINE)
_MARKED = re.compile(
    r"\banswer\b(?:[^\n.:=$\\]{0,60}?)(?:\bis\b|\bare\b|\bequals\b|=|:)(?:\s*\*\*)?\s*(?:that\b)?[:\s]*([^\n]+)"
    r"|\banswer[*: \t]*\n+\s*([^\n]+)",
    re.IGNORECASE,
)
_AFTERTHOUGHT = re.compile(
    r"(?:,?\s+(?:because|since|as\s+(?=[a-z]+ed\b)|so that|where|which|i hope|given that|obtained|found)\b"
    r"|(?<=[^\s.])\.\s+(?=[A-Z(])|[!?](?:\s|$)|\s+\(since\b|\s+####).*",
    re.IGNORECASE | re.DOTALL,
)
_ADVERBS = re.compile(
    r"^\s*(?:(?:therefore|thus|then|hence|simply|just|exactly|indeed|clearly|approximately|about|around|equal to|given by)\b[\s,:]*)+",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"^(?:negative|minus)\s+(?=[$\d\\(])", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[^\s.])\.\s+(?=[A-Z])")
_REFUSAL = re.compile(
    r"\b(?:can(?:no|')t|can not|cannot|unable to|not able to|won't|will not|don't know|do not know"
    r"|impossible to (?:say|tell|determine|know)|not enough information|insufficient information|need more information|no idea)\b",
    re.IGNORECASE,
)

_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]+)\$\$"
    r"|\\\[(?P<bracket>(?:[^\\]|\\(?!\]))+)\\\]"
    r"|\\\((?P<parenthesis>(?:[^\\\n]|\\(?!\)))+)\\\)"
    r"|(?<![\\$])\$(?P<inline>(?=[^\s$])(?:\\\$|[^$\n])*?(?<=[^\s\\]))\$(?![\d$])"
)
"""Formulas between delimiters. As pandoc has it, a single dollar opens before and closes behind something, and no digit follows it, so that
"$5 and $6" are two prices."""

_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-−+])?(?:(?<![\w.])[$€£¥]\s?)?(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?:\.\d+)?)?"
    r"(?:\s?(?:\\?%|percent\b))?",
    re.IGNORECASE,
)
_BETWEEN_NUMBERS = re.compile(r"[\s*]*(?:,|;|\bor\b|,\s*or\b|\band\b|,\s*and\b)?[\s*]*", re.IGNORECASE)
_LONE_MINUS = re.compile(r"(?:^|[a-z=:,(])\s*[-−]\s$", re.IGNORECASE)
_NAMES = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi", "inf", "infinity", "mod", "max", "min", "gcd", "lcm"]
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")


def final_answer(response: str) -> str | None:
    """The final answer of a response as it was written, without its box or dollars; None where there is none."""
    text = _without_thought(response)
    if text is None:
        return None
    for find in (_boxed, _behind_hashes, _marked, _alone, _last):
        found = find(text if find in (_boxed, _behind_hashes) else text[-TAIL:])
        if found is not None:
            answer = bare(found)
            return answer if answer and len(answer) <= LONGEST else None
    return None


def bare(text: str) -> str:
    """A text without the dollars, stars, brackets of LaTeX and full stops around it."""
    before = None
    while before != text:
        before = text
        text = text.strip().strip("*`_").strip()
        if len(text) > 1 and text[-1] in ".,;:":
            text = text[:-1].removesuffix("\\")
        if found := _FORMULA.fullmatch(text):
            text = _inside(found)
    return text


def _without_thought(response: str) -> str | None:
    _, ended, rest = response.rpartition(_THOUGHT_ENDS)
    if ended:
        return rest
    return None if "<think>" in response else response


def _boxed(text: str) -> str | None:
    """The content of the last box, and of those before it that belong to the same answer; "" where the last one never closes."""
    spans: list[tuple[int, int, str]] = []
    for start in _BOX.finditer(text):
        if spans and start.start() < spans[-1][1]:
            continue  # a box in a box
        content, end = _braced(text, start.end())
        if content is None:
            return "" if not spans else _join(text, spans)
        spans.append((start.start(), end, content))
    return _join(text, spans) if spans else None


def _join(text: str, spans: list[tuple[int, int, str]]) -> str:
    parts = [spans[-1][2]]
    for before, after in zip(reversed(spans[:-1]), reversed(spans), strict=False):
        between = text[before[1] : after[0]]
        if len(parts) == MOST_PARTS or len(between) > 40 or not _JOINED.fullmatch(between) or before[2].strip() in parts:
            break
        parts.insert(0, before[2].strip())
    return ", ".join(parts)


def _braced(text: str, start: int) -> tuple[str | None, int]:
    """What stands in the braces that open at `start`, and where they end; a single word or number where there are none."""
    if not text.startswith("{", start):
        word = re.compile(r"[^\s$.,]+").match(text, start)
        return (word[0], word.end()) if word else (None, start)
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position], position + 1
        position += 1
    return None, start


def _behind_hashes(text: str) -> str | None:
    found = _HASHES.findall(text)
    return found[-1] if found else None


def _marked(text: str) -> str | None:
    marks = list(_MARKED.finditer(text))
    if not marks:
        return None
    last = marks[-1]
    said = _NEGATIVE.sub("-", _ADVERBS.sub("", last[1] or last[2]))
    if formula := _FORMULA.match(said.lstrip(" *")):
        return _formulas(said.lstrip(" *"), formula)
    if formula := next(_FORMULA.finditer(said), None):
        before = said[: formula.start()]
        if _WORD.search(before) and not re.search(r"\d", before):
            return _formulas(said, formula)
    return _AFTERTHOUGHT.sub("", said)


def _formulas(text: str, first: re.Match[str]) -> str:
    """The content of a formula and of those that "and" or a comma joins to it; a unit or a percent sign behind it stays."""
    parts, end = [_inside(first)], first.end()
    while (following := _FORMULA.search(text, end)) and _JOINED.fullmatch(text[end : following.start()]):
        parts.append(_inside(following))
        end = following.end()
    if len(parts) == 1 and (unit := re.match(r"\s?(?:\\?%|percent\b|[^\W\d_]+(?=[\s.,]*$))", text[end:])):
        return parts[0] + " " + unit[0].strip()
    return ", ".join(parts)


def _inside(formula: re.Match[str]) -> str:
    return next(content for content in formula.groups() if content is not None)


def _alone(text: str) -> str | None:
    """The whole text, if it is a line of mathematics or of a few words and no sentence."""
    line = bare(text)
    if "\n" in line or len(line) > 200 or not line:
        return None
    words = [word for word in _WORD.findall(_COMMAND.sub(" ", line)) if word.lower() not in _NAMES]
    if not words and not _JUNK.fullmatch(line):
        return line
    return line if len(words) <= 3 and len(line) <= 40 and not re.search(r"\d", line) and not _REFUSAL.search(line) else None


_JUNK = re.compile(r"[\W_]*")


def _last(text: str) -> str | None:
    """The formula or the number that ends last in the text."""
    formulas, numbers = list(_FORMULA.finditer(text)), list(_NUMBER.finditer(text))
    if not formulas and not numbers:
        return None
    formula = formulas[-1] if formulas else None
    number = numbers[-1] if numbers else None
    end = max(found.end() for found in (formula, number) if found is not None)
    sentence_start = max((found.end() for found in _SENTENCE_END.finditer(text[:end])), default=0)
    if _REFUSAL.search(text[max(sentence_start, text.rfind("\n", 0, end)) :][:2000]):
        return None
    if formula is not None and (number is None or number.start() < formula.end()):
        return _inside(formula)
    parts = [numbers[-1]]
    for before in reversed(numbers[:-1]):
        between = text[before.end() : parts[0].start()]
        if len(parts) == MOST_PARTS or not between.strip(" *") or not _BETWEEN_NUMBERS.fullmatch(between):
            break
        parts.insert(0, before)
    minus = "-" if _LONE_MINUS.search(text[: parts[0].start()][-9:]) else ""
    return minus + ", ".join(part[0] for part in parts)
