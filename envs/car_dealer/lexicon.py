"""The words that a line is understood by: plain tables for `hearing.py`."""

from __future__ import annotations

from typing import Final, NamedTuple


class Role(NamedTuple):
    """What a single word stands for."""

    kind: str
    value: str


def _roles(kind: str, words: dict[str, str]) -> dict[str, Role]:
    """`words` maps a value to the words that stand for it."""
    return {word: Role(kind, value) for value, many in words.items() for word in many.split()}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LEXICON: Final = {
    **_roles(
        "brand",
        {
            "Volkswagen": "volkswagen volkswagens vw vws",
            "Lexus": "lexus lexuses",
            "Ford": "ford fords",
            "Mazda": "mazda mazdas",
            "Hyundai": "hyundai hyundais",
            "Toyota": "toyota toyotas",
            "Mercedes-Benz": "mercedes benz",
            "BMW": "bmw bmws",
            "Audi": "audi audis",
            "Subaru": "subaru subarus",
            "Honda": "honda hondas",
            "Porsche": "porsche porsches",
            "Tesla": "tesla teslas",
        },
    ),
    **_roles(
        "type",
        {
            "luxury": "luxury luxurious",
            "sedan": "sedan sedans",
            "convertible": "convertible convertibles cabriolet",
            "truck": "truck trucks pickup pickups",
            "electric": "electric ev evs",
            "SUV": "suv suvs",
        },
    ),
    **_roles(
        "feature",
        {
            "backup camera": "camera cameras",
            "navigation system": "navigation nav gps",
            "heated seats": "heated",
            "leather seats": "leather",
            "third-row seating": "third",
            "blind spot monitoring": "blind",
            "sunroof": "sunroof moonroof",
            "Apple CarPlay": "carplay",
        },
    ),
    **_roles(
        "topic",
        {
            "brand": "brand brands make makes manufacturer badge",
            "type": "type types kind kinds style styles body",
            "features": "feature features options option extras equipment equipped",
            "budget": "budget spend spending afford range",
            "offer": "pay offer counter counteroffer",
            "wish": "looking help interested bring brings dream ideal car vehicle want need after",
        },
    ),
    **_roles("end", {".": ". ; !", "?": "?"}),
    **_roles("take", {"deal": "deal accept agree agreed sold yours done"}),
    **_roles("all", {"all": "all everything"}),
}
_UNITS: Final = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS: Final = {
    **{word: number for number, word in enumerate(_UNITS.split(), start=1)},
    **{word: 10 * number for number, word in enumerate(_TENS.split(), start=2)},
}
LEXICON.update(_roles("number", {"number": f"{_UNITS} {_TENS}"}))
THOUSAND: Final = _set("k thousand grand")
NUMBER_WORDS: Final = THOUSAND | NUMBERS.keys() | {"hundred", "and"}
"""Words that may go on with an amount."""
NEXT_WORD: Final = {"third": "row", "blind": "spot"}
"""Words that stand for a feature only when this one follows."""
NEGATIONS: Final = _set(
    "no not without lacks lacking minus isnt doesnt dont cant cannot wont never neither nor"
)
FILLERS: Final = _set("a an the any have has come comes with include includes it want i")
"""Words that may stand between a negation and what it negates."""
REFUSALS: Final = NEGATIONS | _set(
    "wouldnt couldnt shouldnt didnt havent hasnt arent aint unable refuse refusing decline hardly far close "
    "closer afraid than what least lowest minimum most"
)
"""Before a closing word in its clause."""
CONDITIONS: Final = _set("if unless until once provided")
"""In the sentence of a closing word, up to the end of its clause."""
CLAUSE_START: Final = _set(", but")
"""Fewer than end a clause: a negation before "accept" and the like reaches over "and" and "so"."""
CLAUSE_END: Final = _set(", . ; ! ? but and so")
SPEAKER: Final = _set("i ill im ive we well weve")
WILLING: Final = _set(
    "am are do will can have be happy glad pleased delighted willing ready able to just gladly happily "
    "decided go ahead and"
)
"""All that may stand between a speaker and "accept" or "agree" in an acceptance."""
THE_OFFER: Final = _set("offer counter counteroffer price terms deal figure number amount proposal bid")
"""With one of these after it in its clause a word such as "accept" or "sold" is about the offer."""
POINTING: Final = _set("that this it to you me sir madam then now today here my friend")
"""Or with nothing but these."""
CLOSING: Final = _set(
    "its it is that thats a we us you youve weve got have made just yourself ourselves then well ok okay yes "
    "great alright all right sounds looks like guess think believe i id ill say call make take consider lets "
    "done can no problem at for price my manager says happy glad to sir madam"
)
"""All that may stand before "deal" and "done" in a clause that closes it: not "we can work out a deal"."""
YOURS_BEFORE: Final = _set("is its shes hes are cars all now officially")
"""What "yours" follows where the car is meant, with a word that is in none of `NOT_THE_CAR`."""
NOT_THE_CAR: Final = _set("choice decision call move turn pleasure chance advantage opportunity")
OPINION: Final = _set("it its the this that they")
"""What an agreement with something else begins with: "Agreed, it is a nice car"."""
PRAISE: Final = _set("great good best better special amazing this of what the")
"""Before "deal": the talk is of a bargain, not of closing it."""
LIST_PRICE: Final = _set("msrp sticker")
"""Anywhere before an amount: it is not what the seller asks."""
NO_OFFER_BEFORE: Final = _set(
    "save saves saving discount rebate from was were instead originally usually worth budget not"
)
"""Within three words before an amount."""
UNABLE: Final = _set("cant cannot wont wouldnt couldnt not never unable dont didnt refuse refusing")
WOULD_SELL: Final = _set("accept agree do take sell consider let give go meet settle part")
SPEAKER_BEFORE: Final = _set("i im ill id we well are am would could really just")
AROUND_SELLING: Final = WOULD_SELL | _set(
    "i we it her him them you the car one for to at as with be can could would able think possibly "
    "ever even just"
)
"""After a speaker, one of `UNABLE` and, soon, of `WOULD_SELL`, with nothing but these: it is refused."""
REFUSING: Final = _set("refuse refusing decline reject rejecting paid why")
"""Right before an amount that is not asked."""
QUOTED: Final = _set("said offered wanted mentioned named proposed asked")
ECHOED: Final = _set("want say offer")
AROUND_QUOTING: Final = _set("me us only just to pay")
"""After "you" and one of `QUOTED` (of `ECHOED`, where the clause begins so): the amount is the buyer's."""
DISMISSED: Final = _set("enough work do possible acceptable cut cover happen suffice fly")
"""Right after a negation but "no", after an amount: it is refused."""
TOO_LITTLE: Final = _set("low little small")
"""The same after "too"."""
DIFFERENCE_BEFORE: Final = _set(
    "by off up down back a an another additional extra further plus add adds adding "
    "include includes including drop drops dropping cut cuts cutting knock knocking shave shaving slash "
    "trim deduct subtract waive discounts rebates savings reduction increase break payment payments "
    "deposit tradein"
)
"""Right before an amount, or with some of `LINKS` between: it is added, taken off, or paid in part."""
FEE_BEFORE: Final = _set(
    "fee fees tax taxes warranty insurance difference gap bonus credit margin commission incentive allowance"
)
"""The same, but only with some of `LINKS` between: "with warranty $20,000" is a price."""
LINKS: Final = _set(
    "is are be would will of value about only just around roughly nearly almost maybe perhaps approximately"
)
PRICED: Final = _set("price total cost")
"""In "the price with tax is" an amount, it is the price, and no tax."""
NAMED_PRICE: Final = _set("price offer deal total counter")
"""Right after an amount: "a" before it does not make it a difference."""
NO_OFFER_AFTER: Final = _set(
    "off discount discounts rebate rebates savings cashback less cheaper down monthly month miles mile km "
    "deposit tradein bonus credit gap difference increments top reduction drop cut break increase"
)
"""Within two words after an amount."""
DIFFERENCE_AFTER: Final = LIST_PRICE | _set(
    "more lower higher under below above apart short away too extra better back of worth list"
)
"""Right after an amount."""
TERM: Final = _set("year years month months time")
"""After "over": how long the amount is paid, and not what it exceeds."""
ASKED_BEFORE: Final = _set(
    "add adds adding plus pay paying payment throw include includes including another additional extra "
    "further"
)
"""Within four words before an amount that is no offer: the buyer is to give it."""
ASKED_AFTER: Final = _set("more extra higher better too apart short away")
"""Right after such an amount."""
SAVINGS: Final = LIST_PRICE | _set(
    "save saves saving savings off less cheaper discount rebate under below lower list"
)
"""Near an amount that the buyer need not give."""
CONDITIONAL: Final = _set("deal sold yours done")
"""Words that do not close the deal when the buyer is asked for more first."""
CURRENCY: Final = _set("dollar dollars bucks usd")
NEW_THOUGHT: Final = _set(", . ; ! ? and or but plus with before after including is no not nothing")
"""What comes after one of these says nothing about the amount before it: "$20,000, more than fair"."""
ASKED_FOR: Final = _set("asked want wanted wish mentioned those need listed")
ASKING: Final = _set("tell share describe")
TALK: Final = _set(
    "hello hi hey welcome thanks thank please sorry yes no okay ok sure right well understand "
    "weather coffee nice great good best fair lower higher price prices value quality "
    "reliable comfortable safe beautiful popular engine warranty drive test color like love "
    "hope enjoy look see know my your you"
)
"""Small talk and praise: understood, and of no consequence."""
SPLITTING: Final = (
    ("’", "'"),
    ("`", "'"),
    ("we're", "we are"),  # and not "were"
    ("'", ""),
    ("why not", "how about"),
    *((mark, " ") for mark in '\n-–—/()[]:"“”*_~|'),
    *((mark, f" {mark} ") for mark in "?!;"),
    ("...", " , "),
    (", ", " , "),
    (". ", " . "),
    ("car play", "carplay"),
    ("trade in", "tradein"),
    ("list price", "msrp"),
)
"""Replacements after which spaces set words and marks apart, with amounts in one piece."""
