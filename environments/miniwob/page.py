"""The scripts that run in a page of MiniWoB++, and the text that an agent reads of it.

**The page's clock stands still while nobody acts.** `CLOCK` runs before the page's own scripts and replaces timers, animation frames
and the date by a clock that only `LOOK` moves, a second after each action. So an episode does not depend on how long a model thinks or
how busy the machine is, no wait is ever a real one, and the same actions on the same seed give the same page, moving stock prices
included. The date stands at the first of January 2016, the year that the tasks speak of.

References are those of the package's own `core.getDOMInfo`: numbered from 1 in every episode, and kept by an element while it lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TICK = 1000
"""Milliseconds that pass for the page with each action."""
EPISODE_TIME = 10**9
"""Milliseconds after which a page would end its episode: never. The default of 10 s is for people, and decays their reward."""
LONGEST = 6000
"""Characters of a page that an agent is shown."""
_LONGEST_TEXT = 300

CLOCK = """
(() => {
  const RealDate = Date;
  const start = RealDate.UTC(2016, 0, 1, 12);
  let now = 0, next = 1, state = 1;
  const timers = new Map();
  const add = (call, delay, every) => {
    const wait = Math.max(Number(delay) || 0, every ? 1 : 0);
    timers.set(next, {call, at: now + wait, every: every ? wait : 0, id: next});
    return next++;
  };
  const body = (call, args) => typeof call === "function" ? () => call.apply(window, args) : () => (0, eval)(String(call));
  window.setTimeout = (call, delay, ...args) => add(body(call, args), delay, false);
  window.setInterval = (call, delay, ...args) => add(body(call, args), delay, true);
  window.requestAnimationFrame = call => add(() => call(now), 16, false);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = id => { timers.delete(id); };
  performance.now = () => now;
  window.Date = new Proxy(RealDate, {
    construct: (target, args) => args.length ? new target(...args) : new target(start + now),
    apply: () => new RealDate(start + now).toString(),
    get: (target, name) => name === "now" ? () => start + now : Reflect.get(target, name),
  });
  Math.random = () => { state = (Math.imul(state, 48271) >>> 0) % 2147483647; return state / 2147483647; };
  Object.defineProperty(window, "__advance", {value: milliseconds => {
    const end = now + milliseconds;
    for (let left = 5000; left > 0; left--) {
      let due = null;
      for (const timer of timers.values()) if (timer.at <= end && (!due || timer.at < due.at)) due = timer;
      if (!due) break;
      now = Math.max(now, due.at);
      if (due.every) due.at = now + due.every; else timers.delete(due.id);
      try { due.call(); } catch (error) { console.log(error); }
    }
    now = end;
  }});
})();
"""

START = """
const [seed, mode, time] = arguments;
const still = document.createElement("style");
still.textContent = "* { transition: none !important; animation: none !important; caret-color: transparent !important; } " +
  "#area, #sortable { display: flow-root; }";  // what holds only floating elements has no height, and the package would not list it
document.head.append(still);
core.EPISODE_MAX_TIME = time;
Math.seedrandom(seed);
core.setDataMode(mode);
core.startEpisodeReal();
"""
"""Begin an episode as the package does; arguments: seed, data mode ("train" or "test"), `EPISODE_TIME`."""

LOOK = """
__advance(arguments[0]);
const pictures = window.__pictures || (window.__pictures = new Map());
for (const element of document.body.querySelectorAll("*")) {
  const drawn = /^url\\("(.*)"\\)/.exec(getComputedStyle(element).content);
  if (drawn && !pictures.has(drawn[1])) { const image = new Image(); image.src = drawn[1]; pictures.set(drawn[1], image); }
}
if (arguments[1] && [...document.images, ...pictures.values()].some(image => !image.complete)) return null;
const told = core.getUtterance();
const extra = (ref, element) => {
  const found = {}, style = getComputedStyle(element), svg = element instanceof SVGElement;
  if (element instanceof HTMLSelectElement) {
    found.options = [...element.options].map(option => option.text.trim());
    found.selected = [...element.selectedOptions].map(option => option.text.trim());
  }
  if (element instanceof HTMLOptionElement && element.selected) found.marks = ["selected"];
  if (element.disabled) found.marks = [...(found.marks || []), "disabled"];
  if (element.placeholder) found.placeholder = element.placeholder;
  if (element.title) found.title = element.title;
  if (element.tagName === "IMG") found.image = (element.getAttribute("src") || "").split("/").pop().slice(0, 40);
  const moves = element.matches(".ui-draggable, .ui-sortable-handle, .ui-slider-handle, .ui-resizable-handle, .ui-slider, canvas");
  if (svg || moves) {
    const box = element.getBoundingClientRect();
    found.place = [box.x + box.width / 2, box.y + box.height / 2];
    found.size = [box.width, box.height];
  }
  if (svg && style.fill !== "none" && element.tagName !== "svg") found.colour = element.getAttribute("fill") || style.fill;
  else if (!svg && style.backgroundColor !== "rgba(0, 0, 0, 0)") found.colour = element.style.backgroundColor || style.backgroundColor;
  return found;
};
const walk = node => {
  const element = core.previousDOMInfo[node.ref];
  const classes = typeof node.classes === "string" ? node.classes : (node.classes && node.classes.baseVal) || "";
  return {tag: node.tag.toLowerCase(), ref: node.ref, text: node.text || "", id: node.id || "", classes, value: node.value,
    focused: !!node.focused, children: node.children.map(walk), ...(element ? extra(node.ref, element) : {})};
};
return {told: typeof told === "string" ? told : told.utterance, done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL,
  page: WOB_DONE_GLOBAL ? null : walk(core.getDOMInfo())};
"""
"""Let time pass (milliseconds, the first argument), then say what there is: `told`, `done`, `reward` and the tree `page` of visible
elements; or null if the second argument is true and a picture, which has no size before, is still being read from its file."""

FIND = """
const element = core.previousDOMInfo[arguments[0]];
if (!element || !element.isConnected) return null;
element.scrollIntoView({block: "nearest", inline: "nearest"});
const box = element.getBoundingClientRect();
const x = Math.min(Math.max(box.x + box.width / 2, 0), innerWidth - 1), y = Math.min(Math.max(box.y + box.height / 2, 0), innerHeight - 1);
const hit = document.elementFromPoint(x, y);
return {x, y, reachable: !!hit && (element.contains(hit) || hit.contains(element)), tag: element.tagName.toLowerCase(),
  type: element.type || "", writable: element.isContentEditable || element instanceof HTMLTextAreaElement ||
    (element instanceof HTMLInputElement && !["checkbox", "radio", "button", "submit"].includes(element.type))};
"""
"""Where the element of a reference is, or null: its middle, whether a click there reaches it, and whether it takes text."""

CLICK = "return core.elementClick(arguments[0]);"
"""Click an element that the mouse cannot reach, as the package does."""

FOCUS = """
const element = core.previousDOMInfo[arguments[0]];
if (document.activeElement !== element) element.focus();
if (element.select && !["date", "time", "month", "color", "range"].includes(element.type)) element.select();
"""
"""Focus what is typed into, and select the text that it holds so that it is replaced."""

SELECT = """
const [ref, wanted] = arguments, element = core.previousDOMInfo[ref];
if (!(element instanceof HTMLSelectElement)) return ["no list"];
const plain = text => text.trim().toLowerCase();
const option = [...element.options].find(option => option.text.trim() === wanted.trim())
  || [...element.options].find(option => plain(option.text) === plain(wanted));
if (!option) return ["no option", [...element.options].map(option => option.text.trim())];
element.focus();
option.selected = element.multiple ? !option.selected : true;
for (const name of ["input", "change"]) element.dispatchEvent(new Event(name, {bubbles: true}));
return ["ok"];
"""
"""Choose an option by its text; in a list of several choices, turn it on or off."""

SCROLL = """
let element = core.previousDOMInfo[arguments[0]];
if (!element) return null;
while (element.parentElement && element.scrollHeight <= element.clientHeight + 1) element = element.parentElement;
element.scrollTop += arguments[1];
element.dispatchEvent(new Event("scroll"));
return [Math.round(element.scrollTop), Math.max(0, element.scrollHeight - element.clientHeight)];
"""
"""Scroll the nearest thing that scrolls; where it stands now, and how far it goes."""

HIGHLIGHT = """
const element = core.previousDOMInfo[arguments[0]];
if (!element || !element.isConnected) return false;
if (element.select) { element.focus(); element.select(); } else getSelection().selectAllChildren(element);
element.dispatchEvent(new MouseEvent("mouseup", {bubbles: true}));
return true;
"""
"""Mark the text of an element, as dragging the mouse over it does."""

_ALWAYS_SHOWN = {"a", "button", "fieldset", "form", "label", "li", "ol", "option", "select", "svg", "table", "textarea", "tr", "ul"}
_PLAIN = {"input_text": "input", "tspan": "text"}


def render(told: str, page: dict[str, Any]) -> str:
    """A page as the agent reads it: what is asked, then one element a line, indented by the element it lies in.

    `[4] button #subbtn "ONE"` is the element with reference 4, its tag, its id (or classes) and its text. Elements that say nothing (no
    text, no id or class, one child) are left out. Shapes and what can be dragged have their middle in pixels, `@80,120`, and their size.
    """
    lines = list(_lines(page, 0))
    text = "\n".join(lines)
    if len(text) > LONGEST:
        kept = text[:LONGEST].rsplit("\n", 1)[0]
        text = f"{kept}\n({len(lines) - kept.count(chr(10)) - 1} more elements are not shown)"
    return f"Task: {told}\n\n{text}"


def _lines(node: dict[str, Any], depth: int) -> Iterator[str]:
    children = node["children"]
    loose = [child for child in children if child["tag"] == "t"]
    if len(loose) == 1 and not node["text"] and node["tag"] != "body":  # a caption beside an icon or a box is the text of what holds both
        children = [child for child in children if child["tag"] != "t"]
        node = {**node, "text": loose[0]["text"]}
    shown = _is_shown(node)
    if shown:
        yield " " * depth + _line(node)
    for child in children:
        yield from _lines(child, depth + shown)


def _is_shown(node: dict[str, Any]) -> bool:
    if node["tag"] == "body" or node["id"] in ("wrap", "area") or "ui-helper-hidden-accessible" in node["classes"]:
        return False
    if not node["children"] or node["tag"] in _ALWAYS_SHOWN or node["text"] or "place" in node or node.get("value") is not None:
        return True
    return bool(node["id"] or _classes(node)) and len(node["children"]) > 1


def _classes(node: dict[str, Any]) -> list[str]:
    """At most two classes; those of jQuery UI, which are many, only where nothing else is known of an element."""
    classes = node["classes"].split()
    own = [name for name in classes if not name.startswith("ui-")]
    silent = not node["children"] and not node["text"] and not node["id"]
    return (own or (classes if silent else []))[:2]


def _line(node: dict[str, Any]) -> str:
    if node["tag"] == "t":
        return _quoted(node["text"])
    parts = [f"[{node['ref']}]", _PLAIN.get(node["tag"], node["tag"])]
    if node["id"]:
        parts.append(f"#{node['id']}")
    if classes := _classes(node):
        parts.append("." + ".".join(classes))
    if node["text"] and "options" not in node and node["text"] != node.get("value"):
        parts.append(_quoted(node["text"]))
    parts += _attributes(node)
    return " ".join(parts)


def _quoted(text: str) -> str:
    """A text in quotes, cut short where it is long."""
    return f'"{text}"' if len(text) <= _LONGEST_TEXT else f'"{text[:_LONGEST_TEXT]}..."'


def _attributes(node: dict[str, Any]) -> Iterator[str]:
    value = node.get("value")
    if isinstance(value, bool):
        if value:
            yield "checked"
    elif value not in (None, ""):
        yield f"value={_quoted(str(value))}"
    if "options" in node and not node["children"]:  # a list that is open shows its options below
        yield f"options={node['options']} selected={node['selected']}"
    for name in ("placeholder", "title", "image"):
        if node.get(name) and node[name] != node["text"]:
            yield f'{name}="{node[name]}"'
    bare = not node["text"] and not node["children"]
    if node.get("colour") and ("place" in node or (bare and value is None and "options" not in node)):
        yield f"colour={node['colour'].replace(' ', '')}"
    if "place" in node:
        yield "@{:.0f},{:.0f}".format(*node["place"]) + " size {:.0f}x{:.0f}".format(*node["size"])
    yield from node.get("marks", ())
    if node["focused"] and node["tag"] != "body":
        yield "focused"
