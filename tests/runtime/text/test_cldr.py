"""Numbers, dates, units and money of German, French, Spanish, Italian, Russian and Korean."""

import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_cases import cases

from edgepack.errors import UnsupportedError
from edgepack.runtime.text.normalization import Normalize, normalizer

LOCALES = ("de", "fr", "es", "it", "ru", "ko")

SPOKEN = {
    "de": [
        ("1.234 und 3,50", "eintausendzweihundertvierunddreißig und drei Komma fünf null"),
        ("bei -5 Grad, +3", "bei minus fünf Grad, plus drei"),
        ("15 % oder 15%", "fünfzehn Prozent oder fünfzehn Prozent"),
        ("7,49 € und $5", "sieben Euro und neunundvierzig Cent und fünf Dollar"),
        ("1 km, 1 t, 20 °C, 50 km/h", "ein Kilometer, eine Tonne, zwanzig Grad Celsius, "
         "fünfzig Kilometer pro Stunde"),
        ("1 Stunde, 1 Euro, 1 Uhr", "eine Stunde, ein Euro, ein Uhr"),
        ("um 14:30 Uhr oder 9.05 Uhr", "um vierzehn Uhr dreißig oder neun Uhr fünf"),
        ("am 3. Mai 1999", "am dritten Mai neunzehnhundertneunundneunzig"),
        ("am 24.12. um 8 Uhr", "am vierundzwanzigsten Dezember um acht Uhr"),
        ("Der 3. Mai", "Der dritte Mai"),
        ("bis 01.12.2024", "bis ersten Dezember zweitausendvierundzwanzig"),
        ("der 2. Versuch 2020. Danach", "der zweite Versuch zweitausendzwanzig. Danach"),
        ("10–20 kg", "zehn bis zwanzig Kilogramm"),
        ("030 23125 192", "null drei null, zwei drei eins zwei fünf, eins neun zwei"),
        ("gewann 3:1", "gewann drei zu eins"),
        ("192.168.0.1", "einhundertzweiundneunzig Punkt einhundertachtundsechzig Punkt null "
         "Punkt eins"),
        ("A4, 15.000-mal", "A vier, fünfzehntausend-mal"),
        ("Zeile 1,2,3", "Zeile eins,zwei,drei"),
        ("101.000", "einhunderteintausend"),
        ("1/2 Liter, 1/2 Stunde, 3/4 der Leute", "ein halb Liter, eine halbe Stunde, drei Viertel "
         "der Leute"),
        ("2 1/2 Stunden, 1½ l, ¾ km", "zweieinhalb Stunden, eineinhalb Liter, drei Viertel "
         "Kilometer"),
        ("-1/2, 24/7, 1/300", "minus ein halb, vierundzwanzig sieben, eins dreihundert"),
        ("1 Million, 1–2 Stunden", "eine Million, eine bis zwei Stunden"),
        ("-10 bis -5 °C, -10–-5 °C", "minus zehn bis minus fünf Grad Celsius, "
         "minus zehn bis minus fünf Grad Celsius"),
    ],
    "fr": [
        ("1\u202f500 m, 2 400 km", "mille cinq cents mètres, deux mille quatre cents kilomètres"),
        ("1 000 000 fois", "un million fois"),
        ("2,75 kg, 1,05", "deux virgule soixante-quinze kilogrammes, un virgule zéro cinq"),
        ("19,99 €, 1 £", "dix-neuf euros et quatre-vingt-dix-neuf centimes, une livre"),
        ("à 14 h 15, 14h05, 21 h", "à quatorze heures quinze, quatorze heures cinq, "
         "vingt et une heures"),
        ("le 1 mai, le 2 mai", "le premier mai, le deux mai"),
        ("2024-07-01", "premier juillet deux mille vingt-quatre"),
        ("le 14/07/1789", "le quatorze juillet mille sept cent quatre-vingt-neuf"),
        ("1er, 1re, 89e", "premier, première, quatre-vingt-neuvième"),
        ("01 99 00 45 12", "zéro un, quatre-vingt-dix-neuf, zéro zéro, quarante-cinq, douze"),
        ("4 min 08 s", "quatre minutes huit secondes"),
        ("10-20 Go", "dix à vingt gigaoctets"),
        ("1/2 litre, 1/2 heure, 2/3", "un demi litre, une demi heure, deux tiers"),
        ("2 1/2 h, 1½ kg, ¾ km", "deux heures et demie, un kilogramme et demi, trois quarts de "
         "kilomètre"),
        ("les 3/4, le 3/4, le 1/4, 5/8", "les trois quarts, le trois quatre, le un quart, "
         "cinq huitièmes"),
    ],
    "es": [
        ("1.234,5", "mil doscientos treinta y cuatro coma cinco"),
        ("21.000 y −3", "veintiún mil y menos tres"),
        ("1 €, 21 kg, 21 h, 500 libras", "un euro, veintiún kilogramos, veintiuna horas, "
         "quinientas libras"),
        ("25 °C, 12 %", "veinticinco grados Celsius, doce por ciento"),
        ("a las 14:30 y a la 1:15", "a las catorce y treinta y a la una y quince"),
        ("el 3 de mayo de 2024", "el tres de mayo de dos mil veinticuatro"),
        ("03/05/2024", "tres de mayo de dos mil veinticuatro"),
        ("2.º piso, 2ª vez, 3.er día", "segundo piso, segunda vez, tercer día"),
        ("1/2 litro, 1/2 hora, 1/2 taza", "medio litro, media hora, media taza"),
        ("2 1/2 h, 2 1/2 tazas, ¾ km", "dos horas y media, dos y media tazas, tres cuartos de "
         "kilómetro"),
        ("3/16, 5/12, 1/100", "tres dieciseisavos, cinco doceavos, un centésimo"),
        ("1 millón, 21 millones, 1-2 horas", "un millón, veintiún millones, una a dos horas"),
        ("1 1/2 litros, 1 1/2", "un litro y medio, uno y medio"),
    ],
    "it": [
        ("1.234,5", "milleduecentotrentaquattro virgola cinque"),
        ("1 km, 2 h, 21 kg", "un chilometro, due ore, ventuno chilogrammi"),
        ("2,75 €", "due euro e settantacinque centesimi"),
        ("12%, -5", "dodici percento, meno cinque"),
        ("alle 14:30", "alle quattordici e trenta"),
        ("1 maggio 2024", "primo maggio duemilaventiquattro"),
        ("03/05/2024", "tre maggio duemilaventiquattro"),
        ("1º e 2ª", "primo e seconda"),
        ("10–20 minuti", "dieci a venti minuti"),
        ("nel 2023, 23, 3.023.003", "nel duemilaventitré, ventitré, "
         "tre milioni e ventitremilatré"),
        ("3, 23.000, 23º, 23 €, 23,23", "tre, ventitremila, ventitreesimo, ventitré euro, "
         "ventitré virgola ventitré"),
        ("1/2 litro, 1/2 ora, 3/4", "mezzo litro, mezza ora, tre quarti"),
        ("2 1/2 ore, 2 1/2 tazze, ¾ km", "due ore e mezza, due e mezza tazze, tre quarti di "
         "chilometro"),
        ("1 milione", "un milione"),
    ],
    "ru": [
        ("1 234, 2,5 кг", "одна тысяча двести тридцать четыре, две целых пять десятых килограмма"),
        ("1 км, 2 км, 5 км", "один километр, два километра, пять километров"),
        ("21 мин, 2 минуты, 2 тысячи", "двадцать одна минута, две минуты, две тысячи"),
        ("12 %, 21%, 100,0 %", "двенадцать процентов, двадцать один процент, сто процентов"),
        ("2 ₽, 5 руб., $100", "два рубля, пять рублей, сто долларов"),
        ("в 14:30 или 10:05", "в четырнадцать тридцать или десять ноль пять"),
        ("3 мая 2024 г.", "третьего мая две тысячи двадцать четвёртого года"),
        ("03.05.2024", "третьего мая две тысячи двадцать четвёртого года"),
        ("в 2024 году", "в две тысячи двадцать четвёртом году"),
        ("3-й, 5-го, 2-я", "третий, пятого, вторая"),
        ("1/2 км, 3/4 л, 2/5", "половина километра, три четверти литра, две пятых"),
        ("2 1/2 часа, 1½ литра, 1½ минуты", "два с половиной часа, полтора литра, "
         "полторы минуты"),
        ("1–2 минуты", "одна – две минуты"),
        ("8 (495) 123-45-67", "восемь, четыре девять пять, один два три, четыре пять, шесть семь"),
    ],
    "ko": [
        ("1,234명 중 3.25%", "천이백삼십사명 중 삼 점 이오퍼센트"),
        ("19,900원, ₩500, 3 €", "만 구천구백원, 오백원, 삼 유로"),
        ("30km/h로 6km 구간", "시속 삼십킬로미터로 육킬로미터 구간"),
        ("2024년 6월 10일", "이천이십사년 유월 십일"),
        ("2024. 10. 6.", "이천이십사년 시월 육일"),
        ("오후 3시 20분, 15시", "오후 세 시 이십분, 십오시"),
        ("사과 3개, 20살, 5개월", "사과 세 개, 스무 살, 오개월"),
        ("1번째와 21번째", "첫 번째와 스물한 번째"),
        ("031-000-0143", "공삼일, 공공공, 공일사삼"),
        ("10~20kg, -5도", "십에서 이십킬로그램, 마이너스 오도"),
        ("408호", "사백팔호"),
        ("-5°C, 10~20°C", "섭씨 마이너스 오도, 섭씨 십에서 이십도"),
        ("-10~-5°C, -30km/h", "섭씨 마이너스 십에서 마이너스 오도, 시속 마이너스 삼십킬로미터"),
        ("1/2컵, 3/4, 2 1/2시간", "이분의 일컵, 사분의 삼, 이와 이분의 일시간"),
        ("1½, 3½", "일과 이분의 일, 삼과 이분의 일"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def readers() -> dict[str, Normalize]:
    return {locale: normalizer("cldr").open(locale, []) for locale in LOCALES}


@pytest.mark.parametrize(
    ("locale", "text", "spoken"),
    [(locale, *case) for locale, cases in SPOKEN.items() for case in cases],
)
def test_it_is_read_as_a_speaker_does(
    readers: dict[str, Normalize], locale: str, text: str, spoken: str
) -> None:
    assert readers[locale](text) == spoken


@pytest.mark.parametrize("locale", LOCALES)
def test_everyday_sentences_are_read_right(readers: dict[str, Normalize], locale: str) -> None:
    read = {case.text: readers[locale](case.text) for case in cases(locale)}
    assert len(read) > 20
    assert {c.text: read[c.text] for c in cases(locale) if not c.is_read_by(read[c.text])} == {}


@pytest.mark.parametrize("locale", LOCALES)
def test_long_runs_and_leading_zeros_are_read_digit_by_digit(
    readers: dict[str, Normalize], locale: str
) -> None:
    digits = [readers[locale](digit) for digit in "0123456789"]
    words = readers[locale]("1234567890" * 3)
    assert re.sub(r"\W", "", words) == "".join(digits[1:] + digits[:1]) * 3
    assert re.sub(r"\W", "", readers[locale]("x 007")) == "x" + re.sub(
        "영" if locale == "ko" else "(?!)", "공", digits[0] * 2 + digits[7]
    )


@pytest.mark.parametrize("locale", LOCALES)
def test_a_day_that_no_month_has_is_read_as_numbers(
    readers: dict[str, Normalize], locale: str
) -> None:
    spoken = readers[locale]("31.02.2024")
    assert not re.search(r"\d", spoken)
    assert not re.search("Februar|février|febrero|febbraio|февраля|월", spoken)


PIECES = st.sampled_from(
    [
        *"0123456789.,:;-–/%+~$€¥() ºª\t\n", "km", "m²", "°C", "h", " Uhr", " de mayo ", ". Mai ",
        " мая ", " года", "월", "시", "개", "er", "-й", "é", "٣", "１", "²", "½", "\u202f", "руб.",
        "EUR ", "der ", "\x00", "\ud83d", "9" * 40,
    ]
)  # fmt: skip
QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=60)


@pytest.mark.parametrize("locale", LOCALES)
@QUICK
@given(st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=40)))
@example("0 000,000 %")
@example("9" * 5000)
@example("0. mai 0000")
def test_any_text_is_read_and_no_digit_is_left(
    readers: dict[str, Normalize], locale: str, text: str
) -> None:
    assert not re.search(r"\d", readers[locale](text))


@pytest.mark.parametrize("locale", LOCALES)
@QUICK
@given(st.text(st.characters(exclude_categories=["Nd", "No"]), max_size=60))
def test_text_without_a_digit_is_unchanged(
    readers: dict[str, Normalize], locale: str, text: str
) -> None:
    assert readers[locale](text) == text


def test_text_around_a_number_is_kept(readers: dict[str, Normalize]) -> None:
    assert readers["de"](" Hallo,\n  7!  ") == " Hallo,\n  sieben!  "


def test_an_unknown_locale_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="'xx'; known: de, fr, es, it, ru, ko"):
        normalizer("cldr").open("xx", [])


@pytest.mark.parametrize("library", ["babel", "num2words"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UnsupportedError, match="pip install num2words Babel"):
        normalizer("cldr").open("de", [])
