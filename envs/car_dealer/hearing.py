"""What a line says: cars, features, prices offered, questions asked, a deal taken.

Words are looked up one by one; there is no grammar beyond the sentence, a few words of context, and
whether it is a question. The buyer hears the seller with it, and scripted sellers hear the buyer.
Prices are understood as "$32k", "32,000", "32.5 thousand", "thirty-two thousand five hundred".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from envs.car_dealer.deal import LEAST_PRICE
from envs.car_dealer.lexicon import (
    AROUND_QUOTING,
    AROUND_SELLING,
    ASKED_AFTER,
    ASKED_BEFORE,
    ASKED_FOR,
    ASKING,
    CLAUSE_END,
    CLAUSE_START,
    CLOSING,
    CONDITIONAL,
    CONDITIONS,
    CURRENCY,
    DIFFERENCE_AFTER,
    DIFFERENCE_BEFORE,
    DISMISSED,
    ECHOED,
    FEE_BEFORE,
    FILLERS,
    LEXICON,
    LINKS,
    LIST_PRICE,
    NAMED_PRICE,
    NEGATIONS,
    NEW_THOUGHT,
    NEXT_WORD,
    NO_OFFER_AFTER,
    NO_OFFER_BEFORE,
    NOT_THE_CAR,
    NUMBER_WORDS,
    NUMBERS,
    OPINION,
    POINTING,
    PRAISE,
    PRICED,
    QUOTED,
    REFUSALS,
    REFUSING,
    SAVINGS,
    SPEAKER,
    SPEAKER_BEFORE,
    SPLITTING,
    TALK,
    TERM,
    THE_OFFER,
    THOUSAND,
    TOO_LITTLE,
    UNABLE,
    WILLING,
    WOULD_SELL,
    YOURS_BEFORE,
    Role,
)

_AMOUNT: Final = re.compile(r"\$?([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)(k?)")
_FIRST_OF_AMOUNT: Final = frozenset("$0123456789")
_TOO_MUCH: Final = 10**9
"""Stands for any larger amount of dollars."""
_LEAST_AMOUNT: Final = 1000
"""Dollars below which an amount is no price of a car."""
_NOTHING: Final[frozenset[str]] = frozenset()
_NO_PRICE: Final[frozenset[int]] = frozenset()


@dataclass(slots=True)
class Heard:
    """What was understood of one line. Sets, because a line may say several things."""

    brands: frozenset[str] = _NOTHING
    types: frozenset[str] = _NOTHING
    features: frozenset[str] = _NOTHING
    """Said to be there."""
    lacking: frozenset[str] = _NOTHING
    """Said not to be there."""
    asked_features: frozenset[str] = _NOTHING
    """Asked about, one by one."""
    prices: frozenset[int] = _NO_PRICE
    """Dollars offered; not a list price, a discount, a fee or an amount in a question about the budget."""
    topics: frozenset[str] = _NOTHING
    """Asked for: brand, type, features, budget, offer, wish."""
    takes: bool = False
    """Closes the deal at the price that the other side has named."""
    everything: bool = False
    """The car has all that was asked for."""
    understood: bool = False
    """Some word was known, if only a greeting."""

    @property
    def names_car(self) -> bool:
        return bool(self.brands or self.types or self.features or self.lacking or self.everything)


@lru_cache(maxsize=4096)
def hear(line: str) -> Heard:
    """Understand a line, whatever it is. The result is shared: do not change it."""
    words = _split(line)
    listener = _Listener(words)
    for at, word in enumerate(words):
        role = LEXICON.get(word)
        if role is not None:
            listener.note(role, at)
        elif word[0] in _FIRST_OF_AMOUNT:
            listener.note_amount(at)
    listener.end_sentence(len(words), question=False)
    heard = listener.heard
    if len(heard.prices) > 1:  # "$24,000, and delivery is $1,500" has one price
        heard.prices = frozenset(p for p in heard.prices if p >= LEAST_PRICE) or heard.prices
    heard.understood = heard.understood or not TALK.isdisjoint(words)
    return heard


def _split(line: str) -> list[str]:
    """Words, amounts and punctuation marks. (Twice as fast as a regular expression.)"""
    text = f"{line.lower()} "
    for old, new in SPLITTING:
        if old in text:
            text = text.replace(old, new)
    return text.split()


class _Listener:
    """Adds up what the words say; questions and offers are settled where a sentence ends."""

    __slots__ = ("_amount_end", "_amounts", "_context", "_provided", "_said", "_start", "_words", "heard")

    def __init__(self, words: list[str]) -> None:
        self.heard = Heard()
        self._words = words
        self._amount_end = 0
        self._begin_sentence(0)

    def _begin_sentence(self, start: int) -> None:
        self._start = self._context = start
        self._said: list[Role] = []
        self._amounts = _NO_PRICE
        self._provided = False  # the buyer was asked for an amount that is no offer

    def note(self, role: Role, at: int) -> None:
        """Take in a known word."""
        kind = role.kind
        if kind == "topic":
            self._said.append(role)
        elif kind == "end":
            self.end_sentence(at, role.value == "?")
        elif kind == "number":
            self.note_amount(at)
        elif kind == "take":
            if self._may_close(at):
                self._said.append(role if self._closes(at) else Role("topic", "offer"))
        elif kind == "all":
            if not ASKED_FOR.isdisjoint(self._words[at : at + 5]):
                self._said.append(role)
        elif kind != "feature" or self._is_feature(at):
            if not self._negated(at):
                self._said.append(role)
            elif kind == "feature":
                self._said.append(Role("lacking", role.value))

    def note_amount(self, at: int) -> None:
        """Take in the amount that begins at a word; its words are not looked at again."""
        if at < self._amount_end:
            return
        words = self._words
        amount, end = _amount(words, at)
        self._amount_end = end
        end += words[end : end + 1] != [] and words[end] in CURRENCY
        before, after = words[self._context : at], words[end : end + 8]
        if amount < _LEAST_AMOUNT:
            self._provided |= words[at][0] == "$" and _is_asked(before, after)
            return
        named_list = not LIST_PRICE.isdisjoint(after[:1])  # "the $28,000 MSRP": the next amount is another
        self._context = end + named_list
        if _is_refused(before, after):
            self._said.append(Role("topic", "offer"))
        elif _leads_to_offer(before, after[:4]) and _follows_offer(after[:4]):
            self._amounts |= {amount}
        else:
            self._provided |= _is_asked(before, after)

    def end_sentence(self, end: int, question: bool) -> None:
        if self._said or self._amounts:
            self._settle(question or self._words[self._start] in ASKING)
        self._begin_sentence(end + 1)

    def _settle(self, asking: bool) -> None:
        """Make one sentence part of what was heard."""
        heard = self.heard
        heard.understood = True
        said: dict[str, frozenset[str]] = {}
        for kind, value in self._said:
            said[kind] = said.get(kind, _NOTHING) | {value}
        topics = said.get("topic", _NOTHING)
        if self._amounts and not (asking and "budget" in topics | heard.topics):
            heard.prices |= self._amounts
        asking_only = asking and not heard.prices
        for kind, values in said.items():
            if kind == "brand" or kind == "type":
                if asking_only and len(values) > 1:  # "a BMW or an Audi?" asks for a choice
                    topics |= {kind}
                elif kind == "brand":
                    heard.brands |= values
                else:
                    heard.types |= values
            elif kind == "feature":
                if asking_only:
                    heard.asked_features |= values
                else:
                    heard.features |= values
            elif kind == "lacking":
                heard.lacking |= values
            elif kind == "take":  # "do we have a deal?" asks for an answer to the price
                heard.takes = heard.takes or not asking
                topics |= {"offer"}
            elif kind == "all":
                heard.everything = True
        if asking_only:
            heard.topics |= topics

    def _is_feature(self, at: int) -> bool:
        needed = NEXT_WORD.get(self._words[at])
        return needed is None or self._words[at + 1 : at + 2] == [needed]

    def _negated(self, at: int) -> bool:
        words = self._words
        while at > self._start and words[at - 1] in FILLERS:
            at -= 1
        return at > self._start and words[at - 1] in NEGATIONS

    def _may_close(self, at: int) -> bool:
        """Whether "deal", "sold" and the like speak of closing, rather than praise or set a condition."""
        words = self._words
        if self._provided and words[at] in CONDITIONAL:  # "add $2,000 and it's yours"
            return False
        if self._negated(at):
            return False
        if words[at + 1 : at + 2] == ["for"] and _begins_amount(words[at + 2 : at + 3]):
            return False  # what is meant by "yours for $2,000 less" is settled by the amount
        before = at - 2 if at and words[at - 1] == "a" else at - 1
        praised = before >= self._start and words[before] in PRAISE
        return words[at] != "deal" or not (praised or words[at + 1 : at + 2] == ["for"])

    def _closes(self, at: int) -> bool:
        """Whether a word that may close the deal is sure to do so."""
        words, word = self._words, self._words[at]
        end = next((n for n in range(at + 1, len(words)) if words[n] in CLAUSE_END), len(words))
        before, after = _since(words[self._start : at], CLAUSE_START), words[at + 1 : end]
        if not REFUSALS.isdisjoint(before):
            return False
        if "but" in words[end : end + 2]:  # "I accept, but you have to come up a little"
            return False
        if not CONDITIONS.isdisjoint(words[self._start : end]):
            return False
        follows = words[at + 1 : at + 3]
        if follows[:1] == [","] and (word == "agree" or (word == "agreed" and follows[-1] in OPINION)):
            return False  # "I agree, comfort matters"
        near = _since(before, CLAUSE_END)
        if word == "yours":
            return _is_the_car(near) and (after[:1] in (["at"], ["for"]) or _is_of_the_offer(after))
        if word in {"deal", "done"} and not CLOSING.issuperset(near):
            return False
        if word == "deal":
            return _is_of_the_offer(after)
        return _is_said_by_seller(word, before) and _is_of_the_offer(after)


def _is_the_car(before: list[str]) -> bool:
    """Whether "yours" after these words is said of the car: "the Lexus is", "consider it"."""
    if before[-2:] == ["consider", "it"]:
        return True
    return not YOURS_BEFORE.isdisjoint(before[-1:]) and NOT_THE_CAR.isdisjoint(before)


def _is_said_by_seller(word: str, before: list[str]) -> bool:
    """Whether it is "I accept" rather than "you accept", and "sold" rather than "we sold"."""
    own = [at for at, other in enumerate(before) if other in SPEAKER]
    if word not in {"accept", "agree"}:
        return not own
    return bool(own) and WILLING.issuperset(before[own[-1] + 1 :])


def _is_of_the_offer(after: list[str]) -> bool:
    """Whether these words after "accept", "sold" and the like speak of the offer, and of nothing else."""
    return POINTING.issuperset(after) or not THE_OFFER.isdisjoint(after)


def _is_asked(before: list[str], after: list[str]) -> bool:
    """Whether the buyer is to add the amount between these words: no saving, and no list price."""
    near = before[-4:]
    if not (SAVINGS.isdisjoint(near) and SAVINGS.isdisjoint(after[:2])):
        return False
    return not (ASKED_BEFORE.isdisjoint(near) and ASKED_AFTER.isdisjoint(after[:1]))


def _leads_to_offer(before: list[str], after: list[str]) -> bool:
    """Whether the amount between these words can be what the seller asks, by those before it."""
    if before and before[-1] in {"a", "an"} and not NAMED_PRICE.isdisjoint(after[:1]):
        before = before[:-1]  # "a $20,000 price", not "a $20,000 car"
    if not (LIST_PRICE.isdisjoint(before) and NO_OFFER_BEFORE.isdisjoint(before[-3:])):
        return False
    last = len(before) - 1
    at = last - 2 if before[-2:] == ["up", "to"] else last
    while at >= 0 and before[at] in LINKS:
        at -= 1
    if at < 0 or before[at] in DIFFERENCE_BEFORE:
        return at < 0
    return at == last or before[at] not in FEE_BEFORE or not PRICED.isdisjoint(before)


def _is_refused(before: list[str], after: list[str]) -> bool:
    """Whether the amount between these words is surely spoken of, not asked: "I can't do", "is too low"."""
    clause = _since(before, CLAUSE_END)
    if not REFUSING.isdisjoint(clause[-1:]):
        return True
    for at, word in enumerate(clause):
        rest = clause[at + 1 :]
        if word in UNABLE and at and clause[at - 1] in SPEAKER_BEFORE:
            refused = not WOULD_SELL.isdisjoint(rest[:4]) and AROUND_SELLING.issuperset(rest)
        elif word == "you" and rest:
            said = rest[0] in QUOTED or (at == 0 and rest[0] in ECHOED)
            refused = said and AROUND_QUOTING.issuperset(rest[1:])
        else:
            continue
        if refused:
            return True
    end = next((at for at, word in enumerate(after) if word in CLAUSE_END), len(after))
    return any(
        (word in NEGATIONS and word != "no" and not DISMISSED.isdisjoint(after[at + 1 : end][:2]))
        or (word == "too" and not TOO_LITTLE.isdisjoint(after[at + 1 : end][:2]))
        for at, word in enumerate(after[:end])
    )


def _since(words: list[str], ends: frozenset[str]) -> list[str]:
    """The words after the last of `ends`."""
    return words[max((at + 1 for at, word in enumerate(words) if word in ends), default=0) :]


def _follows_offer(after: list[str]) -> bool:
    """Whether the amount before these words can be what the seller asks."""
    if after[:1] == ["over"]:  # "over three years", not "over your budget"
        return not TERM.isdisjoint(after)
    for number, word in enumerate(after[:2]):
        if word in NEW_THOUGHT:
            return True
        if word in NO_OFFER_AFTER or (number == 0 and word in DIFFERENCE_AFTER):
            return False
    return True


def _begins_amount(words: list[str]) -> bool:
    return bool(words) and (words[0][0] in _FIRST_OF_AMOUNT or words[0] in NUMBERS)


def _amount(words: list[str], start: int) -> tuple[int, int]:
    """The dollars that begin at a word, and the index after their last word."""
    total, part, at = 0.0, _digits(words[start]), start + 1
    while at < len(words) and words[at] in NUMBER_WORDS:
        word = words[at]
        if word in NUMBERS:
            part += NUMBERS[word]
        elif word == "hundred":
            part = min(part * 100, _TOO_MUCH)
        elif word in THOUSAND:
            total, part = min(total + part * 1000, _TOO_MUCH), 0.0
        elif words[at + 1 : at + 2] and words[at + 1] not in NUMBERS:
            break
        at += 1
    amount = min(int(total + part), _TOO_MUCH)
    is_year = at == start + 1 and words[start].isdigit() and 1900 <= amount < 2100
    return (0 if is_year else amount), at


def _digits(word: str) -> float:
    """The amount that a word is, or begins with: "thirty", "$32,500", "32.5k"."""
    if word in NUMBERS:
        return NUMBERS[word]
    found = _AMOUNT.match(word)
    if found is None or len(found[1]) > 12:
        return _TOO_MUCH if found else 0.0
    return float(found[1].replace(",", "")) * (1000 if found[2] else 1)
