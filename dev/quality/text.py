"""Write the text of the quality gates: articles of the English Wikipedia.

    python text.py gensim-….whl DIR

gensim's package has the beginning of a dump of 2016 (CC BY-SA) among its test data.
DIR/text.txt gets the prose of the first articles, DIR/calibration.txt that of later
ones. Both are the same wherever this runs.
"""

import argparse
import bz2
import hashlib
import html
import pathlib
import re
import xml.etree.ElementTree
import zipfile

DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SIZES = {"text.txt": 600_000, "calibration.txt": 200_000}  # characters
SHA256 = {
    "text.txt": "75b141190b5dd448684fae9230a0cf6e0ea027d16dd3652033f07274443f4204",
    "calibration.txt": "1ea611a4f2d0d6976f872a83b1b84b028264167ab2f80881e4815a5545807468",
}


def replace_all(pattern, replacement, text):
    """Replace what is nested, too: from the inside out."""
    while True:
        replaced = re.sub(pattern, replacement, text)
        if replaced == text:
            return text
        text = replaced


def prose(wikitext):
    """Return the paragraphs of an article, without markup."""
    t = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>", "", wikitext, flags=re.DOTALL)
    t = replace_all(r"\{\{[^{}]*\}\}", "", t)
    t = re.sub(r"\{\|.*?\|\}", "", t, flags=re.DOTALL)
    t = replace_all(r"\[\[(?:File|Image|Category):[^\[\]]*\]\]", "", re.sub(r"\[\[(?!File:|Image:|Category:)(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", t))
    t = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", t)
    t = html.unescape(re.sub(r"'{2,}|<[^>]+>", "", t))
    lines = (line.strip() for line in t.split("\n"))
    return "\n".join(line for line in lines if len(line) >= 200 and line[0] not in "*#:;|!=")


def articles(wheel):
    with zipfile.ZipFile(wheel).open(DUMP) as packed, bz2.open(packed) as dump:
        for _, page in xml.etree.ElementTree.iterparse(dump):
            if page.tag.endswith("}page"):
                text = page.find(".//{*}text").text or ""
                if not text.startswith("#REDIRECT"):
                    yield f"= {page.find('.//{*}title').text} =\n{prose(text)}\n"
                page.clear()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("dir", type=pathlib.Path)
    args = parser.parse_args()
    whole = "\n".join(articles(args.wheel))
    for name, size in SIZES.items():
        text, whole = whole[:size].encode(), whole[size:]
        if (digest := hashlib.sha256(text).hexdigest()) != SHA256[name]:
            raise SystemExit(f"{name} has SHA-256 {digest}, not {SHA256[name]}")
        (args.dir / name).write_bytes(text)


if __name__ == "__main__":
    main()
