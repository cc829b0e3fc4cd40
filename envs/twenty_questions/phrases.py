"""One key for the many ways of asking the same thing.

    "Is it usually made out of wood?", "Would you say the object is made from wood?"   -> of wood
    "Can you eat it?", "Is it something that people eat?", "Could it be eaten?"        -> eat
    "Does it have wheels?", "Is it a thing with wheels?", "Are there wheels on it?"    -> have wheel

Adverbs, articles, word endings and the frame of the sentence are taken off; what is left must
match a wording of the lexicon as a whole. So nothing is understood by a keyword alone: a question
with anything more in it (a second question, a list, a negation) has a key that nobody knows.
"""

from __future__ import annotations

import re

MAX_QUESTION = 200
"""Characters; a longer text is no question, and is not worth the work."""

_NOT_A_WORD = re.compile(r"[^a-z0-9' ,$]")
_OPENING = re.compile(
    r"^(?:(?:okay|ok|so|well|hmm+|alright|now|then|and|but|great|thanks|next|i see|got it)[,.! ]+)+"
)
_CONTRACTIONS = re.compile(r"\b(it|that|what|they|you|i)'(s|re|m|d)\b")
_EXPANSION = {"s": "is", "re": "are", "m": "am", "d": "would"}
_THE_OBJECT = re.compile(
    r"\b(?:(?:the|this|your) (?:secret |mystery |hidden )?(?:object|item|thing|word|answer)"
    r"(?: in question)?(?: (?:that )?you (?:are thinking (?:of|about)|have in mind))?"
    r"|what you (?:are thinking of|have in mind))\b"
)
_PRONOUN = "(?:it|this|that|they|these|those)"
_PEOPLE = (
    "(?:you|i|we|one|someone|somebody|anyone|(?:most |the average |an average )?"
    "(?:people|person)|a person|a human|humans)"
)
_OPINION = re.compile(
    rf"^(?:(?:would|could|can|do) {_PEOPLE} (?:say|think|agree|believe|tell me|confirm)"
    r"|(?:is it|am i) (?:true|correct|right|fair to say|safe to say)"
    r"|i (?:think|guess|believe|would say|am guessing)|my guess is)(?: (?:that|if|whether))? "
)
_CALLED = re.compile(
    rf"^(?:would|could|can|do|does) {_PEOPLE} (?:call|consider|describe|classify|categorize|regard)"
    r" it (?:as |to be )?"
)
_ADVERB = re.compile(
    r"\b(?:usually|typically|generally|commonly|normally|often|mostly|mainly|primarily|regularly"
    r"|frequently|actually|really|also|likely|probably|possibly|perhaps|maybe|basically|easily|just"
    r"|most of the time|in general|by any chance|most often|happen to|tend to|at all|please|or not)"
    r"\b"
)
_ARTICLE = re.compile(r"\b(?:a|an|the|some|any|its|their|your|my|our|his|her)\b")
_SPACES = re.compile(r" {2,}")

_IS = re.compile(rf"^(?:is|are|was|were) {_PRONOUN} (.+)$")
_IT_IS = re.compile(rf"^{_PRONOUN} (?:is|are|was) (.+)$")
_THERE = re.compile(r"^(?:is|are) there (.+?)(?: for)? (?:on|in|inside|to) it$")
_HAS = re.compile(rf"^(?:(?:has|have) {_PRONOUN}(?: got)?|{_PRONOUN} (?:has|have)) (.+)$")
_DOES = re.compile(
    rf"^(?:(?:does|do|did|can|could|would|will|might|may) {_PRONOUN}"
    rf"|{_PRONOUN} (?:can|could|does|will|would)) (.+)$"
)
_DO_PEOPLE = re.compile(rf"^(?:can|could|do|does|did|would|will|might|should|may) {_PEOPLE} (.+)$")

_KIND_OF = re.compile(
    r"^(?:(?:be |being )?(?:considered|called|classified as|thought of as|known as|regarded as"
    r"|described as|seen as)(?: to be)?|(?:(?:a|an|the|some|one) )?(?:type|kind|sort|form|example)"
    r"s? of) "
)
_SOMETHING = re.compile(r"^(?:something|anything|(?:a|an|the) (?:thing|object|item)) (.+)$")
_WHICH_IS = re.compile(r"^(?:that|which) (?:is|are|(?:can|could|would|may) be) (.+)$")
_WITH = re.compile(r"^(?:(?:(?:that|which) )?(?:has|have|having|contains)|with) (.+)$")
_PEOPLE_DO = re.compile(rf"^(?:(?:that|which) )?{_PEOPLE} (?:(?:can|could|would|might|may|do|will) )?(.+)$")
_WHICH_DOES = re.compile(r"^(?:that|which) (?:(?:can|could|would|will|does) )?(.+)$")
_ABLE_TO = re.compile(r"^(?:able to|capable of) (.+)$")
_TO = re.compile(r"^(?:possible )?(?:for (?:you|people) )?to (.+)$")
_MADE_OF = re.compile(
    r"^(?:made|composed|constructed|built|crafted|manufactured)(?: up)?(?: out)? (?:of|from|with) "
)
_USED_TO = re.compile(
    r"^(?:(?:used|useful|meant|designed|intended|made|built|needed) (?:to|for|when|while)|for) "
)
_USE_TO = re.compile(r"^use (?:to|for|when|while) ")
_PLACED = re.compile(
    r"^(?:(?:be )?(?:found|find|kept|keep|used|use|seen|see|located|stored|store|placed|place|put"
    r"|worn|wear|belong|go|live|expect|come across) )(?=(?:in|inside|on|at|around|outside|outdoors"
    r"|indoors|near|over|next|beside|during)\b)"
)
_MUST = re.compile(r"^(?:need|needs|have|has|want|like|get) to ")
_BE = re.compile(r"^(?:be|get) (?!to )(.+)$")
_HAVE = re.compile(r"^(?:have|has) (?!to )(.+?)(?: (?:on|in|inside) it)?$")
_OBJECT_PRONOUN = re.compile(r"\b(?:it|them|this|these|those)\b")

_SAME_WORD = {
    word: meaning
    for meaning, words in {
        "apparel": "clothes clothing",
        "thing": "things something anything object objects item items",
        "children": "kid kids child",
        "photo": "picture pictures photograph photographs",
        "gas": "gasoline petrol",
        "in": "inside within",
        "horticulture": "gardening",  # a pursuit; its stem would be the place
        "color": "colour colored coloured",
        "jewelry": "jewellery",
        "racket": "racquet",
        "bigger": "larger",
        "house": "home homes",
        "person": "people",
        "woman": "women",
        "foot": "feet",
        "tooth": "teeth",
        "have": "has",
        "wear": "worn",
        "eat": "eaten",
        "drink": "drunk",
        "drive": "driven",
        "ride": "ridden",
        "write": "written",
        "throw": "thrown",
        "grow": "grown",
        "hang": "hung",
        "hold": "held",
        "find": "found",
        "keep": "kept",
        "see": "seen",
        "buy": "bought",
        "sell": "sold",
    }.items()
    for word in words.split()
}


def clean(question: str) -> str | None:
    """Lower case, no end mark, no opening words, "it" for the object; None for what is no question.

    Articles and adverbs are still there: a guess ("is it an orange") needs them.
    """
    if len(question) > MAX_QUESTION:
        return None
    text = question.strip().lower().rstrip("?!. ").replace("’", "'").replace("-", " ")
    text = _OPENING.sub("", text)
    if not text or _NOT_A_WORD.search(text):
        return None
    text = text.replace(",", " , ")
    text = _CONTRACTIONS.sub(lambda m: f"{m[1]} {_EXPANSION[m[2]]}", text)
    return _SPACES.sub(" ", _THE_OBJECT.sub("it", text))


def key(text: str) -> str:
    """The key of a cleaned question; two questions with one key ask the same."""
    text = _SPACES.sub(" ", _ADVERB.sub("", text)).strip()
    text = _CALLED.sub("is it ", _OPINION.sub("", text))
    if m := _IS.match(text) or _IT_IS.match(text):
        return _being(m[1])
    if m := _THERE.match(text) or _HAS.match(text):
        return "have " + _words(m[1])
    if m := _DOES.match(text):
        return _doing(m[1])
    if m := _DO_PEOPLE.match(text):
        return _people_doing(m[1])
    return _being(text)


def _being(text: str) -> str:
    """The key of "is it ..."."""
    text = _KIND_OF.sub("", _KIND_OF.sub("", text))
    if m := _SOMETHING.match(text):
        return _something(m[1])
    if m := _ABLE_TO.match(text):
        return _doing(m[1])
    if m := _TO.match(text):
        return _people_doing(m[1])
    if _MADE_OF.match(text):
        return "of " + _words(_MADE_OF.sub("", text))
    if _PLACED.match(text):
        return _words(_PLACED.sub("", text))
    if _USED_TO.match(text):
        return "use " + _words(_USED_TO.sub("", text))
    if m := _WITH.match(text):
        return "have " + _words(m[1])
    return _words(text)


def _something(text: str) -> str:
    """The key of "is it something ..."."""
    if m := _WHICH_IS.match(text):
        return _being(m[1])
    if m := _WITH.match(text):
        return "have " + _words(m[1])
    if m := _PEOPLE_DO.match(text):
        return _people_doing(m[1])
    if m := _WHICH_DOES.match(text):
        return _doing(m[1])
    return _being(text)


def _doing(text: str) -> str:
    """The key of "does it ..."; a verb of the object's own is kept apart from one done to it."""
    text = _MUST.sub("", text)
    if m := _BE.match(text):
        return _being(m[1])
    if m := _HAVE.match(text):
        return "have " + _words(m[1])
    if _PLACED.match(text):
        return _words(_PLACED.sub("", text))
    return "it " + _words(text)


def _people_doing(text: str) -> str:
    """The key of "do you ... it": the same as of "is it ...-ed"."""
    text = _SPACES.sub(" ", _OBJECT_PRONOUN.sub("", _MUST.sub("", text))).strip()
    if _USE_TO.match(text):
        return "use " + _words(_USE_TO.sub("", text))
    return _words(_PLACED.sub("", text))


def _words(text: str) -> str:
    return " ".join([_stem(word) for word in _ARTICLE.sub("", text).split()])


def _stem(word: str) -> str:
    """A word without its ending; crude, but the same on both sides of a comparison."""
    word = _SAME_WORD.get(word, word)
    if word.endswith("ing") and len(word) > 5:
        word = word[:-3]
    elif word.endswith("ed") and len(word) > 4:
        word = word[:-2]
    elif word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz0":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word
