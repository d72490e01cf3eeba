"""`study create`: two sides into matched, blinded cases, checked before the study exists."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.files import replace_file, writing_to
from pipeline.grid import index3
from pipeline.organs import tumor_organ
from pipeline.progress import Progress
from pipeline.store import Location
from pipeline.study import design
from pipeline.study.cases import common_range, write_cases
from pipeline.study.design import Answers, Lesion, Mode, Study, Trial
from pipeline.study.leaks import Finding, leaks, separation
from pipeline.study.lesions import Candidate, Crop, common_place
from pipeline.study.matching import balance, in_turns, match, warnings
from pipeline.study.sources import Found, real_candidates, synthetic_candidates

# Draws of a study, by the second word of their seed.
_REAL_ORDER, _SYNTHETIC, _NUMBERS, _SIDES, _READERS = range(5)
_DRAWS = 1000  # of case numbers; one in about twenty is refused


@dataclass(frozen=True)
class Plan:
    """What `study create` was asked for. `cases` and `practice` count trials: screens with one or two lesions."""

    organ: str = "liver"
    mode: Mode = "yes-no"
    cases: int = 20
    practice: int = 4
    crop_mm: float = 96.0
    seed: int = 0

    def __post_init__(self) -> None:
        tumor_organ(self.organ)
        if self.mode == "yes-no" and (self.cases % 2 or self.practice % 2):
            raise InputError(
                f"--cases {self.cases} --practice {self.practice}: both must be even in the mode yes-no, which shows "
                "as many real as synthetic lesions"
            )

    @property
    def pairs(self) -> tuple[int, int]:
        """Pairs of a real and a synthetic lesion: for the trials, and for practice."""
        share = 2 if self.mode == "yes-no" else 1
        return self.cases // share, self.practice // share


Pair = tuple[Candidate, Candidate]  # real, synthetic
_Asked = tuple[Trial, Any]
_TRUTHS = ("real", "synthetic")


def create(
    real: Path, data: Location, out: Path, plan: Plan, *, labels: str | None, log: Callable[[str], None]
) -> dict[str, Any]:
    """Make the study `out` and return what it holds, as a JSON-ready record. Every lesion is used once.

    Raises InputError when too few pairs match, PhantumorError when the leak check fails; then nothing is left behind.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; a study is made once, give another --out")
    dataset = open_dataset(data)
    pairs, found = _pairs(real, dataset, plan, labels)
    log(f"{len(pairs)} matched pairs, {sum(plan.pairs)} needed")
    _check_enough(len(pairs), plan, found)
    used = pairs[: sum(plan.pairs)]
    crops = _crops(used, plan, dataset.info.spacing_mm)
    record, truth = _designed(used, crops, plan, dataset, str(real))
    with writing_to(out, "Give another --out, or make room, and run the same command again"):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            findings = _written(aside, record, truth, crops)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _summary(out, record, truth, len(pairs), findings, found)


def _pairs(real: Path, dataset: Dataset, plan: Plan, labels: str | None) -> tuple[list[Pair], dict[str, Found]]:
    """Matched pairs in the order in which they are used."""
    spacing = dataset.info.spacing_mm
    edge = round(plan.crop_mm / spacing)
    reals = real_candidates(real, labels, plan.organ, spacing, edge)
    turns = in_turns([one.source for one in reals.candidates], _rng(plan, _REAL_ORDER))
    first = [reals.candidates[k] for k in turns]
    synthetic = synthetic_candidates(dataset, plan.organ, first, edge, _rng(plan, _SYNTHETIC))
    pairs = [(first[a], synthetic.candidates[b]) for a, b in match(first, synthetic.candidates, edge)]
    return pairs, {"real": reals, "synthetic": synthetic}


def _crops(pairs: Sequence[Pair], plan: Plan, spacing_mm: float) -> list[Crop]:
    """The crops of all pairs: real, synthetic, real, ...; both of a pair show their lesion at the same place."""
    edge, crops = round(plan.crop_mm / spacing_mm), []
    progress = Progress(len(pairs), "pairs cut out")
    for real, synthetic in pairs:
        place = common_place(real, synthetic, edge)
        if place is None:
            raise AssertionError("pairs are matched so that they have a place in common")
        crops += [one.crop(plan.organ, edge, place) for one in (real, synthetic)]
        progress.advance(1)
    return crops


def _check_enough(there: int, plan: Plan, found: Mapping[str, Found]) -> None:
    needed = sum(plan.pairs)
    if there >= needed:
        return
    sides = "; ".join(
        f"{len(side.candidates)} usable {name} lesions ({side.reasons()})" for name, side in found.items()
    )
    per_pair = 2 if plan.mode == "yes-no" else 1
    remedy = f"--cases {there * per_pair} --practice 0 makes a study of them. " if there else ""
    raise InputError(
        f"{needed} matched pairs of a real and a synthetic lesion are needed ({plan.pairs[0]} for --cases "
        f"{plan.cases}, {plan.pairs[1]} for --practice {plan.practice}), and only {there} can be made: {sides}. Each "
        f"lesion is used once, as two crops of it would not be two lesions. {remedy}Add real cases or generate more "
        "samples"
    )


def _designed(
    pairs: Sequence[Pair], crops: Sequence[Crop], plan: Plan, dataset: Dataset, real: str
) -> tuple[Study, Answers]:
    """Case numbers, trials and their truth."""
    flat = [one for pair in pairs for one in pair]  # real, synthetic, real, ...
    numbers = _numbers(flat, plan)
    couples = [(numbers[2 * k], numbers[2 * k + 1]) for k in range(len(pairs))]
    practice, reading = _trials(couples, plan)
    record = Study(
        mode=plan.mode,
        organ=plan.organ,
        spacing_mm=dataset.info.spacing_mm,
        shape_vox=index3(crops[0].image.shape),
        range_hu=common_range(crops),
        places_vox=dict(sorted((number, crop.place) for number, crop in zip(numbers, crops, strict=True))),
        order_seed=int(_rng(plan, _READERS).integers(2**62)),
        practice=tuple(trial for trial, _ in practice),
        trials=tuple(trial for trial, _ in reading),
    )
    sides = [[pair[k] for pair in pairs] for k in (0, 1)]
    rows = balance(sides[0], sides[1])
    truth = Answers(
        seed=plan.seed,
        dataset=str(dataset.path),
        config_digest=dataset.info.config_digest,
        real=real,
        cases={number: _lesion(one, k // 2) for k, (number, one) in enumerate(zip(numbers, flat, strict=True))},
        trials={trial.id: answer for trial, answer in (*practice, *reading)},
        balance=tuple(rows),
        notes=tuple(warnings(sides[0], sides[1], rows)),
    )
    return record, truth


def _numbers(cases: Sequence[Candidate], plan: Plan) -> list[str]:
    """A number for each case, drawn so that they do not tell the truth; see `leaks.separation`."""
    rng = _rng(plan, _NUMBERS)
    synthetic = [one.truth == "synthetic" for one in cases]
    for _ in range(_DRAWS):
        drawn = rng.permutation(len(cases)) + 1
        if separation("case number", "", drawn.tolist(), synthetic).passed:
            return [f"{number:03d}" for number in drawn]
    raise AssertionError("most draws separate nothing")


def _trials(couples: Sequence[tuple[str, str]], plan: Plan) -> tuple[list[_Asked], list[_Asked]]:
    """Trials for practice and for reading, each with its right answer; couples are (real, synthetic)."""
    rng = _rng(plan, _SIDES)
    count = plan.pairs[0]
    asked = [_ask(part, plan.mode, rng) for part in (couples[count:], couples[:count])]
    ids = iter(f"t{k:03d}" for k in range(1, sum(map(len, asked)) + 1))
    practice, reading = ([(Trial(id=next(ids), cases=cases), answer) for cases, answer in part] for part in asked)
    return practice, reading


def _ask(couples: Sequence[tuple[str, str]], mode: Mode, rng: np.random.Generator) -> list[tuple[tuple[str, ...], Any]]:
    """Cases of each trial and its right answer, in random order; the synthetic one is as often left as right."""
    asked: list[tuple[tuple[str, ...], Any]]
    if mode == "2afc":
        on_left = rng.permutation(np.arange(len(couples)) % 2 == 0)
        sides = zip(couples, on_left.tolist(), strict=True)
        asked = [((couple[::-1], "left") if left else (couple, "right")) for couple, left in sides]
    else:
        asked = [((number,), name) for couple in couples for number, name in zip(couple, _TRUTHS, strict=True)]
    return [asked[k] for k in rng.permutation(len(asked))]


def _written(folder: Path, record: Study, truth: Answers, crops: Sequence[Crop]) -> list[Finding]:
    """Write everything into `folder` and check it; PhantumorError when something gives the truth away."""
    # The truth lists the cases in the order of their crops.
    write_cases(folder, dict(zip(truth.cases, crops, strict=True)), record.spacing_mm, record.range_hu)
    findings = leaks(folder, {number: one.truth for number, one in truth.cases.items()})
    failed = [f"{finding.name} ({finding.detail})" for finding in findings if not finding.passed]
    if failed:
        raise PhantumorError(
            f"the study was not made: real and synthetic cases can be told apart without looking, by "
            f"{', '.join(failed)}. Please report it, and choose another --seed"
        )
    practice = {trial.id: truth.trials[trial.id] for trial in record.practice}
    _write_private(folder / design.TRUTH, truth.model_dump(mode="json"))
    _write_private(folder / design.PRACTICE, {"trials": practice})
    _write_private(folder / design.LEAKS, [finding.to_json() for finding in findings])
    _write_private(folder / design.INFO, record.model_dump(mode="json"))
    (folder / design.ANSWERS).mkdir(mode=0o700)
    return findings


def _write_private(path: Path, document: Any) -> None:
    path.touch(mode=0o600)
    replace_file(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    path.chmod(0o600)


def _summary(
    out: Path, record: Study, truth: Answers, made: int, findings: Sequence[Finding], found: Mapping[str, Found]
) -> dict[str, Any]:
    return {
        "study": str(out),
        "mode": record.mode,
        "trials": len(record.trials),
        "practice": len(record.practice),
        "matched_pairs": made,
        "lesions": {
            name: {"usable": len(side.candidates), "left_out": dict(sorted(side.left_out.items()))}
            for name, side in found.items()
        },
        "range_hu": list(record.range_hu),
        "balance": [dict(row) for row in truth.balance],
        "notes": list(truth.notes),
        "leak_check": [finding.to_json() for finding in findings],
    }


def describe(summary: Mapping[str, Any]) -> list[str]:
    """What was made, in a few lines."""
    rows = "; ".join(f"{row['fact']} {row['real']:.3g} / {row['synthetic']:.3g}" for row in summary["balance"])
    return [
        *(f"note: {note}" for note in summary["notes"]),
        f"{summary['trials']} trials and {summary['practice']} for practice, {summary['matched_pairs']} matched pairs "
        "could be made",
        f"medians, real / synthetic: {rows}",
        f"leak check: {len(summary['leak_check'])} of {len(summary['leak_check'])} passed",
        f"next: phantumor study serve {summary['study']}",
    ]


def _lesion(one: Candidate, pair: int) -> Lesion:
    return Lesion(truth=one.truth, name=one.name, source=one.source, pair=pair, **asdict(one.facts))


def _rng(plan: Plan, draw: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((plan.seed, draw)))
