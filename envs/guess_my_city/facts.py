"""The hundred cities and what is known about them.

`geonames.csv` is derived from GeoNames (see NOTICE.md and make_facts.py); `notes.csv` is our own
writing. Both have one row a city, in the same order, which is the order of the task ids.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import asin, cos, radians, sin, sqrt
from typing import Literal, get_args

CityPart = Literal["all", "train", "held-out"]
HELD_OUT_EVERY = 5
YES_NO = {"yes": True, "no": False, "": None}
"""An empty cell is a question whose answer is debatable: the simulator says that it can't say."""


@dataclass(frozen=True, slots=True)
class City:
    """One city. Texts are ready to stand in a sentence; an empty one means that there is none."""

    name: str
    aliases: tuple[str, ...]
    country: str
    continents: tuple[str, ...]
    regions: tuple[str, ...]
    neighbours: tuple[str, ...]
    """Countries that share a border with the city's own."""
    latitude: float
    longitude: float
    population: int
    utc_offset: float
    """Hours ahead of UTC, without daylight saving."""
    capital: bool | None
    currency: str
    languages: tuple[str, ...]
    sea: str
    port: bool
    river: str
    lake: str
    altitude: int
    """Metres above sea level, approximate."""
    terrain: str
    climate: str
    snow: str
    island: str
    landmarks: tuple[str, ...]
    foods: tuple[str, ...]
    known_for: str
    religion: str
    era: str
    metro: bool | None
    beach: bool
    olympics: tuple[str, ...]
    drives: str

    @property
    def names(self) -> tuple[str, ...]:
        """The name and every alias: what wins, and what no answer may contain."""
        return (self.name, *self.aliases)

    def kilometres(self, other: City) -> float:
        """Great-circle distance to another city."""
        north, south = radians(self.latitude), radians(other.latitude)
        east = radians(self.longitude - other.longitude)
        chord = sin((north - south) / 2) ** 2 + cos(north) * cos(south) * sin(east / 2) ** 2
        return 2 * 6371 * asin(sqrt(chord))


@cache
def load_cities() -> tuple[City, ...]:
    """All cities, by task id. ValueError when the two tables do not list the same cities."""
    derived, notes = _rows("geonames.csv"), _rows("notes.csv")
    for row, note in zip(derived, notes, strict=True):
        if row["name"] != note["name"]:
            raise ValueError(
                f"geonames.csv: name: found {row['name']!r} where notes.csv has {note['name']!r};"
                " run make_facts.py"
            )
    return tuple(_city({**row, **note}) for row, note in zip(derived, notes, strict=True))


def city_ids(part: CityPart) -> tuple[int, ...]:
    """The task ids of a part of the cities: every fifth is held out. ValueError for an unknown part."""
    if part not in get_args(CityPart):
        raise ValueError(f"cities: {part!r} is not one of {', '.join(get_args(CityPart))}")
    ids = range(len(load_cities()))
    held_out = set(ids[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    return tuple(i for i in ids if part == "all" or (i in held_out) == (part == "held-out"))


@cache
def load_countries() -> tuple[str, ...]:
    """The names of all countries, as GeoNames has them."""
    text = files(__package__).joinpath("countries.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _rows(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _city(row: dict[str, str]) -> City:
    return City(
        name=row["name"],
        aliases=_list(row["aliases"]),
        country=row["country"],
        continents=_list(row["continent"]),
        regions=_list(row["region"]),
        neighbours=_list(row["neighbours"]),
        latitude=float(row["latitude"]),
        longitude=float(row["longitude"]),
        population=int(row["population"]),
        utc_offset=float(row["utc_offset"]),
        capital=YES_NO[row["capital"]],
        currency=row["currency"],
        languages=_list(row["languages"]),
        sea=row["sea"],
        port=row["port"] == "yes",
        river=row["river"],
        lake=row["lake"],
        altitude=int(row["altitude_m"]),
        terrain=row["terrain"],
        climate=row["climate"],
        snow=row["snow"],
        island=row["island"],
        landmarks=_list(row["landmarks"]),
        foods=_list(row["foods"]),
        known_for=row["known_for"],
        religion=row["religion"],
        era=row["era"],
        metro=YES_NO[row["metro"]],
        beach=row["beach"] == "yes",
        olympics=_list(row["olympics"]),
        drives=row["drives"],
    )


def _list(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(";")) if cell else ()
