r"""What two answers can be seen to be without algebra: the same text, the same number, the same choice or word, or plainly different.

`decide` answers True or False where that is enough and None where algebra is needed. Numbers are compared exactly, as fractions:

- two decimals that end must be equal; a decimal stands for a fraction that does not end if it has six places and is it, rounded;
- 15 % is 0.15, and 15 too where the other side has no percent sign: what was asked for in percent is often given without;
- a unit may be left out, but another unit of the same kind is another answer (5 km is not 5 m); words that are no unit are ignored.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

PLACES = 6
"""Places to which a decimal must agree with a fraction that does not end (as math-verify has it)."""

_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "√": r"\sqrt", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "±": r"\pm ", "∅": r"\emptyset ", "θ": r"\theta ",
}  # fmt: skip
_NO_SPACE = re.compile(r"(?<=\d),\\!\s*(?=\d)")
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|~|\\(?:quad|qquad)\b|[\u00a0\u202f\u2009]")
_SIZES = re.compile(r"\\(?:left|right|displaystyle|textstyle|[bB]igg?[lr]?)(?![a-zA-Z])")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname|hbox)\s*\{([^{}]*)\}")
_PLAIN_NAMES = re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|infinity|inf|infty|cdot|times|frac|sin|cos|tan|log|ln)(?![a-zA-Z])")
_ROOT_OF = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_ROOT_BARE = re.compile(r"\\sqrt\s*(\d+)")

_INTEGER = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+"
_DECIMAL = rf"(?:(?:{_INTEGER})(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>\\?\$|€|£|¥)?\s*(?P<sign2>[-+]?)\s*"
    rf"(?:(?P<whole>\d+)?\s*\\frac\s*(?:\{{(?P<top>-?{_DECIMAL})\}}|(?P<top1>\d))\s*(?:\{{(?P<bottom>-?{_DECIMAL})\}}|(?P<bottom1>\d))"
    rf"|(?P<mixed>\d+)\s+(?P<mixed_top>\d+)\s?/\s?(?P<mixed_bottom>\d+)"
    rf"|(?P<value>{_DECIMAL})(?:\s?/\s?(?P<under>{_DECIMAL}))?(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{(?P<power>[-+]?\d{{1,3}})\}}|(?P<power1>[-+]?\d{{1,3}}))"
    rf"|[eE](?P<exponent>[-+]?\d{{1,3}}))?)"
    r"(?P<behind>.*)",
    re.DOTALL,
)
_PERCENT = re.compile(r"\s*(?:\\?%|percent(?:age)?(?: points)?|per cent|pct)\.?\s*", re.IGNORECASE)
_DEGREES = re.compile(r"\s*\^?\s*\{?\s*\\circ\s*\}?\s*([CF]?)\s*")
_UNIT = re.compile(r"[-\s]*(?P<words>[^\W\d_][^\W\d_/.'’\s-]*(?:[\s/.'’-]+[^\W\d_]+)*)?\s*(?:\^\s*\{?(?P<power>[23])\}?)?\s*\.?")
_JOINS = re.compile(r"\b(?:and|or|to|mod|plus|minus|times|over)\b")
_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")
_CHOICE = re.compile(r"\(?([A-J])\)?(?:[.:)\s].*)?", re.DOTALL)
_ARTICLES = re.compile(r"^(?:the|an?)\s+")
_UNEQUAL = re.compile(r"\\neq?(?![a-zA-Z])|!=")
_RELATION = re.compile(r"(?<![\\<>!:])=|\\in\b")

_SAME_UNIT = {
    "length": ["m meter metre", "km kilometer kilometre", "cm centimeter centimetre", "mm millimeter millimetre", "in inch inche",
               "ft foot feet",
               "yd yard", "mi mile"],
    "mass": ["g gram", "kg kilogram kilo", "mg milligram", "lb pound", "oz ounce", "t ton tonne"],
    "time": ["s sec second", "min minute", "h hr hour", "d day", "wk week", "month", "yr year"],
    "money": ["$ dollar usd buck", "¢ cent", "€ euro eur", "£ gbp"],
    "volume": ["l liter litre", "ml milliliter millilitre", "gal gallon", "qt quart", "pt pint"],
    "angle": ["° degree deg", "rad radian"],
}  # fmt: skip
UNITS: dict[str, tuple[str, str]] = {
    word: (kind, row.split()[0]) for kind, rows in _SAME_UNIT.items() for row in rows for word in row.split()
}
"""Unit by word, in the singular: its kind and its one name."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as an answer gives it.

    Attributes:
        value: The number, before a percent sign is applied.
        percent: Whether a percent sign follows.
        unit: Kind, name and power of a unit that is known; None for none or another.
        places: Places behind the decimal point; None where it is no decimal.
    """

    value: Fraction
    percent: bool = False
    unit: tuple[str, str, str] | None = None
    places: int | None = None


def tidy(answer: str) -> str:
    r"""An answer with one spelling for what has several: spaces, sizes of brackets, `\dfrac`, symbols of Unicode, bare names."""
    for symbol, command in _SYMBOLS.items():
        answer = answer.replace(symbol, command)
    answer = unicodedata.normalize("NFKC", answer)
    answer = _SPACES.sub(" ", _NO_SPACE.sub(",", answer.replace("{,}", ",")).replace("\\!", ""))
    answer = _FRACTION.sub(r"\\frac", _SIZES.sub("", answer))
    answer = _PLAIN_NAMES.sub(lambda name: "\\" + {"inf": "infty", "infinity": "infty"}.get(name[1], name[1]), answer)
    answer = _ROOT_BARE.sub(r"\\sqrt{\1}", _ROOT_OF.sub(r"\\sqrt{\1}", answer))
    answer = (
        re.sub(r"(?<=\d),\s+(?=\d{3}(?:,\s+\d{3})+(?!\d))", ",", answer)
        if re.fullmatch(r"\d{1,3}(,\s\d{3}){2,}", answer.strip())
        else answer
    )
    return " ".join(answer.replace("**", "").split()).rstrip(".").strip()


def decide(answer: str, reference: str) -> bool | None:
    """Whether two tidied answers are the same; None if it takes algebra to tell."""
    if not answer or not reference:
        return False
    if _squeezed(answer) == _squeezed(reference):
        return True
    if _UNEQUAL.search(answer) and not _UNEQUAL.search(reference):
        return False
    known, given = quantity(reference), quantity(answer)
    if known is not None and given is None and (last := _last_side(answer)) is not None:
        given = quantity(last)
    if known is not None and given is not None:
        return same_quantity(given, known)
    bases = _BASE.fullmatch(_squeezed(reference)), _BASE.fullmatch(_squeezed(answer))
    if bases[0] and bases[1]:
        return bases[0].groups() == bases[1].groups()
    if choice := _CHOICE.fullmatch(unwrapped(reference)):
        said = _CHOICE.fullmatch(unwrapped(answer))
        return said is not None and said[1] == choice[1]
    if is_words(reference):
        return _words(answer) == _words(reference)
    return False if is_words(answer) and not _squeezed(reference).startswith("\\") else None


def quantity(answer: str) -> Quantity | None:
    """The number that an answer is, with its unit; None if it is none, or more than that."""
    plain = unwrapped(answer)
    found = _NUMBER.fullmatch(re.sub(r"^\(([^(),]*)\)$", r"\1", plain))
    if found is None:
        return None
    try:
        value, places = _value(found)
    except (ZeroDivisionError, ValueError):
        return None
    behind = found["behind"]
    if _PERCENT.fullmatch(behind):
        return Quantity(value, True, None, places)
    currency = {"\\$": "$", None: None}.get(found["currency"], found["currency"])
    if degrees := _DEGREES.fullmatch(behind):
        return Quantity(value, False, ("angle" if not degrees[1] else "temperature", "°" + degrees[1], ""), places)
    unit = _UNIT.fullmatch(behind)
    if unit is None or (unit["power"] and not unit["words"]):
        return None
    words = unit["words"] or ""
    if _JOINS.search(words.lower()) or (len(words) == 1 and words not in UNITS):  # 5x is a term and no 5 x
        return None
    return Quantity(value, False, _known_unit(words, unit["power"], currency), places)


def same_quantity(given: Quantity, known: Quantity) -> bool:
    """Whether a number is the one that was asked for."""
    if given.unit and known.unit and given.unit != known.unit:
        return False
    values = {given.value}
    if given.percent != known.percent:
        values.add(given.value / 100 if given.percent else given.value * 100)
    return any(_same_value(value, given, known) for value in values)


def unwrapped(answer: str) -> str:
    r"""An answer with the words that stand in `\text{...}` and its like as plain words."""
    before = None
    while before != answer:
        before, answer = answer, _TEXT.sub(r" \1 ", answer)
    return " ".join(answer.split())


def is_words(answer: str) -> bool:
    """Whether an answer is words and no mathematics."""
    plain = unwrapped(answer)
    return bool(re.fullmatch(r"[^\W\d_]+(?:[\s'’,.-]+[^\W\d_]+)*", plain)) and bool(re.search(r"[^\W\d_]{3}", plain))


def _value(found: re.Match[str]) -> tuple[Fraction, int | None]:
    places = None
    if found["mixed"]:
        value = int(found["mixed"]) + Fraction(int(found["mixed_top"]), int(found["mixed_bottom"]))
    elif top := found["top"] or found["top1"]:
        value = _exact(top) / _exact(found["bottom"] or found["bottom1"])
        value = value + int(found["whole"]) if found["whole"] else value
    else:
        value = _exact(found["value"])
        if found["under"]:
            value /= _exact(found["under"])
        else:
            places = len(found["value"].partition(".")[2]) or None
        if power := found["power"] or found["power1"] or found["exponent"]:
            value *= Fraction(10) ** int(power)
            places = None
    negative = (found["sign"] == "-") != (found["sign2"] == "-")
    return (-value if negative else value), places


def _exact(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits).rstrip(".") or "0")


def _same_value(value: Fraction, given: Quantity, known: Quantity) -> bool:
    if value == known.value:
        return True
    for places, decimal, other in ((given.places, value, known.value), (known.places, known.value, value)):
        if places is not None and places >= PLACES and not _ends(other) and abs(decimal - other) * 2 <= Fraction(1, 10**places):
            return True
    return False


def _ends(value: Fraction) -> bool:
    """Whether the decimal expansion of a fraction ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _known_unit(words: str, power: str | None, currency: str | None) -> tuple[str, str, str] | None:
    word = words.strip().rstrip(".")
    if currency and not word:
        return ("money", currency, "")
    word = word if word in UNITS else word.lower()
    squared = re.match(r"(square|cubic|sq)\.?\s+(.*)", word)
    if squared:
        word, power = squared[2], "3" if squared[1] == "cubic" else "2"
    if word.endswith((" squared", " cubed")):
        word, power = word.rpartition(" ")[0], "3" if word.endswith("cubed") else "2"
    singular = word if word in UNITS else word.removesuffix("s")
    return (*UNITS[singular], power or "") if singular in UNITS else None


def _last_side(answer: str) -> str | None:
    """What stands behind the last equals sign (`12 + 6 = 18`), unless several things are given."""
    if re.search(r"[,;]\s|\\(?:le|ge|ne|lt|gt)\b|[<>]|\b(?:and|or)\b", answer):
        return None
    sides = [side.strip() for side in _RELATION.split(answer)]
    if len(sides) == 2 and re.fullmatch(r"[a-zA-Z]", sides[1]):
        return sides[0]
    return sides[-1] if len(sides) > 1 else None


def _words(answer: str) -> str:
    plain = re.sub(r"[^\w\s]+", " ", unwrapped(answer).casefold())
    return _ARTICLES.sub("", " ".join(plain.split()))


def _squeezed(answer: str) -> str:
    return re.sub(r"\s+|\\\$|\$|^\\ ", "", answer)
