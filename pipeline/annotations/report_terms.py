"""The words of English radiology reports that the parser knows: organs and their parts, lesions, looks, negation.

In: spelled-out text (see `report_sizes`). Out: places, counts and looks that it names. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.annotations.findings import PHASES, REGIONS, UNCOUNTED, Attenuation, Margin
from pipeline.annotations.report_sizes import NUMBER_WORDS

_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8"}
_ID = r"(?:viii|vii|vi|iv|iii|ii|i|v|[1-8]|one|two|three|four|five|six|seven|eight)[ab]?\b(?!\s*[cm]m\b|\.\d)"
_SEGMENTS = re.compile(
    rf"\b(?:couinaud\s+)?(?:(?:segments?|segs?\.?)\s*-?\s*|s(?=[1-8]))({_ID}(?:\s*(?:,\s*and|[/,&-]|and|or)\s*{_ID})*)"
)
# A part of an organ is replaced by one token `@region`, spaces as underscores, so that no later rule cuts it apart.
_PARTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), token)
    for pattern, token in (
        (r"\b(right|left) (?:(?:hepatic|liver) )?lobe\b(?! of the (?:thyroid|prostate))", r"@\1_lobe"),
        (r"\b(right|left) (?:lateral |medial |anterior |posterior )(?:segments?|sectors?|section)\b", r"@\1_lobe"),
        (r"\b(?:right|left)?\s*(?:hepatic )?caudate(?: lobe)?\b", " @caudate_lobe"),
        (r"\bhepatic flexure\b", "@hepatic_flexure"),
        (r"\bsplenic flexure\b", "@splenic_flexure"),
        (r"\b(?:recto-?sigmoid(?: junction)?|sigmoid)(?: colon)?\b", "@sigmoid"),
        (r"\b(ascending|transverse|descending) colon\b", r"@\1"),
        (r"\bca?ecum\b|\bca?ecal\b", "@cecum"),
        (r"\brectum\b|\brectal\b", "@rectum"),
        (r"\buncinate(?: process)?\b", "@uncinate_process"),
        (r"\bpancreatic (head|neck|body|tail)\b", r"@\1"),
        (r"\b(head|neck|body|tail)(?= (?:of (?:the )?)?pancreas\b)", r"@\1"),
        (r"\b(?:upper|superior)(?:-| )?pol(?:e|ar)\b(?: region)?", "@upper_pole"),
        (r"\b(?:lower|inferior)(?:-| )?pol(?:e|ar)\b(?: region)?", "@lower_pole"),
        (r"\b(?:interpolar|mid(?:dle)?[- ]?pole|mid[- ]?polar|midportion)\b(?: region)?", "@interpolar"),
    )
)
_PANCREAS_PART = re.compile(r"(?<![@\w])(head|neck|body|tail)\b")
_KIDNEY_SIDE = re.compile(r"(?<![@\w])(right|left)\b(?!_| (?:adrenal|lobe|hepatic|colon|portal|lateral|ovar|lung))")

ORGAN_WORDS: dict[str, re.Pattern[str]] = {
    organ: re.compile(pattern)
    for organ, pattern in {
        "liver": r"\bliver\b|\bhepatic\b(?! (?:vein|arter|duct|steatosis|hilum|flexure))"
        r"|\bhepatobiliary\b|\bhepatocellular\b",
        "pancreas": r"\bpancreas\b|\bpancreatic\b(?! (?:duct|phase|parenchymal phase))",
        "kidney": r"\bkidneys?\b|\brenal\b(?! (?:vein|arter|pelvi|calcul|stone|hil|collect))",
        "colon": r"\bcolon\b|\bcolonic\b|\blarge bowel\b",
        "spleen": r"\bspleen\b|\bsplenic\b(?! (?:vein|arter|flexure|hilum))",
        "stomach": r"\bstomach\b|\bgastric\b(?! (?:vein|arter))",
        "gallbladder": r"\bgall ?bladder\b(?! fossa)",
        "duodenum": r"\bduodenum\b|\bduodenal\b",
        "small_bowel": r"\bsmall bowel\b|\bjejun\w+\b|\bileum\b",
    }.items()
}
FOREIGN = re.compile(
    r"\b(?:lymph|node|nodal|lymphadenopathy|adenopathy|adrenal|lungs?|pulmonary|pleural|thrombus|thrombosis|calcul\w+|stones?"
    r"|vertebra\w*|osseous|bones?|ovar\w+|adnexa\w*|uter(?:us|ine)|prostate|bladder|thyroid|aneurysm|hernia|peritone\w+"
    r"|mesenteric|omental|breast|lobe of the lung)\b"
)
_CONTACT = re.compile(
    r"\b(?:abutt\w+|abuts|adjacent to|invad\w+|contact\w+|encas\w+|next to|extend\w+ (?:in)?to|involv\w+|displac\w+"
    r"|close to|towards?)\b"
)
_TERM = (
    r"(?:lesions?|mass(?:es)?|nodules?|foc(?:us|i)|tumou?rs?|metastas[ei]s|metastatic deposits?|mets|\w*carcinomas?"
    r"|neoplasms?|malignanc(?:y|ies)|hypodensit(?:y|ies)|hyperdensit(?:y|ies)|hypoattenuations?|ha?emangiomas?|angiomyolipomas?"
    r"|oncocytomas?|adenomas?|deposits?|hccs?|(?:wall|mural) thickening|polyps?)(?:\(s\))?(?!\w)"
)
LESION = re.compile(rf"\b{_TERM}")
_PLURAL = re.compile(r"(?<![isu])s$|ses$|foci$")
_NOTHING = rf"(?:{_TERM}|(?:focal )?abnormalit(?:y|ies)|focal|suspicious findings?|finding|disease)"
NEGATED = re.compile(
    rf"\b(?:no|without|negative for|free of|absence of|nil|none|neither|nor|not (?:show|demonstrate|contain)\w*)\b"
    rf"(?!\s+(?:longer|change))[^.;\d]{{0,80}}?\b{_NOTHING}.*"
    rf"|{_TERM}\s*:?\s*(?:are |is )?(?:none|nil|absent|not (?:seen|identified))\b"
)
NORMAL = re.compile(
    r"\b(?:unremarkable|within normal limits|clear|nad|wnl|negative|intact|homogeneous)\b"
    r"|\bnormal\b(?! (?:in )?(?:size|calib|contour|morpholog|attenuation|enhancement|excretion)|-sized| sized)"
)
SAYS_NOTHING = re.compile(
    r"\b(?:cannot (?:be )?exclude\w*|can not exclude|not excluded|rule out|r/o|evaluate for|status post|s/p|history of"
    r"|no longer|resected|resolved|(?:ne?phr|hepat|pancreat|col)ectomy)\b"
)
_NOT_COUNTED = "multiple several numerous innumerable many few scattered various countless diffuse".split()
_COUNT_WORDS = {w: n for w, n in NUMBER_WORDS.items() if n} | dict.fromkeys(_NOT_COUNTED, UNCOUNTED)
_COUNT_WORDS |= {"couple": 2, "pair": 2, "solitary": 1, "single": 1}
_COUNT = re.compile(
    rf"\b({'|'.join(_COUNT_WORDS)}|\d{{1,2}})\b(?!\s*[cm]m\b|\s*x\b|[/.]\d)(?:[\s,]+(?!and\b)[\w@-]+){{0,6}}?[\s,]+({_TERM})"
)
_COUNT_AFTER = re.compile(rf"\b{_TERM}\s*:\s*({'|'.join(_COUNT_WORDS)}|\d{{1,2}})\b(?!\s*[cm]m)")
_LOOKS: tuple[tuple[Attenuation, re.Pattern[str]], ...] = (
    (
        "hypo",
        re.compile(r"\bhypo-?\s?(?:dens|atten|enhanc|vasc)\w+|\blow(?:er)?[- ](?:density|attenuation|attenuating)\b"),
    ),
    ("iso", re.compile(r"\biso-?\s?(?:dens|atten|enhanc)\w+")),
    (
        "hyper",
        re.compile(
            r"\bhyper-?\s?(?:dens|atten|enhanc|vasc)\w+|\bhigh(?:er)?[- ](?:density|attenuation)\b|\benhancing\b"
        ),
    ),
)
_EDGE = r"(?:defined|marginated|circumscribed|delineated|demarcated)"
_MARGINS: tuple[tuple[Margin, re.Pattern[str]], ...] = (
    (
        "ill-defined",
        re.compile(rf"\b(?:ill|poorly)[- ]?{_EDGE}|\bindistinct\b|\birregular\b|\binfiltrat\w+|\bspiculated\b"),
    ),
    ("well-defined", re.compile(rf"\b(?:well|sharply)[- ]?{_EDGE}|\bsmooth(?:ly)?\b")),
)
_PHASES = {
    "native": r"\bnon-?\s?(?:contrast|enhanced)\b|\bunenhanced\b|\bwithout (?:intravenous |iv )?contrast\b|\bnative\b",
    "arterial": r"\barterial(?:[ -]phase)\b",
    "portal_venous": r"\b(?:portal(?: |-)?)?venous(?:[ -]phase)\b",
    "delayed": r"\bdelayed(?:[ -]phase)\b|\bnephrographic\b|\bexcretory phase\b",
}


@dataclass(frozen=True)
class Place:
    """An organ, and the part of it where one is named, at a position of the text."""

    start: int
    organ: str
    region: str | None = None


def mark_parts(text: str) -> str:
    """Spelled-out text with every named part of an organ as a token: `segment vii` becomes `@segment_7`."""
    text = _SEGMENTS.sub(_segments, text)
    for pattern, token in _PARTS:
        text = pattern.sub(token, text)
    return text


def places(text: str, context: tuple[str, ...] = ()) -> list[Place]:
    """The places a marked sentence names, in order; of one organ either its parts or, without any, the organ.

    `context`: organs spoken of before, which tell what `left` or `tail` is a part of.
    """
    organs = {organ: match.start() for organ, word in ORGAN_WORDS.items() if (match := word.search(text))}
    parts = [
        Place(m.start(), _OF[m[1]], m[1].replace("_", " ")) for m in re.finditer(r"@([\w/]+)", text) if m[1] in _OF
    ]
    about = {*organs, *(part.organ for part in parts)} or set(context)
    if "pancreas" in about:
        parts += [Place(m.start(), "pancreas", m[1]) for m in _PANCREAS_PART.finditer(text)]
    if "kidney" in about:
        parts = [p for p in parts if p.organ != "kidney"] + _kidney_places(text)
    named = {part.organ for part in parts}
    parts += [Place(start, organ) for organ, start in organs.items() if organ not in named]
    return _once(sorted(parts, key=lambda place: place.start))


def own_places(found: list[Place], text: str) -> list[Place]:
    """Places without those that a lesion only touches."""
    contact = _CONTACT.search(text)
    own = [place for place in found if contact is None or place.start < contact.start()]
    return own or found


def lesion_count(text: str) -> int | None:
    """How many lesions a sentence without sizes speaks of; UNCOUNTED for several; None where it names none."""
    if not (terms := [match[0] for match in LESION.finditer(text)]):
        return None
    text = re.sub(r"@[\w/]+", "there", text)  # numbers of segments count nothing
    for match in (_COUNT.search(text), _COUNT_AFTER.search(text)):
        if match:
            return _COUNT_WORDS[match[1]] if match[1] in _COUNT_WORDS else int(match[1])
    return UNCOUNTED if _PLURAL.search(terms[0].removesuffix("(s)")) else 1


def attenuation_in(text: str) -> Attenuation | None:
    """The first attenuation that a sentence names."""
    found = [(match.start(), look) for look, word in _LOOKS if (match := word.search(text))]
    return min(found)[1] if found else None


def margin_in(text: str) -> Margin | None:
    """The first margin that a sentence names."""
    found = [(match.start(), margin) for margin, word in _MARGINS if (match := word.search(text))]
    return min(found)[1] if found else None


def phase_in(text: str) -> str | None:
    """The phase of the examination, where a text names just one."""
    found = [phase for phase in PHASES if re.search(_PHASES[phase], text)]
    return found[0] if len(found) == 1 else None


def _segments(match: re.Match[str]) -> str:
    """`segments v/viii` is one place, `segments ii and v` are two."""
    names = re.sub(_ID, lambda m: _segment_number(m[0]), match[1])
    pieces = []
    for piece in re.split(r"\s*(?:,\s*and|,|&|and|or)\s*", names):
        numbers = sorted({n.strip() for n in re.split(r"[/-]", piece)})
        pieces.append("@segment_" + "/".join(numbers[:2]))
    return " and ".join(pieces)


def _segment_number(word: str) -> str:
    if word in NUMBER_WORDS:
        return str(NUMBER_WORDS[word])
    stem, letter = (word[:-1], word[-1]) if word[-1] in "ab" else (word, "")
    return _ROMAN.get(stem, stem) + (letter if _ROMAN.get(stem, stem) == "4" else "")


def _kidney_places(text: str) -> list[Place]:
    """Sides and poles in order, joined until a second side or pole begins the next place."""
    words = [(m.start(), m[1], "") for m in _KIDNEY_SIDE.finditer(text)]
    words += [
        (m.start(), "", m[1].replace("_", " ")) for m in re.finditer(r"@(upper_pole|lower_pole|interpolar)\b", text)
    ]
    found: list[tuple[int, str, str]] = []
    for start, side, pole in sorted(words):
        if found:
            at, old_side, old_pole = found[-1]
            if (old_pole == "" or pole == "") and (side in ("", old_side) or old_side == ""):
                found[-1] = (at, side or old_side, pole or old_pole)
                continue
        found.append((start, side, pole))
    return [Place(start, "kidney", f"{side} {pole}".strip()) for start, side, pole in found]


def _once(found: list[Place]) -> list[Place]:
    seen: dict[tuple[str, str | None], Place] = {}
    for place in found:
        seen.setdefault((place.organ, place.region), place)
    return list(seen.values())


_OF = {region.replace(" ", "_"): organ for organ, regions in REGIONS.items() for region in regions}
