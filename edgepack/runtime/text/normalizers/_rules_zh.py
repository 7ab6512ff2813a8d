"""Rules that correct the Chinese grammar; digits that it then reads correctly stay digits."""

import re
import unicodedata

from edgepack.runtime.text.normalizers._rules import one_by_one, roman, rules

_NAMES = "零一二三四五六七八九"
_PHONE_NAMES = "零幺二三四五六七八九"
_CURRENCIES = {
    "$": "美元", "US$": "美元", "USD": "美元", "HK$": "港元", "NT$": "新台币", "S$": "新加坡元",
    "A$": "澳元", "C$": "加元", "￥": "元", "¥": "元", "RMB": "元", "CNY": "元", "€": "欧元",
    "EUR": "欧元", "£": "英镑", "GBP": "英镑", "₩": "韩元", "₽": "卢布", "₹": "卢比", "฿": "泰铢",
}  # fmt: skip
_UNITS = {
    "㎡": "平方米", "m2": "平方米", "㎢": "平方千米", "km2": "平方千米", "㎠": "平方厘米",
    "㎥": "立方米", "m3": "立方米", "㎞": "千米", "㎝": "厘米", "㎜": "毫米", "㎏": "千克",
    "㎎": "毫克", "㎖": "毫升", "㏄": "毫升", "℉": "华氏度", "°F": "华氏度", "mmHg": "毫米汞柱",
    "kWh": "千瓦时", "kPa": "千帕", "MPa": "兆帕", "mAh": "毫安时", "rpm": "转每分钟",
}  # fmt: skip
_LENGTHS = {"m": "米", "cm": "厘米", "mm": "毫米", "km": "千米"}
_SIGNS = {
    "@": "艾特", ".": "点", "_": "下划线", "-": "杠", "/": "斜杠", ":": "冒号", "?": "问号",
    "=": "等于", "&": "和", "#": "井号", "%": "百分号", "~": "波浪号", "+": "加",
}  # fmt: skip
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_ROMANS = "[\u2160-\u217f]"
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,8})?"
_GROUPED = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})(?:\.[0-9]{1,8})?"
_LABELS = (
    "分机|房间号|房号|门牌号|验证码|校验码|密码|口令|邮编|邮政编码|尾号|工号|学号|编号|单号|订单号|"
    "快递单号|卡号|账号|帐号|QQ|QQ号|微信号|群号|代码|证号|身份证|证件号|号码|序列号|车次|会议号|会员号|"
    "电话|热线"
)
# Measure words: a number before one of these is a count.
_COUNTED = (
    "年月日元块万亿个位次条行字家张台分秒天多余层米人级倍种款吨度瓦亩页岁周件只支辆套场股美%.,"
)
_WON = "获胜|取胜|击败|战胜|大胜|险胜|完胜|力克|胜|负|落败|惜败|领先|落后|战平|逆转|打平|的比分"


def _number(value: int) -> str:
    """A whole number below 100,000,000 in Chinese characters."""
    if value >= 10_000:
        rest = value % 10_000
        joined = "" if not rest else _number(rest) if rest >= 1000 else "零" + _number(rest)
        return f"{_number(value // 10_000)}万{joined}"
    words, zero = "", False
    for digit, unit in zip(f"{value:04}", "千百十 ", strict=True):
        if digit == "0":
            zero = bool(words)
            continue
        words += ("零" if zero else "") + _NAMES[int(digit)] + unit.strip()
        zero = False
    return (words[1:] if words.startswith("一十") else words) or "零"


def _digits(text: str) -> str:
    return re.sub("[0-9]", lambda found: _NAMES[int(found[0])], text)


def _said_digits(text: str) -> str:
    """With the 1 that is said on a telephone."""
    return re.sub("[0-9]", lambda found: _PHONE_NAMES[int(found[0])], text)


def _address(found: re.Match[str]) -> str:
    """An e-mail or web address, character by character."""
    return "".join(_SIGNS.get(c, c) for c in _digits(found[0]))


def _money(found: re.Match[str]) -> str:
    value = re.sub(r"\.0+$", "", found[2].replace(",", ""))
    upper = f"到{found[3].replace(',', '')}" if found[3] else ""
    return f"{value}{upper}{found[4]}{_CURRENCIES[found[1].upper()]}"


def _numeral(found: re.Match[str]) -> str:
    return _number(roman(unicodedata.normalize("NFKC", found[0]).upper()))


def _version(found: re.Match[str]) -> str:
    return found[1] + "点".join(_number(int(part)) for part in found[2].split("."))


def _score(found: re.Match[str]) -> str:
    return f"{_number(int(found[1]))}比{_number(int(found[2]))}"


def _labelled(found: re.Match[str]) -> str:
    """A number that is a name, after the word for it."""
    said = found[1].endswith(("电话", "热线", "分机", "转"))
    digits = one_by_one(found[3], _PHONE_NAMES if said else _NAMES)
    return f"{found[1]}{found[2]}{digits}"


def _any(names: dict[str, str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


RULES = rules(
    (f"{_ROMANS}{{1,8}}", _numeral),
    (
        r"(?<=第)[IVX]{1,6}(?![A-Za-z])|(?<=[一-鿿])(?:[VX]?I{1,3}|I[VX]|X[IVX]{1,4})(?=[世型期级类])",
        _numeral,
    ),
    (r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}", _address),
    (
        r"(?<![\w.-])(?:https?://[\w.-]{1,200}|(?:[\w-]{1,63}\.){1,6}"
        r"(?:com|cn|org|net|io|edu|gov|ai|cc|me|co|app|dev)(?![\w-]))"
        r"(?::[0-9]{1,5})?(?:/[\w./?=&#%~+-]{0,200}(?<![.?]))?",
        _address,
    ),
    # Money: a sign before the number is a word behind it, with or without that word.
    (
        rf"(?i:(?<![A-Z])({_any(_CURRENCIES)})) ?({_GROUPED})(?:[-~～](?:[$￥¥€£])?({_GROUPED}))?"
        rf"([万亿千百]{{0,2}})(?:美元|元|块钱?|欧元|英镑|港元)?(?![0-9])",
        _money,
    ),
    (rf"({_NUMBER}) ?€", r"\1欧元"),
    (rf"({_NUMBER})‰", r"千分之\1"),
    (
        r"(?<![0-9/])([0-9]{2,3})/([0-9]{2,3}) ?(?:mmHg|毫米汞柱)",
        lambda m: f"{_number(int(m[1]))}、{_number(int(m[2]))}毫米汞柱",
    ),
    (
        r"(血压[^0-9]{0,4})([0-9]{2,3})/([0-9]{2,3})(?![0-9/])",
        lambda m: f"{m[1]}{_number(int(m[2]))}、{_number(int(m[3]))}",
    ),
    (
        r"(?<=[约近超逾])([0-9]{1,4})/([0-9]{1,4})(?![0-9/])",
        lambda found: f"{_number(int(found[2]))}分之{_number(int(found[1]))}",
    ),
    (rf"({_NUMBER}) ?({_any(_UNITS)})(?![A-Za-z0-9])", lambda m: m[1] + _UNITS[m[2]]),
    # Ranges, scores, sizes, signs of arithmetic.
    (rf"({_NUMBER})%?[-–~～—]({_NUMBER})%", r"\1%到\2%"),
    (rf"([0-9]{{1,3}})[-–]([0-9]{{1,3}})(?={_WON})", _score),
    (
        r"(?<![0-9])((?:1[0-9]|20)[0-9]{2})[-–]((?:1[0-9]|20)[0-9]{2})(?=学年|财年|赛季)",
        lambda m: f"{_digits(m[1])}到{_digits(m[2])}",
    ),
    (r"(比分[^0-9]{0,4})([0-9]{1,3})[-–]([0-9]{1,3})(?![0-9])", r"\1\2比\3"),
    (r"(?<=[0-9]) ?[xX*×] ?(?=[0-9])", "乘"),
    (rf"(?<=乘)({_NUMBER}) ?([cmk]?m)(?![A-Za-z0-9])", lambda m: m[1] + _LENGTHS[m[2]]),
    (r"(?<=[0-9]) ?÷ ?(?=[0-9])", "除以"),
    (r"± ?(?=[0-9])", "正负"),
    (r"≥ ?(?=[0-9])", "大于等于"),
    (r"≤ ?(?=[0-9])", "小于等于"),
    (r"≈ ?(?=[0-9])", "约等于"),
    (
        rf"((?:结束|战成|逼平)[^0-9]{{0,4}})([0-9]{{1,3}})[-–]([0-9]{{1,3}})(?=[，。,；！]|$|{_WON})",
        r"\1\2比\3",
    ),
    # Numbers that identify something: rooms, buses, flights.
    (r"\+([0-9]{1,3})[ -]?(?=1[0-9]{10}(?![0-9]))", lambda m: f"加{_digits(m[1])}，"),
    (r"(?<=[A-Z])2(?![0-9.,%])|2(?=单元)", "二"),
    (
        rf"(?:(?<=单元)|(?<=[栋座幢楼]))[1-9][0-9]{{2,3}}(?![0-9{_COUNTED}])",
        lambda m: _digits(m[0]),
    ),
    (
        r"(?<![0-9])[(（]0[0-9]{2,3}[)）] ?[0-9]{3,4}[- ]?[0-9]{4}(?![0-9])",
        lambda m: one_by_one(m[0], _PHONE_NAMES),
    ),
    (r"(?<![0-9.])[1-9][0-9]{2}(?=中学|医院|国道|省道|高速)", lambda m: _digits(m[0])),
    (r"(?<=波音)[0-9]{3}(?![0-9])", lambda m: _digits(m[0])),
    (r"(?<=[0-9])′", "分"),
    (r"(?<=[0-9])″", "秒"),
    (rf"(?<=[{_PROVINCES}])[A-Z][·. ]?[A-Z0-9]{{5,6}}(?![A-Z0-9])", lambda m: _digits(m[0])),
    (r"(?<![A-Za-z0-9])([vV]) ?([0-9]{1,8}(?:\.[0-9]{1,8}){1,5})(?![0-9])", _version),
    (r"\bN[oO]\. ?(?=[0-9])", "第"),
    (
        rf"({_LABELS})((?:号码?|是|为|[：:]| ){{0,3}})([0-9]{{3,20}})(?![0-9{_COUNTED}-])",
        _labelled,
    ),
    (
        r"(?:(?<=[0-9])|(?<=拨)|(?<=请))转[0-9]{2,6}(?![0-9.])|转[0-9]{3,6}(?=分机)",
        lambda m: _said_digits(m[0]),
    ),
    (r"(?<![0-9.])[0-9]{12,18}[Xx]?(?![0-9.])", lambda m: _digits(m[0])),
    (r"(?<![0-9.])[0-9]{3,4}(?=室|房间|号房|教室|会议室|病房|包厢|包间)", lambda m: _digits(m[0])),
    (r"(?<![0-9.])[1-9](?!00)[0-9]{2}(?=路(?:公交|车|巴士|汽车))", lambda m: _digits(m[0])),
    (r"(?<![A-Za-z0-9.])[0-9]{3,4}(?=[pP](?![A-Za-z]))", lambda m: _digits(m[0])),
    (r"(?:(?<=[A-Z])|(?<=[a-z]{2}))[-–](?=[0-9])", ""),
    (
        r"(?<![A-Za-z])([GDCKTZ])([0-9]{3,4})(?=次|列车|高铁|动车)",
        lambda m: m[1] + _said_digits(m[2]),
    ),
    (rf"(?<=[A-Z])[0-9]{{3,20}}(?![0-9{_COUNTED}])", lambda m: _digits(m[0])),
    (
        rf"(?:(?<=HTTP)|(?<=[RG]TX))( )([0-9]{{3,4}})(?![0-9{_COUNTED}])",
        lambda m: m[1] + _digits(m[2]),
    ),
)
