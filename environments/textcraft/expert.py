"""A recursive expert that crafts every goal: what has to be fetched, all at once, then the crafting from the bottom up."""

from __future__ import annotations

from collections import Counter

from .recipes import Recipe, RecipeBook, words


def solve(book: RecipeBook, goal: str) -> list[str]:
    """Actions that craft `goal` from an empty inventory. Raises ValueError if it cannot be made."""
    plan = _Plan(book)
    plan.craft(_easiest(book, goal))
    fetched = [f"get {count} {words(item)}" for item, count in plan.fetched.items()]
    return fetched + plan.crafts


class _Plan:
    """Actions in the making: crafts in order, and what must have been fetched before them."""

    def __init__(self, book: RecipeBook) -> None:
        self.book = book
        self.fetched: Counter[str] = Counter()
        self.crafts: list[str] = []
        self._have: Counter[str] = Counter()

    def craft(self, recipe: Recipe) -> None:
        """Carry out a recipe once, after making or fetching what it needs."""
        chosen = [(self._stand_in(part.name, part.is_tag), part.count) for part in recipe.ingredients]
        while missing := [(item, count) for item, count in chosen if self._have[item] < count]:  # one may use up another
            for item, count in missing:
                self._obtain(item, count)
        self._have.subtract(dict(chosen))
        self._have[recipe.output] += recipe.count
        using = ", ".join(f"{count} {words(item)}" for item, count in chosen)
        self.crafts.append(f"craft {recipe.count} {words(recipe.output)} using {using}")

    def _obtain(self, item: str, count: int) -> None:
        if self.book.can_fetch(item):
            self.fetched[item] += count - self._have[item]
            self._have[item] = count
        while self._have[item] < count:
            self.craft(_easiest(self.book, item))

    def _stand_in(self, name: str, is_tag: bool) -> str:
        """The item to use for an ingredient: for a tag, the one that takes the fewest levels."""
        return _easiest(self.book, name).output if is_tag else name


def _easiest(book: RecipeBook, name: str) -> Recipe:
    """The recipe of fewest levels; the first of equals."""
    ways = book.making(name)
    if not ways:
        raise ValueError(f"nothing makes {words(name)}")
    return min(ways, key=lambda recipe: max(book.depths.get(part.name, _tag_depth(book, part.name)) for part in recipe.ingredients))


def _tag_depth(book: RecipeBook, name: str) -> int:
    return min((book.depths[recipe.output] for recipe in book.making(name)), default=0)
