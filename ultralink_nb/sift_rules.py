"""Cheap rules before any model: words and forms that bind an English text to English or to one culture.

Two uses. `sure_cue` names what is enough to refuse a sample without a call, with the words that show it. `features` counts every
cue for the classifier of `culture.py`, which weighs them. The lists are ours, short and general: a rule that only counts may be
wrong often, a rule that refuses may not. `benchmarks/culture.py` measures how often each is right.

A text is cut into words once and each word is looked up once; the few patterns begin with a digit, a currency sign or a
capital, so that the search skips to those.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from babel import Locale

from ultralink_nb.embedding import sample_text

LONGEST = 4000  # characters of an answer that are read


@dataclass(frozen=True)
class Cue:
    """One sign of a criterion (see `sifting.CRITERIA`): the rule's name, and the words of the text that it found, verbatim."""

    criterion: str
    rule: str
    quote: str


# rule → (criterion, words and pairs of words in lower case); a word may stand under one rule only
_COUNTRIES = ",".join(
    name for code, name in Locale("en").territories.items() if len(code) == 2 and code not in ("AQ", "ZZ", "EU", "UN", "XA", "XB")
)
_LEXICON: dict[str, tuple[str, str]] = {
    "country": ("places", "usa,america,united states,great britain,england,scotland,wales,soviet union," + _COUNTRIES),
    "people": ("places", """
        american, americans, british, english, scottish, irish, french, german, italian, spanish, portuguese, dutch, belgian,
        swiss, austrian, polish, russian, ukrainian, turkish, greek, roman, egyptian, arab, arabic, israeli, hebrew, persian,
        iranian, indian, hindi, pakistani, bengali, chinese, mandarin, cantonese, japanese, korean, vietnamese, thai,
        indonesian, filipino, australian, african, nigerian, ethiopian, kenyan, mexican, brazilian, cuban, canadian, hawaiian,
        latin, european, asian, viking, celtic, norwegian, swedish, danish, finnish"""),
    "city": ("places", """
        london, manchester, liverpool, dublin, paris, lyon, berlin, munich, hamburg, vienna, rome, venice, milan, florence,
        naples, madrid, barcelona, lisbon, amsterdam, brussels, zurich, geneva, stockholm, oslo, copenhagen, helsinki, warsaw,
        prague, budapest, athens, istanbul, moscow, kiev, kyiv, cairo, jerusalem, dubai, baghdad, tehran, mumbai, delhi,
        kolkata, bangkok, beijing, shanghai, tokyo, kyoto, osaka, seoul, manila, sydney, melbourne, auckland, nairobi, lagos,
        toronto, montreal, vancouver, new york, nyc, manhattan, brooklyn, los angeles, san francisco, seattle, chicago, boston,
        houston, dallas, austin, miami, denver, philadelphia, las vegas, new orleans, washington, hollywood, alabama, alaska,
        arizona, california, colorado, florida, hawaii, texas, ohio, michigan, oregon, virginia, nevada, utah, iowa, kansas,
        kentucky, tennessee, minnesota, wisconsin, illinois, pennsylvania, massachusetts, new jersey, north carolina, europe,
        asia, africa, siberia"""),
    "locality": ("places", """
        directions, neighborhood, downtown, avenue, boulevard, highway, freeway, motorway, county, province, zip code, beach,
        island, travel, trip, vacation, tourist, tourists, sightseeing, itinerary, landmark, landmarks, airbnb, countries,
        capital, states"""),
    "holiday": ("conventions", """
        thanksgiving, christmas, halloween, easter, hanukkah, ramadan, diwali, super bowl, independence day, labor day, memorial
        day, new year, presidents day, valentine, valentines, santa, santa claus, black friday, prom, homecoming, quinceanera,
        oktoberfest, mardi gras"""),
    "politics": ("conventions", """
        president, presidents, congress, senate, senator, democrat, democrats, republican, republicans, parliament, prime
        minister, monarchy, queen, king, emperor, constitution, amendment, supreme court, federal, election, elections,
        government, minister, legislation, statute, statutes, lawsuit, attorney, police, military, army, war, empire, colony,
        colonial, colonized, declaration, treaty, revolution, civil rights, patriot, nazi, communism, conservative, liberal"""),
    "religion": ("conventions", """
        god, jesus, christ, christian, christians, christianity, bible, biblical, church, catholic, protestant, pope, priest,
        baptist, muslim, muslims, islam, quran, mosque, jewish, judaism, torah, buddha, buddhism, buddhist, hindu, hinduism,
        zodiac, horoscope, astrology, tarot"""),
    "institution": ("conventions", """
        irs, medicare, medicaid, social security, fda, epa, cdc, fbi, cia, nasa, nhs, gpa, high school, middle school,
        elementary school, college, freshman, sophomore, credit score, credit card, credit cards, tax, taxes, social services,
        green card, real estate, mortgage"""),
    "money": ("conventions", "dollar,dollars,cents,pence,penny,usd,gbp,bucks,rupees,rupee,euros,pesos,yen"),
    "measure": ("conventions", """
        mile, miles, mph, mpg, feet, inch, inches, lbs, ounce, ounces, oz, gallon, gallons, acre, acres, yards, tbsp,
        tablespoon, tablespoons, tsp, teaspoon, teaspoons, fahrenheit, cup, cups, pint"""),
    "verse": ("expressions", """
        poem, poems, poet, poets, poetry, haiku, limerick, limericks, rhyme, rhymes, rhyming, sonnet, lyrics, verse, ballad,
        rap, stanza"""),
    "wordplay": ("expressions", """
        pun, puns, joke, jokes, riddle, riddles, slang, idiom, idioms, proverb, proverbs, acronym, anagram, palindrome, tongue
        twister, sarcastic, witty, funny, slogan, slogans, catchphrase, nickname, hashtags, hashtag"""),
    "language": ("expressions", """
        letter, letters, vowel, vowels, consonant, consonants, spelling, spell, grammar, grammatical, grammatically,
        punctuation, pronunciation, pronounce, phonetic, synonym, synonyms, antonym, antonyms, syllable, syllables, alphabet,
        alphabetical, dictionary, crossword, adjective, adjectives, adverb, adverbs, verb, verbs, noun, nouns, prefix, suffix,
        accent, dialect, native speaker, homophone, homophones"""),
    "food": ("material_things", """
        recipe, recipes, dish, dishes, cuisine, restaurant, restaurants, sauce, cocktail, cocktails, drinks, beef, turkey,
        cheese, bread, pie, burger, pizza, pasta, sushi, taco, tacos, curry, barbecue, bbq, whiskey, beer, wine, brunch, bagel,
        pancake, pancakes, cookies, biscuit, cornbread, casserole"""),
    "works": ("material_things", """
        movie, movies, film, films, series, sitcom, show, episode, season, novel, books, book, song, songs, album, band,
        musical, broadway, comic, comics, anime, manga, superhero, superheroes, trilogy, sequel, soundtrack, cartoon, starring,
        starred, fairy tale, fiction"""),
    "games": ("material_things", """
        game, games, gaming, nintendo, playstation, xbox, pokemon, pokémon, minecraft, dungeons, wizard, chess, baseball,
        basketball, football, nfl, nba, mlb, nhl, hockey, cricket, rugby, golf, league, team, championship, olympics, olympic,
        player, players"""),
    "artist": ("full_names", """
        actor, actors, actress, actresses, singer, singers, rapper, musician, musicians, director, directed, celebrity,
        celebrities, author, authors, comedian, novelist, playwright, painter, philosopher, athlete, athletes, biography,
        famous, character, characters, starred in"""),
    "brand": ("organisations", """
        google, amazon, twitter, tweet, tweets, facebook, instagram, tiktok, youtube, linkedin, yelp, walmart, costco, netflix,
        disney, apple, microsoft, tesla, ford, toyota, bmw, ikea, nike, adidas, starbucks, uber, reddit, spotify, ebay, etsy,
        paypal, samsung, sony, lego, pepsi, coke, coca cola, brand, brands, product, products"""),
    "organisation": ("organisations", """
        university, universities, inc, llc, ltd, corp, corporation, company, companies, bank, newspaper, magazine, guardian,
        forbes, bbc, cnn, unesco, unicef, nonprofit, charity, startup, airline, airlines, hospital, association, foundation,
        institute"""),
    "software": ("code_or_formulas", """
        python, javascript, java, html, css, sql, code, coding, function, functions, script, api, linux, server, servers,
        database, algorithm, algorithms, programming, software, typescript, react, json, xml, class, variable, variables, array,
        string, git, docker, aws, azure, kernel, compiler, debug, app, apps, website, neural, machine learning, data, model,
        models, statistical, regression"""),
    "formula": ("code_or_formulas", """
        equation, equations, formula, theorem, proof, derivative, integral, matrix, vector, vectors, polynomial, prime,
        calculate, probability, variance, geometry, algebra, calculus, physics, quantum, molecule, chemical, protein, energy"""),
}
_WORD = re.compile(r"[^\W\d_]+")
_RULE_OF = {
    " ".join(_WORD.findall(words.lower())): rule
    for rule, (_, listed) in reversed(_LEXICON.items()) for words in listed.split(",")
}
_OPENERS = frozenset(words.partition(" ")[0] for words in _RULE_OF if " " in words)
_NAME = re.compile(  # capitals within a sentence: “… of Rick Astley's”, not what opens a sentence, a line or a quotation
    r"[A-ZÀ-Þ](?<=[\w,;)’'] .)[a-zß-ÿ]+(?:(?:-| (?:(?:of|the|de|la|van|von|del|da) )?)[A-ZÀ-Þ][\wß-ÿ]*\.?)*"
)
_CAPITALS = re.compile(r"[A-Z](?<!\w.)[A-Z]+")
_FORMS: dict[str, tuple[str, re.Pattern[str]]] = {  # each begins with a set of characters that the search can skip to
    "price": ("conventions", re.compile(r"[$£](?=\s?\d)\s?[\d.,]*\d(?![\w^_\\]|[^$\n]{0,40}\$(?!\d))")),
    "quantity": ("conventions", re.compile(
        r"\d(?:[\d.,/]*\d)?[ -]?(?:miles?|mph|mpg|feet|ft|inch(?:es)?|lbs?|ounces?|oz|gallons?|cups?|tbsps?|tsps?|teaspoons?"
        r"|tablespoons?|acres?|° ?F|degrees Fahrenheit|F)\b")),
    "address": ("places", re.compile(
        r"\d+ (?:[NSEW]\.? )?[A-Z]\w+(?: [A-Z]\w+)? (?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Way)\b"
    )),
    "code_block": ("code_or_formulas", re.compile(r"[`~$\\](?:(?<=`)``|(?<=~)~~|(?<=\$)\$|(?<=\\)(?:[\[(]|begin\{))")),
    "year_title": ("material_things", re.compile(r"\((?:19|20)\d\d\)")),
}
RULES = (*_LEXICON, *_FORMS)
CRITERION = {rule: criterion for rule, (criterion, _) in (*_LEXICON.items(), *_FORMS.items())}
SURE = ("price", "quantity", "address", "holiday", "code_block")  # rules that refuse a chat by themselves
_THEMES = {  # what the classifier counts together: with a few hundred labels, twenty-five counts are too many
    "places": ("country", "people", "city", "address"), "travel": ("locality",), "feasts": ("holiday", "religion"),
    "institutions": ("politics", "institution"), "money_measures": ("money", "measure", "price", "quantity"),
    "verse": ("verse", "wordplay"), "language": ("language",), "food": ("food",),
    "works": ("works", "games", "artist", "year_title"), "brands": ("brand", "organisation"),
    "technical": ("software", "formula", "code_block"),
}
_SHAPE = ("names", "full_names", "name_share", "words", "digits", "capitals", "quotations")
FEATURES = tuple(f"{part}_{name}" for part in ("question", "answer") for name in (*_SHAPE, *_THEMES))


def _hits(text: str) -> Iterator[tuple[str, str]]:
    """(rule, word or pair of words in lower case) for every entry of the lists that stands in the text."""
    words = _WORD.findall(text.lower())
    for word in words:
        if word in _RULE_OF:
            yield _RULE_OF[word], word
    if not _OPENERS.isdisjoint(words):
        for pair in zip(words, words[1:], strict=False):
            if pair[0] in _OPENERS and (both := " ".join(pair)) in _RULE_OF:
                yield _RULE_OF[both], both


def _quote(words: str, text: str) -> str | None:
    """Where words of the lists, in lower case, stand in a text, as the text writes them."""
    inside = words.replace(" ", r"[\W\d_]+")
    found = re.search(rf"(?<![^\W\d_]){inside}(?![^\W\d_])", text, re.IGNORECASE)
    return found and found[0]


def find_cues(text: str, rules: Sequence[str] = RULES) -> list[Cue]:
    """Every cue in a text, each quote once, by rule in the order of `rules`."""
    found: dict[str, list[str]] = {
        rule: [match[0] for match in pattern.finditer(text)] for rule, (_, pattern) in _FORMS.items() if rule in rules
    }
    for rule, words in _hits(text) if not _LEXICON.keys().isdisjoint(rules) else ():
        if rule in rules and (quote := _quote(words, text)):
            found.setdefault(rule, []).append(quote)
    return [Cue(CRITERION[rule], rule, quote) for rule in rules for quote in dict.fromkeys(found.get(rule, ()))]


def _counts(text: str) -> list[float]:
    """One number for each of `_SHAPE` and `_THEMES`: logarithms of counts, since the tenth name says less than the first."""
    words, names = text.count(" ") + 1, _NAME.findall(text)
    names = [name for name in names if _RULE_OF.get(name.lower()) not in _THEMES["technical"]]
    rules = Counter(rule for rule, _ in _hits(text))
    rules.update({rule: len(pattern.findall(text)) for rule, (_, pattern) in _FORMS.items()})
    counts = [
        len(names), sum(" " in name for name in names), 0, words, sum(map(text.count, "0123456789")),
        len(_CAPITALS.findall(text)), sum(map(text.count, '"“”')),
        *(sum(rules[rule] for rule in theme) for theme in _THEMES.values()),
    ]
    logs = np.log1p(counts).tolist()
    logs[_SHAPE.index("name_share")] = len(names) / max(words, 3)
    return logs


def features(texts: Sequence[tuple[str, str]]) -> np.ndarray:
    """What the classifier reads, shape (n, len(FEATURES)), float32, of n (question, answer); an answer may be empty."""
    rows = [[*_counts(question[:LONGEST]), *_counts(answer[:LONGEST])] for question, answer in texts]
    return np.array(rows, np.float32).reshape(len(rows), len(FEATURES))


def parts(sample: Mapping) -> tuple[str, str]:
    """(question, answer) of a sample as the classifier reads it: the first message of the user and what answers it."""
    return sample_text(sample, "question"), sample_text(sample, "answer")


def sure_cue(sample: Mapping, rules: Collection[str] = SURE) -> Cue | None:
    """The first cue by which a chat is refused without asking a model; None for a sample of another kind.

    Word problems are full of dollars and code samples of code, so rules do not judge them. Words are looked for in what the
    user wrote, since an answer may give an example in dollars; a block of code or a formula in any message.
    """
    if not sample["kind"].startswith("chat"):
        return None
    asked = "\n\n".join(message["content"] for message in sample["messages"] if message["role"] == "user")
    found = find_cues(asked, [rule for rule in RULES if rule in rules])
    if found or "code_block" not in rules:
        return found[0] if found else None
    blocks = (find_cues(message["content"], ["code_block"]) for message in sample["messages"] if message["role"] != "user")
    return next((cues[0] for cues in blocks if cues), None)
