"""Keys as an agent names them, and the characters that WebDriver takes for them (https://www.w3.org/TR/webdriver2/#keyboard-actions)."""

from __future__ import annotations

from agentloop.errors import nearest

MOST_CHARACTERS = 500

MODIFIERS = {"shift": "\ue008", "ctrl": "\ue009", "control": "\ue009", "alt": "\ue00a", "meta": "\ue03d", "cmd": "\ue03d"}
SPECIAL = {
    "backspace": "\ue003",
    "tab": "\ue004",
    "enter": "\ue007",
    "return": "\ue006",
    "escape": "\ue00c",
    "esc": "\ue00c",
    "space": " ",
    "pageup": "\ue00e",
    "pagedown": "\ue00f",
    "end": "\ue010",
    "home": "\ue011",
    "left": "\ue012",
    "up": "\ue013",
    "right": "\ue014",
    "down": "\ue015",
    "insert": "\ue016",
    "delete": "\ue017",
} | {f"f{number}": chr(0xE030 + number) for number in range(1, 13)}


def strokes(text: str) -> list[str]:
    """The keys that type a text; a new line is Enter, and no text deletes. Raises ValueError if it is too long or cannot be typed."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the text has {len(text)} characters, {MOST_CHARACTERS} at most can be typed at once")
    if any(not (character.isprintable() or character in "\n\t") or 0xE000 <= ord(character) <= 0xF8FF for character in text):
        raise ValueError("the text holds characters that no key types")
    keys = {"\n": SPECIAL["enter"], "\t": SPECIAL["tab"]}
    return [keys.get(character, character) for character in text] or [SPECIAL["delete"]]


def combination(key: str) -> tuple[list[str], list[str]]:
    """(keys, modifiers) of a name such as "Enter", "a" or "Ctrl+Shift+Left". Raises ValueError for a key that does not exist."""
    *held, last = [key] if len(key) == 1 else key.split("+")
    names = {name: name for name in (*MODIFIERS, *SPECIAL)}
    modifiers = []
    for name in held:
        if name.strip().lower() not in MODIFIERS:
            raise ValueError(f"{name!r:.40} is no modifier; those are Shift, Ctrl, Alt and Meta")
        modifiers.append(MODIFIERS[name.strip().lower()])
    last = last if len(last) == 1 else last.strip()
    name = last.lower().removeprefix("arrow")
    if name in SPECIAL:
        return [SPECIAL[name]], modifiers
    if len(last) == 1 and last.isprintable() and not 0xE000 <= ord(last) <= 0xF8FF:
        return [last], modifiers
    near = nearest(name, names)
    raise ValueError(f"there is no key {key!r:.40}" + (f", did you mean {near!r}?" if near else "; for text use type"))
