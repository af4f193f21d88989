"""Text that breaks programs, for tests of everything that reads or shows text."""

from hypothesis import strategies as st

NASTY = (
    "",
    " ",
    "\ufeffbyte order mark",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f",
    "lone \ud800 surrogates \udfff and a pair \ud83d\ude00",
    "\u202eoverride \u2066isolate never closed",
    "[red]markup[/red] [/] [link=x] :smile: [bold",
    "costs $5 or $6, x_1^2 \\alpha \\frac{1}{2} \\",
    "{braces} % comment ~ & # ^ _ _emphasis_ *bold* **both** `code` ``",
    "| pipes | and \\| escaped ones |",
    "# heading",
    "1. list",
    "- list\n\n> quote\n\tcode",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</script><!-- <script> --> ]]> &amp; &#60; &lt",
    "line\u2028separator\u2029paragraph\x85next\r\nwindows",
    "\"double\" and 'single' quotes",
    "http://example.org/?a=b&c=d www.example.org someone@example.org",
    "Pneumonoultramicroscopicsilicovolcanoconiosis" * 5,
    "一只狗在草地上奔跑，旁边有一个孩子在看着它玩耍一只狗在草地上奔跑",
    "犬が走る カタカナ 한국어 문장",
    "कुत्ता दौड़ रहा है ਪੰਜਾਬੀ தமிழ் ไทยไม่มีช่องว่าง",
    "كلب يركض في الحديقة (parentheses) שלום עולם 123",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ❤️ 🇩🇪 #️⃣",
    "zalgo z̸̢̛͓̈́a̷̧͎͐l̵̰͂g̶̣̽o̴̻͌",
    "ﬁ ½ ² K Å µ ſ ǆ ß İ",
    "\u200bzero\u200bwidth\u00adhyphen\u2060",
    "non\u00a0breaking thin\u2009space ideographic\u3000space",
    "\ufffe\uffff\U0001ffff noncharacters",
    "private \ue000\U000f0000 use",
    "=1+1",
    "NaN",
    "C:\\temp\\new.txt ../../etc/passwd CON",
    "!important [a](b) ![c](d) [e]: f ~~g~~ h@i :j: {k}",
)


def nasty_text(max_size: int = 60) -> st.SearchStrategy[str]:
    """One of the above, a piece of several, or anything at all, lone surrogates included."""
    anything = st.text(st.characters(exclude_categories=()), max_size=max_size)
    specials = st.text("\\|`*_{}[]()<>#+-.!~$%&^\"'@:=\n\t \ufeff\x00\u2028字é\ud800", max_size=max_size)
    several = st.lists(st.sampled_from(NASTY), min_size=2, max_size=3).map(lambda parts: "".join(p[:20] for p in parts))
    return st.one_of(st.sampled_from(NASTY), specials, several, anything)
