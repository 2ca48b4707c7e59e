"""Templates that stand for words within a sentence, and the words that they show.

Most templates draw boxes, and `wikitext.py` drops them. These few, such as `{{lang|fr|mot}}` or `{{convert|5|km}}`, would leave
a hole in the sentence. `INLINE_TEMPLATES` has those of every wiki, `Language.inline_templates` those of one. A rule is the
text that is shown: `{2}` is the second argument, `{text|1}` the one called text or else the first, `{*, }` all with commas.
"""

import functools
import re
from collections.abc import Callable, Mapping

from ultralink_nb.languages import get_language

NOTHING = "\x00"  # stands for a template that shows nothing, as long as brackets are resolved
LONGEST_NAME = 300  # characters; MediaWiki's have at most 255 bytes
INLINE_TEMPLATES: Mapping[str, str] = {
    "{1}": "nowrap|nobr|nobreak|small|smaller|big|larger|abbr|em|strong|smallcaps|sc|mono|code|var|kbd|samp|mvar|math|sup|sub|"
           "plainlist|flatlist|vanchor|visible anchor|tooltip|flag|flagu|flagcountry|sic|num|keypress|iast|ruby|columns-list|"
           "colored text|background color|nwr|nsmdns|citation needed span|vr|railgauge|track gauge|char|overline|tq|not a typo|"
           "proper name|abbrlink|nihongo2|nihongo4|noitalic|normal|nonitalic|nobold|angle",
    "{text|2}": "lang|transl-lang", "{3|2}": "transl|transliteration|tlit|script", "{2}": "langx|color|font color",
    "{text|quote|1}": "quote|blockquote|cquote|quotation|quote box", "{c|s|t|1}": "zh|lang-zh",
    "{1} {u|ul}": "val", "{lt|1}": "ill|interlanguage link|interlanguage link multi|illm", "×10^{1}": "e|esp",
    "{*}": "chem|chem2|linktext|gaps", "{*, }": "hlist|ubl|unbulleted list|flat list",
    "⟨{1}⟩": "angbr|angle bracket|grapheme", "c. {1}": "circa|c.|ca.", "fl. {1}": "floruit|fl.", "√{1}": "radic|sqrt",
    "|": "!|pipe", "=": "=", "'": "'", "'s": "'s", "—": "mdash|em dash|—|mdashb", "–": "ndash|en dash|–",
    " – ": "snd|spnd|spaced ndash", " — ": "spaced mdash",
    "\u00a0": "nbsp|spaces|space", " · ": "·|dot|•|bullet|middot", " / ": "/|\\", "⇌": "eqm", "π": "pi",
}


@functools.cache
def _rules(language: str) -> dict[str, str]:
    rules = {}
    for source in (INLINE_TEMPLATES, get_language(language).inline_templates):
        rules |= {name: rule for rule, names in source.items() for name in names.split("|")}
    return rules


def shown(content: str, language: str) -> str:
    """What a template shows within a sentence; nothing for one that the tables do not know.

    content: what stands between its braces, `convert|5|km`, with nothing left to resolve. language: code of the wiki.
    """
    name, bar, rest = content.partition("|")
    if len(name) > LONGEST_NAME:
        return ""
    show = _shower(name, language)
    return show if isinstance(show, str) else show(_arguments(rest) if bar else {})


@functools.lru_cache(10_000)
def _shower(name: str, language: str) -> str | Callable[[Mapping[str, str]], str]:
    """What a template of this name shows: always the same text, or a function of its arguments."""
    function, colon, value = name.strip().partition(":")
    if colon:
        return value.strip() if function.strip().lower() == "formatnum" and "{" not in value else ""
    name = name.strip().replace("_", " ")
    key = name.lower()
    if key in ("convert", "cvt"):
        return lambda arguments: _converted(_unnamed(arguments)[:12])
    if key in ("frac", "fraction", "sfrac"):
        return lambda arguments: _fraction(_unnamed(arguments))
    if re.fullmatch(r"(?:[ivxlc]+|\d+)(?:er|ers|re|es|e)(?: siècle)?", key):  # {{XIXe|siècle}} shows its own name
        return lambda arguments: " ".join([name, *_unnamed(arguments)[:1]])
    rule = _rules(language).get(key) or ("{1}" if re.fullmatch(r"lang-[a-z-]+\d?", key) else "")
    return functools.partial(_filled, rule) if "{" in rule else rule


def _arguments(text: str) -> dict[str, str]:
    """The arguments of a template by name, the unnamed ones under "1", "2" and so on."""
    arguments, count = {}, 0
    for argument in text.replace(NOTHING, "").split("|"):
        name, equals, value = argument.partition("=")
        if equals:
            arguments[name.strip().lower()] = value.strip()
        else:
            count += 1
            arguments[str(count)] = argument.strip()
    return arguments


def _filled(rule: str, arguments: Mapping[str, str]) -> str:
    """The text of a rule with its holes filled; of words around holes that no argument fills, nothing."""
    filled = False

    def hole(match: re.Match) -> str:
        nonlocal filled
        if match[1].startswith("*"):
            value = match[1][1:].join(filter(None, _unnamed(arguments)))
        else:
            value = next((arguments[key] for key in match[1].split("|") if arguments.get(key)), "")
        filled |= bool(value)
        return value

    text = re.sub(r"\{([^{}]+)\}", hole, rule)
    if not filled and text.strip():
        return ""
    return text.strip(" ") if rule.strip(" ") == rule else text


def _unnamed(arguments: Mapping[str, str]) -> list[str]:
    return [arguments[number] for number in sorted((name for name in arguments if re.fullmatch(r"\d{1,4}", name)), key=int)]


def _converted(arguments: list[str]) -> str:
    """`{{convert|5|to|10|km2|sqmi}}` as "5 to 10 km²": the measure that was entered, without its conversion."""
    shown: list[str] = []
    while arguments and re.match(r"[-−+±]?[\d.,/]+", arguments[0]):
        shown.append(arguments.pop(0))
        if not arguments:
            break
        word = arguments.pop(0)
        if re.fullmatch(r"(?:to|and|or|by|x|×|-|–|\+/-|±|to\(-\)|and\(-\))", word) and arguments:
            shown.append({"x": "×", "-": "–", "+/-": "±", "to(-)": "to", "and(-)": "and"}.get(word, word))
            continue
        unit = {"C": "°C", "F": "°F", "sqmi": "sq mi", "sqft": "sq ft", "sqkm": "km²"}.get(word) or re.sub(
            r"(?<=[a-zа-я])[23]$", lambda power: "²³"[int(power[0]) - 2], word)
        shown.append(unit)
        if unit not in ("ft", "lb", "st", "mi", "yd", "h") or not re.fullmatch(r"[\d.]+", "".join(arguments[:1])):
            break  # only such units go on with a smaller one: 5 ft 10 in
        if len(arguments) < 2 or arguments[1] not in ("in", "oz", "lb", "ft", "yd", "min"):
            break
    return re.sub(r"(?<=\d) (?=[\u4e00-\u9fff])|(?<=\d) (?=–)|(?<=–) (?=\d)", "", " ".join(shown))


def _fraction(numbers: list[str]) -> str:
    """`{{frac|3|1|2}}` as "3 1/2", `{{frac|4}}` as "1/4"."""
    if not numbers:
        return "1/2"
    whole = numbers[0] + " " if len(numbers) > 2 else ""
    numbers = numbers[1:] if whole else numbers
    return whole + ("1/" + numbers[0] if len(numbers) == 1 else "/".join(numbers))
