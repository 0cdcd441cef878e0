"""What `txcontain top` shows: decides what is on the screen, and what a key does.

It knows no terminal: `screen_of` returns the lines, each of them pieces of text with a style.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from txcontain.cli.ps import COLUMNS, config, ports, state
from txcontain.cli.screen import COLOURS, cut
from txcontain.cli.words import age, one_line, size

if TYPE_CHECKING:
    from txcontain.cli.client import Json

PLAIN, HEAD, CHOSEN, FAINT, ALERT = "plain", "head", "chosen", "faint", "alert"
Line = list[tuple[str, str]]  # pieces of text, each with its style: one of these, or a state
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
LABEL = 10  # characters before what is told of an instance
MUCH = 20  # per cent of the last ten seconds, in which someone on this machine waited
SHORT = 20  # points of a sparkline in the list
KEYS = (
    ("j k, arrows", "choose an instance"),
    ("g G", "the first, the last"),
    ("/", "show only names, configs and states with a text in them; Esc: all again"),
    ("Enter", "more of this instance; Esc: back"),
    ("l", "its log; Ctrl-C: back"),
    ("s", "a shell in it"),
    ("e", "explain: how to make it by hand"),
    ("?", "these keys"),
    ("q", "leave, or go back"),
)


class Action(NamedTuple):
    """What is to be done outside of the screen."""

    verb: str  # quit, logs, shell, explain
    instance: str = ""


class View:
    """What is shown now."""

    def __init__(self, bars: str = BARS) -> None:
        self.bars = bars
        self.records: list[Json] = []
        self.history: dict[str, Json] = {}
        self.host: Json = {}  # as GET /host answers
        self.trouble = ""  # why what is shown may be old
        self.chosen = ""  # an instance
        self.wanted = ""  # a text to look for
        self.is_typing = False  # that text
        self.page = "list"  # or one, keys
        self.first = 0  # line of the list that is at the top

    def update(self, records: "list[Json]", history: "dict[str, Json]", host: "Json") -> None:
        """Take what the manager has told now."""
        self.records, self.history, self.host, self.trouble = records, history, host, ""

    @property
    def shown(self) -> "list[Json]":
        """The instances that are in the list."""
        wanted = self.wanted.lower()
        return [
            one
            for one in self.records
            if wanted in f"{one['instance']} {config(one)} {state(one)}".lower()
        ]

    @property
    def place(self) -> int:
        """Where the chosen instance is in the list; 0 if it is gone."""
        names = [one["instance"] for one in self.shown]
        return names.index(self.chosen) if self.chosen in names else 0

    @property
    def current(self) -> "Json":
        """The chosen instance; None if there is none."""
        shown = self.shown
        return shown[self.place] if shown else None

    # -- keys ------------------------------------------------------------------

    def press(self, key: str) -> Action | None:
        """Do what a key says; what can't be done here is returned."""
        if self.is_typing:
            self._type(key)
        elif key in ("q", "esc", "^C") and self.page != "list":
            self.page = "list"
        elif key in ("q", "^C"):
            return Action("quit")
        elif key == "esc":
            self.wanted = ""
        elif key == "?":
            self.page = "keys"
        elif key == "/":
            self.page, self.is_typing = "list", True
        elif key in MOVES:
            self._choose(MOVES[key](self.place, len(self.shown)))
        elif current := self.current:
            if key == "enter":
                self.chosen, self.page = current["instance"], "one"
            elif key in ACTIONS:
                return Action(ACTIONS[key], current["instance"])
        return None

    def _type(self, key: str) -> None:
        if key in ("enter", "esc", "^C"):
            self.is_typing = False
            if key != "enter":
                self.wanted = ""
        elif key == "backspace":
            self.wanted = self.wanted[:-1]
        elif len(key) == 1 and key.isprintable():
            self.wanted += key

    def _choose(self, place: int) -> None:
        shown = self.shown
        if shown:
            self.chosen = shown[min(max(place, 0), len(shown) - 1)]["instance"]

    # -- what is seen ----------------------------------------------------------

    def screen_of(self, width: int, height: int) -> list[Line]:
        """Return the lines of the screen, at most so many, and none longer than its width."""
        body = max(height - 2, 1)
        page = {"list": self._list, "one": self._one, "keys": self._keys}[self.page](width, body)
        lines = [self._title(), *page[:body]]
        lines += [[] for _ in range(height - 1 - len(lines))]
        return [fitted(line, width) for line in [*lines, self._foot()][:height]]

    def _title(self) -> Line:
        counts: dict[str, int] = {}
        for one in self.records:
            counts[state(one)] = counts.get(state(one), 0) + 1
        told = ", ".join(f"{number} {what}" for what, number in counts.items()) or "no instances"
        processors = sum(latest(one["cpu"]) or 0 for one in self.history.values())
        memory = sum(latest(one["memory"]) or 0 for one in self.history.values())
        used = f"   CPU {processors:.2f}   memory {size(int(memory))}"
        return [("txcontain  ", HEAD), (told + used, PLAIN), *self._machine()]

    def _machine(self) -> Line:
        if not self.host:
            return []
        waits = [f"{what} {share:.0f} %" for what, share in self.host["pressure"].items()]
        scarce = any(share > MUCH for share in self.host["pressure"].values())
        memory, disk = (size(self.host[what]["available"]) for what in ("memory", "disk"))
        left = f"   free: memory {memory}, disk {disk}"
        waiting = f"   waiting: {', '.join(waits)}" if waits else ""
        return [(waiting, ALERT if scarce else FAINT), (left, FAINT)]

    def _foot(self) -> Line:
        if self.trouble:
            return [(one_line(self.trouble), ALERT)]
        if self.is_typing or self.wanted:
            return [(f"/{self.wanted}" + "_" * self.is_typing, HEAD)]
        return [("j k choose  / filter  Enter more  l logs  s shell  e explain  ? keys  q", FAINT)]

    def _list(self, width: int, height: int) -> list[Line]:
        shown, place = self.shown, self.place
        room = max(height - 1, 1)
        self.first = min(max(self.first, place - room + 1), place)
        here = shown[self.first : self.first + room]
        names = max([len(one["instance"]) for one in here] + [8])
        figures = f"{'CPU':{SHORT + 7}}  {'MEMORY':{SHORT + 8}}"
        head = f"{'INSTANCE':{names}}  STATE     READY  RST  {figures}  PORTS"
        return [[(head, HEAD)], *(self._row(one, names) for one in here)]

    def _row(self, one: "Json", names: int) -> Line:
        is_chosen = one is self.current
        cpu, memory = self._figures(one)
        busy, used = latest(cpu), latest(memory)
        style = CHOSEN if is_chosen else PLAIN
        word = state(one)
        of_cpu = f"{sparkline(cpu, SHORT, self.bars)} {'-' if busy is None else f'{busy:.2f}':>6}"
        of_memory = f"{sparkline(memory, SHORT, self.bars)} {size(whole(used)):>7}"
        return [
            (f"{one['instance']:{names}}  ", style),
            (f"{word:8}  ", style if is_chosen or word not in COLOURS else word),
            (f"{health(one):5}  {one['restarts']:3}  {of_cpu}  {of_memory}  ", style),
            (one_line(ports(one)), style),
        ]

    def _figures(self, one: "Json") -> "tuple[list[Json], list[Json]]":
        told = self.history.get(one["instance"], {"cpu": [], "memory": []})
        return told["cpu"], told["memory"]

    def _one(self, width: int, height: int) -> list[Line]:
        one = self.current
        if one is None or one["instance"] != self.chosen:
            return [[("This instance is gone. Esc: back", ALERT)]]
        cpu, memory = self._figures(one)
        cells = {name: cell(one) for name, cell in COLUMNS.items()}
        cells["State"] += f", for {age(time.time() - one['since'])}"
        cells["Health"] = str(one.get("health") or "-")
        cells["Labels"] = ", ".join(f"{k}={v}" for k, v in one.get("labels", {}).items()) or "-"
        lines: list[Line] = [
            [_label(name), (one_line(text), PLAIN)] for name, text in cells.items()
        ]
        room = max(width - LABEL - 2, 1)
        busiest, largest = highest(cpu), size(whole(highest(memory)))
        for title, values, top in (
            ("CPU", cpu, f"{busiest:.2f} processors"),
            ("Memory", memory, largest),
        ):
            points = min(room, len(values))
            told = f"the last {points} s; at most {top}"
            graph = sparkline(values, points, self.bars)
            lines += [[], [_label(title), (told, PLAIN)], [_label(""), (graph, PLAIN)]]
        return lines

    def _keys(self, width: int, height: int) -> list[Line]:
        return [[], *([(f"  {keys:14}", HEAD), (what, PLAIN)] for keys, what in KEYS)]


MOVES = {
    "j": lambda place, number: place + 1,
    "k": lambda place, number: place - 1,
    "g": lambda place, number: 0,
    "G": lambda place, number: number - 1,
    "^F": lambda place, number: place + 10,
    "^B": lambda place, number: place - 10,
}
ACTIONS = {"l": "logs", "s": "shell", "e": "explain"}


def health(one: "Json") -> str:
    """Return whether an instance is healthy, or else whether it is ready, in a short word."""
    words = {"healthy": "well", "unhealthy": "ill", "starting": "..."}
    return words.get(str(one.get("health")), COLUMNS["Ready"](one))


def latest(values: "list[Json]") -> float | None:
    """Return the last figure that is known, unless it is older than the last three."""
    return next((value for value in reversed(values[-3:]) if value is not None), None)


def highest(values: "list[Json]") -> float:
    """Return the largest figure; 0 if none is known."""
    return max((value for value in values if value is not None), default=0)


def _label(text: str) -> tuple[str, str]:
    return f"{text:{LABEL}}", FAINT


def whole(value: float | None) -> int | None:
    """Return a number without its fraction."""
    return None if value is None else int(value)


def sparkline(values: "list[Json]", width: int, bars: str) -> str:
    """Return the last values as bars; the largest of all is the highest, unknown ones are blank."""
    last = values[-width:] if width else []
    top = highest(last) or 1
    drawn = (
        " " if value is None else bars[min(int(value / top * len(bars)), len(bars) - 1)]
        for value in last
    )
    return "".join(drawn).rjust(width)


def fitted(line: Line, width: int) -> Line:
    """Return a line that is cut off at the width."""
    found: Line = []
    for text, style in line:
        if width <= 0:
            break
        found.append((cut(text, width), style))
        width -= len(text)
    return found
